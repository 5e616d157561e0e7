"""A model's sizes as its files state them, read in milliseconds and without a model library.

Only configurations and headers are read, never weights, and nothing is fetched, so the
dashboard can refuse an impossible student while its size is typed:

    python -c "from explorer.models import sizes; print(sizes.read_sizes('starter'))"

What cannot be read here (a hub id that was never downloaded, a model behind an endpoint)
has no sizes, and nothing is refused because of it.

Sources: github.com/ggml-org/ggml, `docs/gguf.md`, and github.com/huggingface/safetensors,
"Format", for the two headers.
"""

import dataclasses
import functools
import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from huggingface_hub import try_to_load_from_cache

from explorer import paths
from explorer.errors import BadInput, ExplorerError
from explorer.models.starter import STARTER_SIZES as STARTER
from explorer.specs import DepthStudent, FreshStudent, RunSpec, StudentSpec, Widths
from explorer.store import disk

T = TypeVar("T")

INNER_CONFIGS = ("text_config", "llm_config", "language_config", "thinker_config")
"""Where a model that also sees or hears keeps the sizes of its language model."""
NAMES: Mapping[str, tuple[str, ...]] = {
    "num_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "intermediate_size": ("intermediate_size", "n_inner"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads"),
    "num_key_value_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "vocab_size": ("vocab_size",),
}
"""Our sizes, and what the configurations of different families call them."""
GGUF_NAMES = {
    "block_count": "num_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "vocab_size": "vocab_size",
}
"""Keys of a GGUF file behind its architecture's name, and our sizes."""
PLAIN_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})
"""Number formats of safetensors in which an element is a parameter."""
GGUF_FORMATS = dict(enumerate("BbHhIif?sAQqd"))
"""Types of a GGUF value, by their number, as `struct` writes them; s is text, A an array."""
GGUF_TEXT, GGUF_ARRAY = 8, 9
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
"""What reading a file that is missing, damaged or of another kind raises."""
MOST_BYTES = 100_000_000
"""A configuration or a header that says it is larger than this is damaged."""


WIDTH_TYPES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "smollm3")
"""Model types whose widths we can cut, as `models.families` knows them."""


@dataclasses.dataclass(frozen=True)
class ModelSizes:
    """What a model's files say of its size; None where they do not."""

    num_layers: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    vocab_size: int | None = None
    num_parameters: int | None = None
    model_type: str | None = None
    """What transformers calls its family."""


UNKNOWN = ModelSizes()


def read_sizes(name: str, root: Path | None = None) -> ModelSizes:
    """The sizes of a model by its name, as far as files on this machine state them.

    Args:
        name: As everywhere: `starter`, a folder, a hub id, `gguf:FILE`, `llamacpp:FILE`,
            `run:RUN_ID` or `endpoint:URL#MODEL`.
        root: The store of `run:RUN_ID`; None is this process's own.
    """
    name = name.strip()
    if name == "starter":
        return ModelSizes(**STARTER, model_type="llama")
    place, colon, rest = name.partition(":")
    try:
        if colon and place in ("gguf", "llamacpp"):
            return _cached(Path(rest).expanduser(), _of_gguf)
        if colon and place == "run":
            return _of_run(rest, root or paths.store_root())
        if not name or colon and place == "endpoint":
            return UNKNOWN
        folder = _folder_of(name)
        return UNKNOWN if folder is None else _of_folder(folder)
    except UNREADABLE:
        return UNKNOWN


def read_weight_shapes(name: str, root: Path | None = None) -> dict[str, tuple[int, ...]]:
    """The shape of each weight by its name; empty if safetensors files do not state them.

    Args:
        name: As in `read_sizes`.
        root: The store of `run:RUN_ID`; None is this process's own.
    """
    name = name.strip()
    if name == "starter":
        return _llama_shapes(**STARTER)
    place, colon, rest = name.partition(":")
    try:
        if colon and place == "run":
            folder = disk.weights_folder(root or paths.store_root(), rest)
        else:
            folder = None if colon and place in ("gguf", "llamacpp") else _folder_of(name)
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
    """The weights of a Llama without biases whose head is its embedding."""
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


