"""Layers of a key-value cache: with a shared prefix, or allocated once for a whole answer.

Source: transformers' `cache_utils.py`, whose `Cache` accepts any layers of this form.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

Header = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, [1, heads, header tokens, head size]."""


class PrefixLayer(DynamicLayer):
    """Puts the shared prefix in front of each layer's own keys and values; stores nothing."""

    def __init__(self, keys: Tensor, values: Tensor, num_rows: int) -> None:
        """Expand the prefix [1, heads, tokens, head size] to `num_rows` rows, without copying."""
        super().__init__()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
        self._keys = keys.expand(num_rows, -1, -1, -1)
        self._values = values.expand(num_rows, -1, -1, -1)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values that the queries may attend to."""
        return torch.cat([self._keys, key_states], -2), torch.cat([self._values, value_states], -2)

    def get_seq_length(self) -> int:
        """Number of tokens in the prefix."""
        return int(self._keys.shape[-2])


class PreallocatedLayer(DynamicLayer):
    """Keys and values in tensors that are allocated once; a step writes its own, no copies."""

    def __init__(self, num_keys: int, header: tuple[Tensor, Tensor] | None = None) -> None:
        """Hold `num_keys` keys, beginning with those of the prefix."""
        super().__init__()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
        self._num_keys, self._header = num_keys, header
        self._filled = 0 if header is None else int(header[0].shape[-2])
        self._tensors: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new keys and values; return all so far."""
        if self._tensors is None:
            header = self._header or (None, None)
            self._tensors = (
                self._allocated(key_states, header[0]),
                self._allocated(value_states, header[1]),
            )
        keys, values = self._tensors
        stop = self._filled + key_states.shape[-2]
        keys[:, :, self._filled : stop] = key_states
        values[:, :, self._filled : stop] = value_states
        self._filled = stop
        return keys[:, :, :stop], values[:, :, :stop]

    def _allocated(self, like: Tensor, header: Tensor | None) -> Tensor:
        shape = (*like.shape[:2], self._num_keys, like.shape[-1])
        made = torch.empty(shape, dtype=like.dtype, device=like.device)
        if header is not None:
            made[:, :, : header.shape[-2]] = header
        return made

    def get_seq_length(self) -> int:
        """Number of tokens so far."""
        return self._filled

    def keep(self, rows: Tensor) -> None:
        """Drop all other rows."""
        if self._tensors is not None:
            self._tensors = self._tensors[0][rows], self._tensors[1][rows]

    def whole(self) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer that is full."""
        assert self._tensors is not None, "update comes first"
        assert self._filled == self._num_keys, "the layer is not full"
        return self._tensors
