"""Model names, and how a model is loaded by its name.

| name | what it is |
| --- | --- |
| `starter` | SmolLM2-135M-Instruct from the starter package |
| `gguf:FILE` | a GGUF file, dequantised into torch |
| `run:RUN_ID` | the student of a run in the store |
| a path with a `config.json` | a folder in Hugging Face's layout |
| `llamacpp:FILE` | a GGUF file run by llama.cpp; not loaded into torch |
| `endpoint:URL#MODEL` | a model behind an OpenAI-compatible endpoint (`models.endpoint`) |
| anything else | an id on the Hugging Face hub, `org/name` or `org/name@REVISION` (`models.hub`) |

    python -c "from explorer.models import loading; print(loading.load('starter').model.config)"
"""

import contextlib
import dataclasses
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    dynamic_module_utils,
)
from transformers.utils import logging as transformers_logging

from explorer.devices import accelerator
from explorer.errors import ExplorerError, NoRoom, UnknownModel, reason_of
from explorer.files import durable_files
from explorer.models import hub, own_code, quantize, starter, weight_checks, weight_files
from explorer.models.gguf import gguf_files
from explorer.models.gguf.rope import restore_rope
from explorer.models.output_head import check_causal
from explorer.paths import store_root
from explorer.specs import Bits
from explorer.store import disk, students

OWN_CODE_PACKAGE = "transformers_modules"
"""Into it transformers loads the code of models."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model in memory with its tokenizer and the name it was loaded by."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    load_s: float | None = None
    """Seconds from the files to the device; None if the model was created in memory."""
    bits: Bits | None = None
    """Bits of the quantised linear weights; None if they are not quantised."""
    trust_remote_code: bool = False
    """Whether code in the model's repository was allowed to run."""
    commit: str | None = None
    """The commit on the hub that its files come from; None if they do not come from a hub."""


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The torch dtype of that name; `auto` is float32 on the CPU.

    On an accelerator it is bfloat16, unless the accelerator does not compute in it.
    """
    if name == "auto":
        narrow = accelerator.multiplies_in_bfloat16(device)
        return torch.bfloat16 if narrow else torch.float32
    return DTYPES[name]


def load(
    name: str,
    *,
    device: str | torch.device = "cpu",
    dtype: str = "auto",
    bits: Bits | None = None,
    trust_remote_code: bool = False,
) -> Loaded:
    """Load a causal language model and its tokenizer, in evaluation mode.

    With `bits` its linear weights are quantised (`models.quantize`): for an accelerator layer by
    layer, so that the unquantised model never lies on it; on a CPU after loading.

    Raises:
        BadInput: Weights of so many bits are not possible here; the message says why.
        UnknownModel: No such model, or it is not a causal language model.
        DamagedStore: The weights of a run's student are not those that were written.
        NoRoom: The device, its memory or the disk for a download is missing.
        RunFailed: The hub cannot be reached, or the download broke off.
    """
    where = device if isinstance(device, torch.device) else accelerator.pick_device(device)
    torch_dtype = pick_dtype(dtype, where)
    if bits:
        quantize.check_quantization(bits, where, torch_dtype)
    source = locate(name).fetched(weights=True)
    if name.startswith("run:"):
        students.check_weights(Path(source.path))
    gguf = _check_files(source)
    began = time.perf_counter()
    with reading(name, trust_remote_code):
        tokenizer = AutoTokenizer.from_pretrained(source.path, **source.options(trust_remote_code))
        read: Any = AutoModelForCausalLM.from_pretrained(
            source.path,
            dtype=torch_dtype,
            use_safetensors=None if source.gguf_file else True,
            # Tensors of another shape are in the report then, with their names.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **source.options(trust_remote_code),
        )
    model, report = read
    weight_checks.refuse_differences(name, report)
    if gguf:
        weight_checks.refuse_unused(name, model, gguf.shapes)
        restore_rope(name, model, gguf)
        model = _plain(model)
    weight_checks.follow_head(name, model)
    with reading(name, trust_remote_code):
        if bits:
            quantize.quantize_weights(model, bits, where)
        model = model.to(where).eval()
    load_s = time.perf_counter() - began
    weight_checks.refuse_non_finite(name, model)
    weight_checks.guard_rows(name, model, tokenizer)
    if getattr(model.config, "rescale_every", 0):
        # RWKV halves weights of its layers in place to answer and doubles them again to train,
        # against overflow in float16: a copy made in between would be another model.
        model.config.rescale_every = 0
    check_causal(model)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    commit = hub.commit_of(source.folder) if source.folder else None
    return Loaded(name, model, tokenizer, load_s, bits, trust_remote_code, commit)


def load_tokenizer(name: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load only the tokenizer of a model, which is much faster.

    Raises:
        UnknownModel: No such model, or its tokenizer cannot be read.
        ExplorerError: As `hub.fetch`.
    """
    source = locate(name).fetched()
    with reading(name, trust_remote_code, "the tokenizer of "):
        return AutoTokenizer.from_pretrained(source.path, **source.options(trust_remote_code))


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """What `from_pretrained` loads: a folder or hub id, possibly a GGUF file in it."""

    path: str
    gguf_file: str | None = None

    @property
    def folder(self) -> Path | None:
        """Its folder, if it is one on this machine rather than a hub id."""
        folder = Path(self.path)
        return folder if folder.is_dir() else None

    def fetched(self, *, weights: bool = False) -> "ModelSource":
        """The same on this machine; a hub model's missing files are downloaded.

        Raises:
            ExplorerError: As `hub.fetch`.
        """
        if self.folder or self.gguf_file:
            return self
        return ModelSource(str(hub.fetch(self.path, weights=weights)))

    def options(self, trust_remote_code: bool) -> dict[str, Any]:
        """The arguments of `from_pretrained`.

        They always say whether code may run: where they do not, transformers asks on the terminal.
        """
        options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
        return options | ({"gguf_file": self.gguf_file} if self.gguf_file else {})


