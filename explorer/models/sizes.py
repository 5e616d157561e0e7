"""A model's sizes as its files state them, read in milliseconds and without a model library.

Only configurations and headers are read, never weights, and nothing is downloaded. So the
dashboard can refuse an impossible student while its size is typed (`size_limits`).

    python -c "from explorer.models import sizes; print(sizes.read_sizes('starter'))"

A model that cannot be read here (a hub id that was never downloaded, an endpoint) has no sizes.
"""

import dataclasses
import functools
import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from explorer import paths
from explorer.errors import ExplorerError
from explorer.models import hub, weight_files
from explorer.models.gguf import gguf_files, header
from explorer.models.starter import STARTER_SIZES
from explorer.store import disk

T = TypeVar("T")

INNER_CONFIGS = ("text_config", "llm_config", "language_config", "thinker_config")
"""Parts of a multimodal model's configuration that hold the sizes of its language model."""
CONFIG_KEYS: Mapping[str, tuple[str, ...]] = {
    "num_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "intermediate_size": ("intermediate_size", "n_inner"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads"),
    "num_key_value_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "vocab_size": ("vocab_size",),
}
"""Our sizes, and their keys in the configurations of different families."""
PLAIN_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})
"""Dtypes of safetensors in which an element is a parameter."""
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
    struct.error,
    ExplorerError,
)
"""Errors from reading a file that is missing, damaged or of another kind."""
MAX_HEADER_BYTES = 100_000_000
"""A configuration that claims to be larger is damaged."""


@dataclasses.dataclass(frozen=True)
class ModelSizes:
    """The sizes that a model's files state; None where they do not."""

    num_layers: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    vocab_size: int | None = None
    num_parameters: int | None = None
    model_type: str | None = None
    """The name of its family in transformers."""


UNKNOWN = ModelSizes()


def read_sizes(name: str, root: Path | None = None) -> ModelSizes:
    """The sizes of a model, as far as files on this machine state them.

    Args:
        name: Any model name: `starter`, a folder, a hub id, `gguf:FILE`, `llamacpp:FILE`,
            `run:RUN_ID` or `endpoint:URL#MODEL`.
        root: The store of `run:RUN_ID`; None is this process's store.
    """
    name = name.strip()
    if name == "starter":
        return ModelSizes(**STARTER_SIZES, model_type="llama")
    prefix, colon, rest = name.partition(":")
    try:
        if colon and prefix in ("gguf", "llamacpp"):
            return _cached(Path(rest).expanduser(), _gguf_sizes)
        if colon and prefix == "run":
            return _run_sizes(rest, root or paths.store_root())
        if not name or colon and prefix == "endpoint":
            return UNKNOWN
        folder = folder_of(name)
        return UNKNOWN if folder is None else _folder_sizes(folder)
    except UNREADABLE:
        return UNKNOWN


def read_weight_shapes(name: str, root: Path | None = None) -> dict[str, tuple[int, ...]]:
    """The shape of each weight by its name; empty if safetensors files do not state them.

    Args:
        name: As in `read_sizes`.
        root: The store of `run:RUN_ID`; None is this process's store.
    """
    name = name.strip()
    if name == "starter":
        return _llama_shapes(**STARTER_SIZES)
    prefix, colon, rest = name.partition(":")
    try:
        if colon and prefix == "run":
            folder = disk.weights_folder(root or paths.store_root(), rest)
        else:
            folder = None if colon and prefix in ("gguf", "llamacpp") else folder_of(name)
        return {} if folder is None else _weight_shapes(folder)
    except UNREADABLE:
        return {}


