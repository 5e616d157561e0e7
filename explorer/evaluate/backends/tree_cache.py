"""Layers of a key-value cache that hold a shared opening once, or have room for an answer.

Source: transformers' `cache_utils.py`, whose `Cache` takes any layers of this form.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

Header = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, [1, heads, header tokens, head size]."""


class PrefixLayer(DynamicLayer):
    """The header in front of what a layer adds; remembers nothing."""

    def __init__(self, keys: Tensor, values: Tensor, num_rows: int) -> None:
        """Say for how many rows."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._keys = keys.expand(num_rows, -1, -1, -1)
        self._values = values.expand(num_rows, -1, -1, -1)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values that the queries may see."""
        return torch.cat([self._keys, key_states], -2), torch.cat([self._values, value_states], -2)

    def get_seq_length(self) -> int:
        """Tokens of the header."""
        return int(self._keys.shape[-2])


class PreallocatedLayer(DynamicLayer):
    """Keys and values in tensors made once, so that a step writes its own and copies nothing."""

    def __init__(self, num_keys: int, header: tuple[Tensor, Tensor] | None = None) -> None:
        """Say how many keys there will be, and what they begin with."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._num_keys, self._header = num_keys, header
        self._filled = 0 if header is None else int(header[0].shape[-2])
        self._room: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep, and give all there is."""
        if self._room is None:
            header = self._header or (None, None)
            self._room = self._made(key_states, header[0]), self._made(value_states, header[1])
        keys, values = self._room
        stop = self._filled + key_states.shape[-2]
        keys[:, :, self._filled : stop] = key_states
        values[:, :, self._filled : stop] = value_states
        self._filled = stop
        return keys[:, :, :stop], values[:, :, :stop]

    def _made(self, like: Tensor, header: Tensor | None) -> Tensor:
        shape = (*like.shape[:2], self._num_keys, like.shape[-1])
        made = torch.empty(shape, dtype=like.dtype, device=like.device)
        if header is not None:
            made[:, :, : header.shape[-2]] = header
        return made

    def get_seq_length(self) -> int:
        """Tokens so far."""
        return self._filled

    def keep(self, rows: Tensor) -> None:
        """Forget all other rows."""
        if self._room is not None:
            self._room = self._room[0][rows], self._room[1][rows]

    def whole(self) -> tuple[Tensor, Tensor]:
        """Keys and values of a room that is full."""
        assert self._room is not None, "nothing was read"
        assert self._filled == self._num_keys, "the room is for more"
        return self._room