def locate(name: str) -> ModelSource:
    """Resolve a name to what `from_pretrained` loads, without loading anything.

    Raises:
        UnknownModel: The path, file or run does not exist.
    """
    for prefix, runner in (("llamacpp:", "llama.cpp"), ("endpoint:", "a server")):
        if name.startswith(prefix):
            raise UnknownModel(
                f"{name} runs in {runner}: it can be evaluated and timed, but not trained or cut. "
                "Name weights for torch: starter, a hub id, a folder, gguf:FILE or run:RUN_ID."
            )
    if name == "starter":
        return ModelSource(str(_starter_folder()))
    if name.startswith("gguf:"):
        path = Path(name.removeprefix("gguf:")).expanduser()
        if not path.is_file():
            raise UnknownModel(f"No GGUF file at {path}. Write gguf: and the path of a .gguf file.")
        return ModelSource(str(path.parent), path.name)
    if name.startswith("run:"):
        run_id = name.removeprefix("run:")
        weights = disk.weights_folder(store_root(), run_id)
        if weights is None:
            raise UnknownModel(
                f"The weights of the run {run_id!r} are not on this machine, as weights are not "
                f"committed. Train them again with explorer run {run_id} --again."
            )
        return ModelSource(str(weights))
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UnknownModel(f"The folder {folder} has no config.json, so it is not a model.")
        return ModelSource(str(folder))
    repository, _ = hub.split(name)
    if name.startswith((".", "/", "~")) or repository.count("/") > 1 or not repository.strip():
        raise UnknownModel(
            f"There is no folder {name!r}. Name a model as starter, a hub id (org/name), a folder, "
            "gguf:FILE or run:RUN_ID."
        )
    return ModelSource(name)


def disk_bytes(name: str) -> int | None:
    """Size of the files with a model's weights; None if they are not on this machine."""
    source = locate(name)
    if source.gguf_file:
        return gguf_files.read_files(Path(source.path) / source.gguf_file).num_bytes
    folder = Path(source.path)
    if not folder.is_dir():
        downloaded = hub.cached_folder(source.path)
        if downloaded is None:
            return None
        folder = downloaded
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")]
    return sum(sizes) or None


def _check_files(source: ModelSource) -> gguf_files.GgufFiles | None:
    """Check a model's files on this machine; return those in GGUF.

    Raises:
        UnknownModel: Files are missing or damaged.
    """
    if source.gguf_file:
        files = gguf_files.read_files(Path(source.path) / source.gguf_file)
        if len(files.paths) > 1:
            raise UnknownModel(
                f"{files.paths[0]} is one of {len(files.paths)} parts, which only llama.cpp reads "
                "as one model. Write llamacpp: instead of gguf:, or join them: llama-gguf-split "
                f"--merge {files.paths[0]} WHOLE.gguf."
            )
        return files
    if source.folder:
        weight_checks.stored_tensors_of(source.folder)
    return None


def _starter_folder() -> Path:
    """The starter as safetensors: converted once, then it loads in a second."""
    gguf = starter.fetch_starter()
    folder = gguf.parent / "float32"
    with FileLock(str(folder) + ".lock"):
        if not (folder / "config.json").is_file():
            converted = load(f"gguf:{gguf}", dtype="float32")
            with durable_files.new_folder(folder) as whole:
                with quiet_transformers():
                    converted.model.save_pretrained(whole)
                converted.tokenizer.save_pretrained(whole)
    return folder