def _folder_of(name: str) -> Path | None:
    """A model's folder on this machine: its own, or the one in the hub's cache."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    config = try_to_load_from_cache(name, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def check_students(specs: Iterable[RunSpec], root: Path | None = None) -> None:
    """Refuse students that are not smaller than the model that they are cut from.

    Where that model's sizes cannot be read here, nothing is refused.

    Raises:
        BadInput: A size that the student cannot have, the model's own, and what to choose.
    """
    for spec in specs:
        if spec.student is not None:
            check_student(spec.student, spec.teacher, root)


def check_student(student: StudentSpec, teacher: str, root: Path | None = None) -> None:
    """As `check_students`, of one student.

    Raises:
        BadInput: A size that the student cannot have.
    """
    start = student.start or teacher
    if student.kind == "checkpoint" or start.startswith("endpoint:"):
        return
    whose = f"the teacher {teacher}" if student.start is None else start
    whole = read_sizes(start, root)
    if not isinstance(student, DepthStudent) and whole.model_type not in (None, *WIDTH_TYPES):
        raise BadInput(
            f"The widths of {whose} (model type {whole.model_type}) cannot be cut; known are "
            f"{', '.join(WIDTH_TYPES)}. Take a depth student, or kind: checkpoint."
        )
    fresh = isinstance(student, FreshStudent)
    if isinstance(student, DepthStudent | FreshStudent):
        check_num_layers(student.num_layers, whole.num_layers, whose, as_many=fresh)
    num_parameters = getattr(student, "num_parameters", None)
    most = whole.num_parameters
    # Nothing would be cut of as many, but a fresh model of the teacher's size is a baseline.
    if num_parameters and most and num_parameters > most - (not fresh):
        raise BadInput(
            f"{num_parameters:,} parameters asked for, but {whose} has {most:,}. "
            f"Choose {'at most' if fresh else 'fewer than'} {most:,}."
        )
    for size in sorted(Widths.model_fields):
        asked, of = getattr(student, size, None), getattr(whole, size)
        if asked and of and asked > of:
            raise BadInput(
                f"{size} {asked:,} asked for, but {whose} has {of:,}. Choose at most {of:,}."
            )


def check_num_layers(
    asked: int | None, num_layers: int | None, whose: str, *, as_many: bool = False
) -> None:
    """Refuse a student with as many or more layers than the model that it is cut from.

    Args:
        asked: The student's layers; None where it names none.
        num_layers: The model's; None where they are not known.
        whose: The model in words, as in `the teacher starter`.
        as_many: Whether the student may have as many, because it differs otherwise.

    Raises:
        BadInput: It has.
    """
    if asked is None or num_layers is None or asked < num_layers + as_many:
        return
    choose = f"at most {num_layers}" if as_many else f"fewer than {num_layers}"
    if num_layers == 1 and not as_many:
        choose = "another kind of student"
    raise BadInput(f"{asked} layers asked for, but {whose} has {num_layers}. Choose {choose}.")


def _of_run(run_id: str, root: Path) -> ModelSizes:
    """Of the student that a run left, or else as its record says."""
    weights = disk.weights_folder(root, run_id)
    if weights is not None:
        return _of_folder(weights)
    model = disk.load(root, run_id).model
    if model is None:
        return UNKNOWN
    return ModelSizes(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        vocab_size=model.vocab_size,
        num_parameters=model.num_parameters,
    )


def _of_folder(folder: Path) -> ModelSizes:
    stated = _cached(folder / "config.json", _of_config)
    try:
        shapes = _weight_shapes(folder)
    except UNREADABLE:
        return stated
    return dataclasses.replace(stated, num_parameters=sum(map(math.prod, shapes.values())))


def _weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every weight in a folder's safetensors files."""
    index = folder / "model.safetensors.index.json"
    names = _cached(index, _parts) if index.is_file() else ["model.safetensors"]
    return {
        name: shape for part in names for name, shape in _cached(folder / part, _shapes_in).items()
    }


def _parts(index: Path) -> list[str]:
    """The files that a model's weights are split into."""
    return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))


