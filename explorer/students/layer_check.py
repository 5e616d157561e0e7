"""Checks that each layer of a depth student computes what it computed in the teacher.

The teacher reads 64 tokens; then the student reads them, and each of its layers is given the
hidden state that entered it in the teacher. What leaves it has to be what left it there. The same
weights in the same operations differ by rounding only, so a few units of rounding are allowed.
Windows longer than the text make no difference to it, so settings of layers are compared too.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from explorer.errors import BadInput
from explorer.models.check import num_positions
from explorer.models.layers import body_of, layer_list

# Shape letters: B texts, T tokens, H hidden size.

NUM_TOKENS = 64
ROUNDINGS = 32
"""Allowed difference in units of rounding, relative to what a layer adds to the hidden state. A
GPT-2 layer whose scale moved into its weights differs by about 3; a wrong window, rotary base or
scale by thousands."""
SETTINGS = re.compile(r"window|sliding|chunk|layer_type|attention_type|rope|lambda")
"""Attributes of a layer's modules by which its attention can differ."""


def refuse_other_weights(
    name: str,
    expected: dict[str, tuple[int, ...]],
    given: dict[str, tuple[int, ...]],
    kept: list[int],
) -> None:
    """Refuse a student whose layers would have other weights than the teacher's.

    Args:
        name: The class of the model.
        expected: Shape of each weight that the student's configuration describes.
        given: Shape of each weight that it would get.
        kept: The teacher's layers.

    Raises:
        BadInput: The message says where they differ.
    """
    different = sorted(
        key for key in expected.keys() | given.keys() if expected.get(key) != given.get(key)
    )
    if different:
        raise _refusal(name, kept, f"{different[0]} would be of another kind")


@contextlib.contextmanager
def building(teacher: PreTrainedModel, kept: list[int]) -> Iterator[None]:
    """Turn the refusal of transformers to build or run a student into one sentence."""
    try:
        yield
    # What a family refuses in its configuration, it refuses by any exception.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _refusal(type(teacher).__name__, kept, f"transformers says: {reason}") from error


def check_settings(teacher: PreTrainedModel, student: PreTrainedModel, kept: list[int]) -> None:
    """Refuse a student whose layers have other settings, such as windows, than in the teacher.

    Raises:
        BadInput: The message names the first one that differs.
    """
    if _has_attention(teacher) and not _has_attention(student):
        raise _refusal(type(teacher).__name__, kept, "no layer with attention would be left")
    theirs, own = layer_list(teacher)[1], layer_list(student)[1]
    for new, old in enumerate(kept):
        before, after = _settings(theirs[old]), _settings(own[new])
        changed = next((key for key in before if before[key] != after.get(key)), None)
        if changed:
            raise _refusal(
                type(teacher).__name__,
                kept,
                f"{changed} of layer {old} would be {after.get(changed)}, not {before[changed]}",
            )


def check_runs(teacher: PreTrainedModel, student: PreTrainedModel, kept: list[int]) -> None:
    """Refuse a student without a kind of layers that its family cannot answer without.

    Both models may be on torch's meta device, where some families cannot run at all; then nothing
    is refused.

    Raises:
        BadInput: The student cannot answer.
    """
    ids_BT = torch.zeros(1, 2, dtype=torch.long, device=teacher.device)
    try:
        teacher(ids_BT)
    except Exception:
        return
    with building(teacher, kept):
        student(ids_BT)


@torch.inference_mode()
def check_kept_layers(teacher: PreTrainedModel, student: PreTrainedModel, kept: list[int]) -> None:
    """Refuse a student whose layers do not compute what they computed in the teacher.

    Args:
        teacher: The model that was cut.
        student: Its kept layers, untrained.
        kept: The index in the teacher of each of the student's layers.

    Raises:
        BadInput: The message names the first layer that differs.
    """
    name = type(teacher).__name__
    check_settings(teacher, student, kept)
    theirs, own = layer_list(teacher)[1], layer_list(student)[1]
    num_tokens = min(NUM_TOKENS, num_positions(teacher.config) or NUM_TOKENS)
    ids_BT = torch.arange(num_tokens, device=teacher.device)[None]
    ids_BT = ids_BT % int(teacher.config.get_text_config().vocab_size)
    entered: dict[int, Tensor] = {}
    left: dict[int, Tensor] = {}
    outputs: dict[int, Tensor] = {}
    with building(teacher, kept):
        _run(teacher, theirs, ids_BT, set(kept), lambda i, x: entered.setdefault(i, x), left)
        _run(student, own, ids_BT, range(len(kept)), lambda i, _: entered[kept[i]], outputs)
    check_runs(teacher, student, kept)
    for new, old in enumerate(kept):
        if old not in left or new not in outputs:
            raise _refusal(name, kept, f"layer {old} is not run like other layers")
        if not _equal(outputs[new], left[old], entered[old]):
            raise _refusal(name, kept, f"layer {old} would compute something else")


def _run(
    model: PreTrainedModel,
    layers: nn.ModuleList,
    ids_BT: Tensor,
    watched: Iterable[int],
    enter: Callable[[int, Tensor], Tensor],
    left: dict[int, Tensor],
) -> None:
    """Run a model; `enter` sees, and may replace, what enters a layer; `left` gets what leaves."""

    def before(index: int) -> Callable[..., tuple[Any, Any]]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            if args:
                return (enter(index, args[0]), *args[1:]), kwargs
            return args, kwargs | {"hidden_states": enter(index, kwargs["hidden_states"])}

        return hook

    def after(index: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, output: Any) -> None:
            left.setdefault(index, output[0] if isinstance(output, (tuple, list)) else output)

        return hook

    handles = []
    for index in watched:
        handles.append(layers[index].register_forward_pre_hook(before(index), with_kwargs=True))
        handles.append(layers[index].register_forward_hook(after(index)))
    try:
        body_of(model)(ids_BT, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()


def _equal(own: Tensor, theirs: Tensor, entered: Tensor) -> bool:
    """Whether two outputs of a layer differ by rounding only."""
    if own.shape != theirs.shape:
        return False
    rounding = torch.finfo(theirs.dtype).eps
    own, theirs, entered = own.float(), theirs.float(), entered.float()
    added = (theirs - entered).square().mean().sqrt()
    allowed = rounding * (ROUNDINGS * added + 4 * theirs.abs())
    return bool(((own - theirs).abs() <= allowed).all())


def _has_attention(model: PreTrainedModel) -> bool:
    """Whether a family of several kinds of layers has some with attention in this model."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"]
    return any("attention" in kind and kind != "linear_attention" for kind in kinds)


def _settings(layer: nn.Module) -> dict[str, Any]:
    """The settings of a layer's modules, by module and attribute."""
    return {
        f"{path}.{key}".lstrip("."): value
        for path, module in layer.named_modules()
        for key, value in vars(module).items()
        if SETTINGS.search(key) and isinstance(value, (int, float, str, type(None)))
    }


def _refusal(name: str, kept: list[int], why: str) -> BadInput:
    return BadInput(
        f"In a student with the layers {', '.join(map(str, kept))} of this {name} these would not "
        f"compute what they compute in the teacher: {why}. Choose another number of layers or "
        "another choice."
    )