def _llama_shapes(
    num_layers: int,
    hidden_size: int,
    intermediate_size: int,
    num_attention_heads: int,
    num_key_value_heads: int,
    vocab_size: int,
    num_parameters: int,
) -> dict[str, tuple[int, ...]]:
    """The weights of a Llama without biases whose head is tied to its embedding."""
    keys = num_key_value_heads * (hidden_size // num_attention_heads)
    layer = {
        "self_attn.q_proj": (hidden_size, hidden_size),
        "self_attn.k_proj": (keys, hidden_size),
        "self_attn.v_proj": (keys, hidden_size),
        "self_attn.o_proj": (hidden_size, hidden_size),
        "mlp.gate_proj": (intermediate_size, hidden_size),
        "mlp.up_proj": (intermediate_size, hidden_size),
        "mlp.down_proj": (hidden_size, intermediate_size),
        "input_layernorm": (hidden_size,),
        "post_attention_layernorm": (hidden_size,),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocab_size, hidden_size),
        "model.norm.weight": (hidden_size,),
    }
    for number in range(num_layers):
        shapes |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    assert sum(map(math.prod, shapes.values())) == num_parameters, "the sizes are of such a model"
    return shapes


def folder_of(name: str) -> Path | None:
    """A model's folder on this machine: its own, or the one in the hub's cache."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    return hub.cached_folder(name)


def _run_sizes(run_id: str, root: Path) -> ModelSizes:
    """Sizes of a run's student, or else those in its record."""
    weights = disk.weights_folder(root, run_id)
    if weights is not None:
        return _folder_sizes(weights)
    model = disk.load(root, run_id).model
    if model is None:
        return UNKNOWN
    return ModelSizes(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        vocab_size=model.vocab_size,
        num_parameters=model.num_parameters,
    )


def _folder_sizes(folder: Path) -> ModelSizes:
    stated = _cached(folder / "config.json", _config_sizes)
    try:
        shapes = _weight_shapes(folder)
    except UNREADABLE:
        return stated
    return dataclasses.replace(stated, num_parameters=sum(map(math.prod, shapes.values())))


def _weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every weight in a folder's safetensors files."""
    return {
        name: shape
        for path in weight_files.files(folder)
        for name, shape in _cached(path, _tensor_shapes).items()
    }


def _config_sizes(path: Path) -> ModelSizes:
    if path.stat().st_size > MAX_HEADER_BYTES:
        return UNKNOWN
    config = json.loads(path.read_text(encoding="utf-8"))
    model_type = config.get("model_type")
    return ModelSizes(
        **_sizes_in(config), model_type=model_type if isinstance(model_type, str) else None
    )


def _sizes_in(config: Any) -> dict[str, int]:
    """The sizes in a configuration, or in its part for the language model."""
    if not isinstance(config, dict):
        return {}
    outer = {
        size: config[key]
        for size, keys in CONFIG_KEYS.items()
        for key in reversed(keys)
        if _is_size(config.get(key))
    }
    if "num_layers" in outer:
        return outer
    inner = [_sizes_in(config.get(part)) for part in INNER_CONFIGS]
    return next((sizes for sizes in inner if sizes), outer)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in a safetensors file, from its header.

    Raises:
        UnknownModel: The file is damaged.
        ValueError: Its elements are not parameters, as in 4-bit formats.
    """
    tensors = weight_files.read_header(path)
    if not all(tensor.dtype in PLAIN_DTYPES for tensor in tensors.values()):
        raise ValueError("its elements are not the parameters")
    return {name: tensor.shape for name, tensor in tensors.items()}


def _gguf_sizes(path: Path) -> ModelSizes:
    gguf_header = header.read_header(path)
    if gguf_header is None:
        return UNKNOWN
    stated = {name: gguf_header.size(name) for name in header.SIZE_KEYS}
    try:
        num_parameters = header.count_parameters(gguf_files.read_files(path).shapes)
    except ExplorerError:
        num_parameters = None
    return ModelSizes(**stated, num_parameters=num_parameters, model_type=None)


def _cached(path: Path, read_file: Callable[[Path], T]) -> T:
    """The content of a file; it is read again only when the file has changed."""
    stat = path.stat()
    content: T = _read_once(path, read_file, stat.st_mtime_ns, stat.st_size)
    return content


@functools.lru_cache(maxsize=256)
def _read_once(path: Path, read_file: Callable[[Path], Any], mtime_ns: int, num_bytes: int) -> Any:
    return read_file(path)