def _of_config(path: Path) -> ModelSizes:
    if path.stat().st_size > MOST_BYTES:
        return UNKNOWN
    config = json.loads(path.read_text(encoding="utf-8"))
    model_type = config.get("model_type")
    return ModelSizes(
        **_sizes_in(config), model_type=model_type if isinstance(model_type, str) else None
    )


def _sizes_in(config: Any) -> dict[str, int]:
    """The sizes in a configuration, or in the part of it that describes the language model."""
    if not isinstance(config, dict):
        return {}
    outer = {
        size: config[key]
        for size, keys in NAMES.items()
        for key in reversed(keys)
        if _is_size(config.get(key))
    }
    if "num_layers" in outer:
        return outer
    inner = [_sizes_in(config.get(part)) for part in INNER_CONFIGS]
    return next((sizes for sizes in inner if sizes), outer)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in a safetensors file, from its header.

    Raises:
        ValueError: The file is damaged, or its elements are not parameters, as in 4-bit formats.
    """
    with path.open("rb") as file:
        num_bytes = int.from_bytes(file.read(8), "little")
        if num_bytes > MOST_BYTES:
            raise ValueError("the file is damaged")
        header = json.loads(file.read(num_bytes))
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if not all(entry["dtype"] in PLAIN_DTYPES for entry in tensors.values()):
        raise ValueError("its elements are not the parameters")
    return {name: tuple(entry["shape"]) for name, entry in tensors.items()}


def _of_gguf(path: Path) -> ModelSizes:
    with path.open("rb") as file:
        return _of_gguf_header(file)


def _of_gguf_header(file: BinaryIO) -> ModelSizes:
    magic, version, num_tensors, num_values = _unpack(file, "<4sIQQ")
    if magic != b"GGUF" or version not in (2, 3):
        return UNKNOWN
    values: dict[str, Any] = {}
    for _ in range(num_values):
        key = _text(file).decode()
        (kind,) = _unpack(file, "<I")
        values[key] = _value(file, kind)
    architecture = bytes(values["general.architecture"]).decode()
    stated = {
        size: values[f"{architecture}.{key}"]
        for key, size in GGUF_NAMES.items()
        if _is_size(values.get(f"{architecture}.{key}"))
    }
    if values.get("split.count", 1) > 1:
        # The other tensors are in other files.
        return ModelSizes(**stated)
    num_parameters = 0
    for _ in range(num_tensors):
        name = _text(file)
        (num_axes,) = _unpack(file, "<I")
        *shape, _kind, _offset = _unpack(file, f"<{num_axes}QIQ")
        if name == b"token_embd.weight":
            stated.setdefault("vocab_size", shape[-1])
        # Tables of rotary frequencies are no parameters.
        num_parameters += 0 if name.startswith(b"rope") else math.prod(shape)
    return ModelSizes(**stated, num_parameters=num_parameters or None)


def _value(file: BinaryIO, kind: int) -> Any:
    """A value of a GGUF file; arrays, which can be a whole vocabulary, are passed over."""
    if kind == GGUF_TEXT:
        return _text(file)
    if kind != GGUF_ARRAY:
        return _unpack(file, f"<{GGUF_FORMATS[kind]}")[0]
    inner, length = _unpack(file, "<IQ")
    if inner in (GGUF_TEXT, GGUF_ARRAY):
        for _ in range(length):
            _value(file, inner)
    else:
        file.seek(length * struct.calcsize(f"<{GGUF_FORMATS[inner]}"), 1)
    return None


def _text(file: BinaryIO) -> bytes:
    (length,) = _unpack(file, "<Q")
    if length > MOST_BYTES:
        raise ValueError("the file is damaged")
    return file.read(length)


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    """Numbers at the file's position; raises struct.error where the file ends before."""
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _cached(path: Path, read_file: Callable[[Path], T]) -> T:
    """What a file says, read again only when the file has changed."""
    stat = path.stat()
    content: T = _read_once(path, read_file, stat.st_mtime_ns, stat.st_size)
    return content


@functools.lru_cache(maxsize=256)
def _read_once(path: Path, read_file: Callable[[Path], Any], mtime_ns: int, num_bytes: int) -> Any:
    return read_file(path)
