"""The sizes that a GGUF file's header states, read without a model library.

Source: github.com/ggml-org/ggml, `docs/gguf.md`.
"""

import dataclasses
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

SIZE_KEYS = {
    "num_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "vocab_size": "vocab_size",
}
"""Our sizes, and their keys in a GGUF file after its architecture's name."""
STRUCT_FORMATS = dict(enumerate("BbHhIif?sAQqd"))
"""Types of a GGUF value, by number, as `struct` formats; s is text, A an array."""
TEXT_TYPE, ARRAY_TYPE = 8, 9
MAX_AXES = 8
"""A tensor that claims to have more means that the file is damaged; llama.cpp allows 4."""
ALIGNMENT = 32
"""Tensors begin at multiples of it, unless the file states another number."""
MAX_TEXT_BYTES = 100_000_000
"""A text that claims to be longer means that the file is damaged."""


@dataclasses.dataclass(frozen=True)
class GgufHeader:
    """The values and the tensors' shapes in a header."""

    values: dict[str, Any]
    """Single values by key; arrays are skipped."""
    shapes: dict[str, tuple[int, ...]]
    """The shape of each tensor, by name."""
    places: dict[str, tuple[int, int]]
    """The type of each tensor as GGUF numbers it, and the place in the file where it begins."""

    def size(self, name: str) -> int | None:
        """One of `SIZE_KEYS`; None if the header does not state it."""
        architecture = bytes(self.values["general.architecture"]).decode()
        value = self.values.get(f"{architecture}.{SIZE_KEYS[name]}")
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        embedding = self.shapes.get("token_embd.weight") if name == "vocab_size" else None
        return embedding[-1] if embedding else None


def count_parameters(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Elements of all tensors but the tables of rotary frequencies; None if there are none."""
    counted = (shape for name, shape in shapes.items() if not name.startswith("rope"))
    return sum(map(math.prod, counted)) or None


def read_header(path: Path) -> GgufHeader | None:
    """The header of a GGUF file of version 2 or 3; None if it is something else.

    Raises:
        ValueError, KeyError, struct.error: The header is damaged.
    """
    with path.open("rb") as file:
        magic, version, num_tensors, num_values = _unpack(file, "<4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            return None
        values: dict[str, Any] = {}
        for _ in range(num_values):
            key = _text(file).decode()
            (kind,) = _unpack(file, "<I")
            values[key] = _value(file, kind)
        shapes, offsets = {}, {}
        for _ in range(num_tensors):
            name = _text(file).decode()
            if name in shapes:
                raise ValueError(f"it has two tensors named {name}")
            (num_axes,) = _unpack(file, "<I")
            if num_axes > MAX_AXES:
                raise ValueError(f"{name} has {num_axes:,} axes")
            *shape, kind, offset = _unpack(file, f"<{num_axes}QIQ")
            shapes[name], offsets[name] = tuple(shape), (kind, offset)
        alignment = values.get("general.alignment", ALIGNMENT)
        start = -(-file.tell() // alignment) * alignment
    places = {name: (kind, start + offset) for name, (kind, offset) in offsets.items()}
    return GgufHeader(values, shapes, places)


def _value(file: BinaryIO, kind: int) -> Any:
    """A value at the file's position; None for an array, which is skipped."""
    if kind == TEXT_TYPE:
        return _text(file)
    if kind != ARRAY_TYPE:
        return _unpack(file, f"<{STRUCT_FORMATS[kind]}")[0]
    inner, length = _unpack(file, "<IQ")
    if inner in (TEXT_TYPE, ARRAY_TYPE):
        for _ in range(length):
            _value(file, inner)
    else:
        file.seek(length * struct.calcsize(f"<{STRUCT_FORMATS[inner]}"), 1)
    return None


def _text(file: BinaryIO) -> bytes:
    (length,) = _unpack(file, "<Q")
    if length > MAX_TEXT_BYTES:
        raise ValueError("the file is damaged")
    return file.read(length)


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    """Numbers at the file's position; raises struct.error if the file ends early."""
    return struct.unpack(form, file.read(struct.calcsize(form)))