def load_config(name: str, *, trust_remote_code: bool = False) -> Any:
    """The model's configuration, without its weights.

    Raises:
        UnknownModel: No such model, or its configuration cannot be read.
        ExplorerError: As `hub.fetch`.
    """
    source = locate(name).fetched()
    with reading(name, trust_remote_code):
        return AutoConfig.from_pretrained(source.path, **source.options(trust_remote_code))


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights in a model that `save_pretrained` accepts.

    transformers marks a model from GGUF as quantised and then refuses to save it, although its
    weights are ordinary floats by now.
    """
    config = type(model.config).from_dict(
        {k: v for k, v in model.config.to_dict().items() if k != "quantization_config"}
    )
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    # Rotary tables are buffers outside the state dict: take the computed ones.
    buffers = dict(model.named_buffers())
    for buffer_name, _ in list(plain.named_buffers()):
        owner = plain.get_submodule(buffer_name.rpartition(".")[0])
        setattr(owner, buffer_name.rpartition(".")[2], buffers[buffer_name])
    return plain


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Switch off transformers' logs and progress bars; our own progress replaces them."""
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def reading(name: str, trust_remote_code: bool, part: str = "the model ") -> Iterator[None]:
    """Turn whatever a model's files make transformers raise into one sentence.

    Args:
        name: The model.
        trust_remote_code: Whether its own code may run.
        part: What is read, before the model's name.

    Raises:
        UnknownModel: Anything but the errors below.
        NoRoom: The memory is missing.
        ExplorerError: As raised inside.
    """
    if trust_remote_code:
        _refuse_own_code(name)
    try:
        with quiet_transformers():
            yield
    except ExplorerError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise NoRoom(f"{name} does not fit into memory: {error}") from error
    except PermissionError as error:
        raise UnknownModel(f"Could not read {error.filename}: {reason_of(error)}.") from error
    # Files from outside, and with trust_remote_code their code, can raise anything.
    except Exception as error:
        if not trust_remote_code and "trust_remote_code" in str(error):
            raise UnknownModel(own_code_refusal(name)) from error
        if "cannot be loaded with `safetensors`" in str(error):
            raise UnknownModel(
                f"{name} has no safetensors, and reading other weights can run code. Convert them "
                f"once into a folder, and name it: {weight_files.TO_SAFETENSORS} "
                f"{shlex.quote(name)} FOLDER"
            ) from error
        raise UnknownModel(f"Could not load {part}{name!r}: {_first_line(error, name)}") from error


def _refuse_own_code(name: str) -> None:
    """Refuse a model with code of its own that this user did not allow.

    Raises:
        CodeNotAllowed: The message has the command that shows the code and allows it.
    """
    source = locate(name)
    if not source.gguf_file:
        folder = source.folder or hub.cached_folder(source.path)
        if folder is not None:
            own_code.refuse(name, folder)


def _get_class_of_allowed_code(class_name: str, module_path: Any, **options: Any) -> Any:
    """Transformers' own function, once the code it is about to import is allowed.

    All code of models passes here, also what a configuration takes from another repository.
    """
    modules: Any = dynamic_module_utils
    file = Path(modules.HF_MODULES_CACHE) / module_path
    relative = dynamic_module_utils.get_relative_import_files(file)
    own_code.refuse_files([file, *map(Path, relative)])
    return _GET_CLASS(class_name, module_path, **options)


_GET_CLASS = dynamic_module_utils.get_class_in_module
dynamic_module_utils.get_class_in_module = _get_class_of_allowed_code


def runs_own_code(config: Any) -> bool:
    """Whether a loaded configuration is of a model with code of its own, which was allowed."""
    return type(config).__module__.startswith(OWN_CODE_PACKAGE)


def own_code_refusal(name: str) -> str:
    """Why a model with its own code is not loaded, and what to do."""
    return (
        f"{name} needs Python code of its own, which runs only if you allow it. Read that code; if "
        "you trust its authors, write trust_remote_code: true in the spec, or add "
        "--trust-remote-code to the command, and allow the code with `explorer trust "
        f"{shlex.quote(name)}`."
    )


def _first_line(error: Exception, name: str) -> str:
    text = str(error).strip().strip("'\"").splitlines()
    hint = ""
    if os.environ.get("HF_HUB_OFFLINE") == "1" and not Path(name).exists():
        hint = " (HF_HUB_OFFLINE=1 is set, so nothing is downloaded)"
    return (text[0] if text else type(error).__name__) + hint
