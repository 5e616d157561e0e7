"""Depth students: N of the teacher's layers and everything else.

The N layers are evenly spaced; or those with the largest block influence, which change the hidden
state most on a sample of text (Men et al. 2024, ShortGPT, arXiv:2403.03853); or chosen greedily,
dropping one layer after another, each time the one whose loss raises the KL to the teacher
least.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from explorer.distill import cpu_tuning
from explorer.distill.losses import sparse_forward_kl
from explorer.distill.teacher_cache import top_k_of
from explorer.errors import BadInput
from explorer.files import durable_files
from explorer.models.layers import KEPT_LAYERS, body_of, layer_list
from explorer.models.loading import Loaded
from explorer.students import layer_check
from explorer.students.layer_config import keep_config_layers

# Shape letters: B blocks, T tokens of a block, K kept tokens, V vocabulary, H hidden size.

GREEDY_TOP_K = 32
"""Teacher log-probabilities per position for the greedy choice's KL."""
MOST_TRIES, MOST_NUMBERS = 8, 3
"""Numbers of layers that are tried where one does not fit, and that a message names."""


def uniform_layers(total: int, num_layers: int) -> list[int]:
    """`num_layers` of `total` layers, evenly spaced, including the first and the last."""
    if num_layers == 1:
        return [0]
    return [round(i * (total - 1) / (num_layers - 1)) for i in range(num_layers)]


def most_influential(influence: list[float], num_layers: int) -> list[int]:
    """The layers of largest influence, in ascending order."""
    by_influence = sorted(range(len(influence)), key=lambda i: (-influence[i], i))
    return sorted(by_influence[:num_layers])


