"""A model in GGUF: one file, or several parts that llama.cpp reads as one.

Source: github.com/ggml-org/llama.cpp, `tools/gguf-split`: a part is called
NAME-00001-of-00003.gguf, and its header has `split.no`, counted from 0, and `split.count`.
"""

import dataclasses
import re
import struct
from pathlib import Path

from explorer.errors import UnknownModel, reason_of
from explorer.models.gguf.header import GgufHeader, read_header
from explorer.models.weight_files import listed

PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
"""The name of a part."""
UNREADABLE = (ValueError, KeyError, TypeError, OverflowError, ArithmeticError, struct.error)


@dataclasses.dataclass(frozen=True)
class GgufFiles:
    """The files of one model with their headers, the first part first."""

    paths: tuple[Path, ...]
    headers: tuple[GgufHeader, ...]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of all parts, by its name in GGUF."""
        return {name: shape for header in self.headers for name, shape in header.shapes.items()}

    @property
    def num_bytes(self) -> int:
        """Size of all parts."""
        return sum(path.stat().st_size for path in self.paths)


def read_files(path: Path) -> GgufFiles:
    """All parts of a model, each checked to be whole.

    Args:
        path: The file, or the first part.

    Raises:
        UnknownModel: It is not a GGUF file, a part is missing, or a file is damaged.
    """
    first = _read(path)
    count = first.values.get("split.count", 1)
    if count <= 1:
        return GgufFiles((path,), (first,))
    paths = _parts(path, first, count)
    headers = (first, *(_read(part) for part in paths[1:]))
    for number, (part, header) in enumerate(zip(paths, headers, strict=True)):
        if (header.values.get("split.no"), header.values.get("split.count")) != (number, count):
            raise UnknownModel(
                f"{part} is not part {number + 1} of {count}, as its name says. Copy the parts of "
                "one model again."
            )
    files = GgufFiles(paths, headers)
    total = first.values.get("split.tensors.count")
    if isinstance(total, int) and total != len(files.shapes):
        raise UnknownModel(
            f"The {count} parts of {path} hold {len(files.shapes):,} tensors, and its header "
            f"states {total:,}. Copy the parts of one model again."
        )
    return files


def _parts(path: Path, first: GgufHeader, count: int) -> tuple[Path, ...]:
    name = PART.fullmatch(path.name)
    number = first.values.get("split.no")
    if name is None or int(name["count"]) != count:
        raise UnknownModel(
            f"{path} is part {number if number is None else number + 1} of {count} and must be "
            f"called NAME-00001-of-{count:05d}.gguf, so that the other parts are found. Rename it."
        )
    paths = tuple(
        path.with_name(f"{name['stem']}-{part:05d}-of-{count:05d}.gguf")
        for part in range(1, count + 1)
    )
    if number != 0:
        raise UnknownModel(f"{path} is not the first part of its model. Name {paths[0].name}.")
    missing = [part.name for part in paths if not part.is_file()]
    if missing:
        raise UnknownModel(
            f"{path} is the first of {count} parts, and beside it {listed(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing. Copy all parts."
        )
    return paths


def _read(path: Path) -> GgufHeader:
    """The header of one file whose tensors all lie within it."""
    # Pages import this module, and read no GGUF file most of the time.
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if not path.is_file():
        raise UnknownModel(f"No GGUF file at {path}. Name the path of a .gguf file.")
    try:
        header = read_header(path)
    except PermissionError as error:
        raise UnknownModel(f"Could not read {path}: {reason_of(error)}.") from error
    except (OSError, *UNREADABLE) as error:
        raise UnknownModel(
            f"{path} is not a GGUF file, or is damaged: its header cannot be read. "
            "Copy or download it again."
        ) from error
    if header is None:
        raise UnknownModel(f"{path} is not a GGUF file of version 2 or 3.")
    size = path.stat().st_size
    for name, (kind, start) in header.places.items():
        try:
            per_block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError) as error:
            raise UnknownModel(
                f"{path}: {name} has the unknown number format {kind}. The file is damaged, or "
                "newer than the package gguf."
            ) from error
        elements = 1
        for length in header.shapes[name]:
            elements *= length
        end = start + elements // per_block * block_bytes
        if end > size:
            raise UnknownModel(
                f"{path} is truncated: {name} ends at byte {end:,}, and the file has {size:,}. "
                "Copy or download it again."
            )
    return header
