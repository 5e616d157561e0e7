"""What the safetensors files of a model's folder hold, from their headers; no weights are read.

    python -c "from explorer.models import weight_files; print(weight_files.read_tensors('FOLDER'))"

Source: github.com/huggingface/safetensors, "Format".
"""

import dataclasses
import json
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from explorer.errors import UnknownModel

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
"""A model's only file, and what names the files of a model in several."""
MAX_HEADER_BYTES = 100_000_000
"""A header that claims to be larger is damaged; the library has the same limit."""
PICKLED = ("pytorch_model*.bin", "consolidated*.pth", "*.ckpt", "*.pt", "*.bin")
"""Weights as Python pickles, which can run code when they are read."""
TO_SAFETENSORS = (
    'python -c "import sys, transformers as t; a, b = sys.argv[1], sys.argv[-1]; '
    "t.AutoModelForCausalLM.from_pretrained(a, use_safetensors=False).save_pretrained(b); "
    't.AutoTokenizer.from_pretrained(a).save_pretrained(b)"'
)
"""The command that converts them; a folder or a hub id follows, then possibly another folder."""
MOST_NAMES = 3
"""Tensors that a message names."""
_EXPERT = re.compile(r"(?P<experts>.+\.experts)\.(?P<number>\d+)\.(?P<rest>.+)")


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor as a header describes it."""

    dtype: str
    """As in safetensors, such as F32 or BF16."""
    shape: tuple[int, ...]


def files(folder: Path) -> list[Path]:
    """The safetensors files with a model's weights.

    Raises:
        UnknownModel: There are none, files are missing, or the folder holds two models.
    """
    single, index = folder / SINGLE, folder / INDEX
    if index.is_file():
        named = {folder / str(name) for name in _weight_map(index).values()}
        if single.is_file() and single not in named:
            raise UnknownModel(
                f"{folder} holds two models: {SINGLE}, and the files that {INDEX} names. Delete "
                "the one that is not meant."
            )
        missing = sorted(path.name for path in named if not path.is_file())
        if missing:
            raise UnknownModel(
                f"{folder} lacks {listed(missing)}, which {INDEX} names ({len(missing)} of "
                f"{len(named)} files). Copy or download the model again."
            )
        return sorted(named)
    if single.is_file():
        return [single]
    raise UnknownModel(_no_weights(folder))


def read_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a model's folder, by name.

    Raises:
        UnknownModel: A file is missing or damaged, or the files and their index disagree.
    """
    tensors: dict[str, StoredTensor] = {}
    file_of: dict[str, str] = {}
    for path in files(folder):
        for name, tensor in read_header(path).items():
            if name in tensors:
                raise UnknownModel(
                    f"{folder}: {name} is in {file_of[name]} and in {path.name}, so which one "
                    "counts is unknown. Copy or download the model again."
                )
            tensors[name], file_of[name] = tensor, path.name
    if (folder / INDEX).is_file():
        named = _weight_map(folder / INDEX)
        wrong = sorted(name for name, file in named.items() if file_of.get(name) != file)
        if wrong:
            raise UnknownModel(
                f"{folder}: {INDEX} and the files disagree about {listed(wrong)}. Copy or download "
                "the model again."
            )
    return tensors


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors in one safetensors file.

    Raises:
        UnknownModel: The file is damaged or truncated.
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if size < 8 or header_bytes > min(MAX_HEADER_BYTES, size - 8):
            raise UnknownModel(_damaged(path, _why_not(path, size)))
        text = file.read(header_bytes)
    tensors = {}
    end = 0
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            tensors[name] = StoredTensor(entry["dtype"], tuple(map(int, entry["shape"])))
            end = max(end, int(entry["data_offsets"][1]))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise UnknownModel(_damaged(path, "its header cannot be read")) from error
    if size != 8 + header_bytes + end:
        raise UnknownModel(
            _damaged(
                path, f"its header describes {8 + header_bytes + end:,} bytes, it has {size:,}"
            )
        )
    return tensors


def missing_experts(names: Iterable[str]) -> list[str]:
    """Names of weights that some experts of a layer have and others lack."""
    numbers: dict[str, set[str]] = defaultdict(set)
    rests: dict[str, set[str]] = defaultdict(set)
    present = set(names)
    for match in filter(None, map(_EXPERT.fullmatch, present)):
        numbers[match["experts"]].add(match["number"])
        rests[match["experts"]].add(match["rest"])
    return sorted(
        name
        for experts in numbers
        for number in numbers[experts]
        for rest in rests[experts]
        if (name := f"{experts}.{number}.{rest}") not in present
    )


def listed(names: Iterable[str]) -> str:
    """The first names in words, and how many there are besides."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:MOST_NAMES])
    rest = len(ordered) - MOST_NAMES
    return f"{shown} and {rest:,} more" if rest > 0 else shown


def _weight_map(index: Path) -> Mapping[str, Any]:
    """The file of each tensor."""
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if not all(
            isinstance(file, str) and Path(file).name == file for file in weight_map.values()
        ):
            raise ValueError("it names something that is not a file beside it")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnknownModel(
            f"{index} is damaged: expected a weight_map from tensors to files. Copy or download "
            "the model again."
        ) from error
    found: Mapping[str, Any] = weight_map
    return found


def _no_weights(folder: Path) -> str:
    shards = sorted(path.name for path in folder.glob("model-*-of-*.safetensors"))
    if shards:
        return f"{folder} has {listed(shards)}, but no {INDEX} that names them. Copy it too."
    if (folder / "adapter_config.json").is_file():
        return (
            f"{folder} holds an adapter (LoRA), not a whole model. Merge it into its base model "
            "(peft: merge_and_unload, then save_pretrained) and name that folder."
        )
    pickled = [path.name for pattern in PICKLED for path in sorted(folder.glob(pattern))]
    if pickled:
        return (
            f"{folder} has its weights in {listed(dict.fromkeys(pickled))}. Reading a pickle can "
            "run code, so only safetensors are loaded. Convert it once: "
            f"{TO_SAFETENSORS} {shlex.quote(str(folder))}"
        )
    return f"{folder} has no {SINGLE}, so it has no weights. Copy or download the model again."


def _why_not(path: Path, size: int) -> str:
    with path.open("rb") as file:
        start = file.read(40)
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself (run `git lfs pull`)"
    return f"it ends after {size:,} bytes, within its header"


def _damaged(path: Path, why: str) -> str:
    return f"{path} is damaged: {why}. Copy or download the model again."