@torch.inference_mode()
def block_influence(
    model: PreTrainedModel, blocks_BT: Tensor, on_block: Callable[[int], None] = lambda n: None
) -> list[float]:
    """1 - mean cosine of each layer's input and output on the sample; one number per layer."""
    _, layers = layer_list(model)
    sums, num_tokens = torch.zeros(len(layers), dtype=torch.float64), 0

    def watch(index: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
            before_BTH = args[0] if args else kwargs["hidden_states"]
            after_BTH = out[0] if isinstance(out, tuple) else out
            cosine = torch.cosine_similarity(before_BTH.float(), after_BTH.float(), dim=-1)
            sums[index] += cosine.double().sum().cpu()

        return hook

    hooks = [
        layer.register_forward_hook(watch(i), with_kwargs=True) for i, layer in enumerate(layers)
    ]
    try:
        for done, block_T in enumerate(blocks_BT, start=1):
            body_of(model)(block_T[None].to(model.device), use_cache=False)
            num_tokens += block_T.numel()
            on_block(done)
    finally:
        for hook in hooks:
            hook.remove()
    return [float(value) for value in 1 - sums / num_tokens]


class DropOrder:
    """The order in which the greedy choice drops a model's layers.

    A smaller student drops what a larger one dropped and then more, so the order is saved for
    all sizes. It belongs to one model, teacher and sample.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Read the file if it exists; without a path nothing is saved."""
        self._path = path
        self.layers: list[int] = []
        if path:
            stored = durable_files.read_or_set_aside(path, dict[str, list[int]] | list[int])
            # A list alone comes from an older version.
            self.layers = stored.get("layers", []) if isinstance(stored, dict) else stored or []

    def add(self, layer: int) -> None:
        """Append a layer and save."""
        self.layers.append(layer)
        if self._path:
            durable_files.write_json(self._path, {"layers": self.layers})


@cpu_tuning.onednn_matmul()
@torch.inference_mode()
def greedy_layers(
    start: Loaded,
    teacher: Loaded,
    num_layers: int,
    blocks_BT: Tensor,
    on_try: Callable[[int, int], None] = lambda done, total: None,
    order: DropOrder | None = None,
) -> list[int]:
    """Drop one layer after another, each time the one whose loss raises the KL least.

    Dropping R of L layers tries L + (L - 1) + ... + (L - R + 1) students, each on the whole
    sample. The layers before a dropped one are computed once per block and shared.

    Args:
        start: The model that loses layers.
        teacher: The model whose distributions count: `start` itself, or its teacher.
        num_layers: Layers to keep.
        blocks_BT: Token ids of the sample.
        on_try: Called with (students tried, students to try).
        order: What a student of another size has dropped already; continued from there.

    Returns:
        The indices of the kept layers, ascending.
    """
    _, layers = layer_list(start.model)
    order = order or DropOrder()
    dropped = order.layers[: len(layers) - num_layers]
    layers_left = [layer for layer in range(len(layers)) if layer not in dropped]
    if len(layers_left) == num_layers:
        return layers_left
    targets = [top_k_of(teacher, block_T[None], _top_k(teacher), 1.0)[:2] for block_T in blocks_BT]
    outputs = _num_outputs(start.model)
    total = sum(range(num_layers + 1, len(layers_left) + 1))
    done = 0
    while len(layers_left) > num_layers:
        kl = dict.fromkeys(layers_left, 0.0)
        for block_T, target in zip(blocks_BT, targets, strict=True):
            for layer, value in _kl_without_each(
                start.model, layers_left, block_T, target, outputs
            ):
                kl[layer] += value
                done += 1
                on_try(done // len(blocks_BT), total)
        order.add(min(layers_left, key=lambda layer: kl[layer]))
        layers_left.remove(order.layers[-1])
    return layers_left


def _top_k(teacher: Loaded) -> int:
    return min(GREEDY_TOP_K, int(teacher.model.config.get_text_config().vocab_size))


def _kl_without_each(
    model: PreTrainedModel,
    kept: list[int],
    block_T: Tensor,
    target: tuple[Tensor, Tensor],
    outputs: list[int | None],
) -> Iterator[tuple[int, float]]:
    """Yield (layer, summed KL to the target without it) for each kept layer."""
    _, layers = layer_list(model)
    ids_1T = block_T[None].to(model.device)
    ids_TK, log_p_TE = (tensor[0, :-1] for tensor in target)
    whole = list(layers)
    entering: dict[int, Tensor] = {}
    hooks = [
        whole[layer].register_forward_pre_hook(
            lambda _, args, kwargs, layer=layer: entering.__setitem__(
                layer, args[0] if args else kwargs["hidden_states"]
            ),
            with_kwargs=True,
        )
        for layer in kept
    ]
    skipped = {i: _Stub(whole[i], outputs[i]) for i in range(len(whole)) if i not in kept}
    try:
        with _replaced(layers, skipped):
            body_of(model)(ids_1T, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    for layer in kept:
        # The layers before it are not computed again: its stub returns what had entered it.
        stubs = {i: _Stub(whole[i], outputs[i]) for i in range(layer)}
        stubs |= skipped | {layer: _Stub(whole[layer], outputs[layer], entering[layer])}
        with _replaced(layers, stubs):
            logits_1TV = model(ids_1T, use_cache=False).logits
        kl_T = sparse_forward_kl(logits_1TV[0, :-1], ids_TK, log_p_TE)
        yield layer, float(kl_T.sum())


class _Stub(nn.Module):
    """Replaces a layer; returns a fixed hidden state, or its input."""

    def __init__(
        self, layer: nn.Module, num_outputs: int | None, hidden_BTH: Tensor | None = None
    ) -> None:
        super().__init__()
        self._num_outputs, self._hidden_BTH = num_outputs, hidden_BTH
        # Some families read a layer's kind of attention.
        self.attention_type = getattr(layer, "attention_type", None)

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        left_BTH = hidden_states if self._hidden_BTH is None else self._hidden_BTH
        if self._num_outputs is None:
            return left_BTH
        return (left_BTH, *[None] * (self._num_outputs - 1))


def _num_outputs(model: PreTrainedModel) -> list[int | None]:
    """For each layer the length of the tuple that it returns; None where it returns a tensor."""
    _, layers = layer_list(model)
    lengths: list[int | None] = [None] * len(layers)

    def watch(index: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, output: Any) -> None:
            lengths[index] = len(output) if isinstance(output, tuple) else None

        return hook

    hooks = [layer.register_forward_hook(watch(i)) for i, layer in enumerate(layers)]
    try:
        ids_1T = torch.zeros(1, 2, dtype=torch.long, device=model.device)
        body_of(model)(ids_1T, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return lengths


@contextlib.contextmanager
def _replaced(layers: nn.ModuleList, stubs: dict[int, _Stub]) -> Iterator[None]:
    """Put stubs in place of some layers; restore the layers afterwards."""
    whole = {index: layers[index] for index in stubs}
    try:
        for index, stub in stubs.items():
            layers[index] = stub
        yield
    finally:
        for index, layer in whole.items():
            layers[index] = layer


def keep_layers(model: PreTrainedModel, kept: list[int]) -> PreTrainedModel:
    """A new model of the same class with only these layers, its weights copied.

    Raises:
        BadInput: A layer would not compute what it computes in the model.
    """
    student, state = _uncopied_student(model, kept)
    load_student_weights(student, state, model)
    layer_check.check_kept_layers(model, student, kept)
    return student


def check_layers_fit(model: PreTrainedModel, kept: list[int]) -> None:
    """Refuse layers that no configuration of the model's family describes.

    Args:
        model: The model, also on torch's meta device.
        kept: The layers of the student.

    Raises:
        BadInput: A layer would have other weights or settings than in the model.
    """
    with torch.device("meta"):
        student, _ = _uncopied_student(model, kept)
        layer_check.check_settings(model, student, kept)
        layer_check.check_runs(model, student.eval(), kept)


def check_uniform(model: PreTrainedModel, num_layers: int) -> None:
    """Refuse a number of evenly spaced layers that the model's family cannot keep.

    Args:
        model: The model, also on torch's meta device.
        num_layers: Layers to keep.

    Raises:
        BadInput: The message names numbers that are possible.
    """
    total = len(layer_list(model)[1])
    try:
        check_layers_fit(model, uniform_layers(total, num_layers))
    except BadInput as error:
        near = sorted(range(1, total), key=lambda number: abs(number - num_layers))
        fitting = [n for n in near[1 : 1 + MOST_TRIES] if _fits(model, uniform_layers(total, n))]
        numbers = " or ".join(map(str, sorted(fitting[:MOST_NUMBERS])))
        hint = f" The uniform choice works with {numbers} layers." if fitting else ""
        raise BadInput(f"{error}{hint}") from error


def _fits(model: PreTrainedModel, kept: list[int]) -> bool:
    try:
        check_layers_fit(model, kept)
    except BadInput:
        return False
    return True


def _uncopied_student(
    model: PreTrainedModel, kept: list[int]
) -> tuple[PreTrainedModel, dict[str, Tensor]]:
    """A model with these layers, and the weights that it is to get."""
    prefix, layers = layer_list(model)
    config = copy.deepcopy(model.config)
    keep_config_layers(config, kept)
    setattr(config, KEPT_LAYERS, kept)
    with layer_check.building(model, kept):
        # As it is read again from a file, where some families derive one setting from another.
        config = type(config).from_dict(config.to_dict())
        student: PreTrainedModel = type(model)._from_config(config, dtype=model.dtype)
    state = select_layer_weights(model.state_dict(), prefix, kept)
    expected = {name: tuple(weight.shape) for name, weight in student.state_dict().items()}
    for name, weight in state.items():
        if not name.startswith(prefix + ".") and name in expected:
            state[name] = _blocks_of_layers(weight, expected[name], len(layers), kept)
    if getattr(config, "scale_attn_by_inverse_layer_idx", False):
        _keep_scales(state, prefix, kept)
    given = {name: tuple(weight.shape) for name, weight in state.items()}
    layer_check.refuse_other_weights(type(model).__name__, expected, given, kept)
    return student, state


def _blocks_of_layers(
    weight: Tensor, shape: tuple[int, ...], num_layers: int, kept: list[int]
) -> Tensor:
    """The blocks of these layers in a weight that has one for each layer along one axis.

    Gemma 3n's embeddings of all layers are such a weight. Others are returned as they are.
    """
    for axis, (whole, own) in enumerate(zip(weight.shape, shape, strict=False)):
        if whole != own and whole * len(kept) == own * num_layers:
            blocks = weight.unflatten(axis, (num_layers, whole // num_layers))
            indices = torch.tensor(kept, device=weight.device)
            kept_blocks: Tensor = blocks.index_select(axis, indices)
            return kept_blocks.flatten(axis, axis + 1)
    return weight


def _keep_scales(state: dict[str, Tensor], prefix: str, kept: list[int]) -> None:
    """Move the change of GPT-2's 1 / (index + 1) into the queries, which it multiplies."""
    for new, old in enumerate(kept):
        for part in ("weight", "bias"):
            name = f"{prefix}.{new}.attn.c_attn.{part}"
            weight = state[name].clone()
            queries = weight.shape[-1] // 3
            weight[..., :queries] *= (new + 1) / (old + 1)
            state[name] = weight


def select_layer_weights(
    named: Mapping[str, Tensor], prefix: str, kept: list[int]
) -> dict[str, Tensor]:
    """The weights of these layers and those outside the layers, by their names in the student."""
    selected = {}
    new_index = {str(old): new for new, old in enumerate(kept)}
    for name, tensor in named.items():
        if not name.startswith(prefix + "."):
            selected[name] = tensor
            continue
        old, _, rest = name.removeprefix(prefix + ".").partition(".")
        if old in new_index:
            selected[f"{prefix}.{new_index[old]}.{rest}"] = tensor
    return selected


def load_student_weights(
    student: PreTrainedModel, state: Mapping[str, Tensor], model: PreTrainedModel
) -> None:
    """Load a new student's weights, and copy device and generation config from its source."""
    student.load_state_dict(state)
    student.tie_weights()
    student.generation_config = copy.deepcopy(model.generation_config)
    placed: Any = student  # Module.to has no usable type in transformers
    placed.to(model.device).eval()
