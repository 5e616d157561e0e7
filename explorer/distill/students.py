"""Students cut out of their teacher.

A depth student keeps N of the teacher's layers and everything else. Which N: evenly
spaced ones, or the ones with the largest block influence, the layers that turn the
hidden state most on a sample of text.

Source: Men et al. 2024 (ShortGPT), arXiv:2403.03853.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from explorer.errors import BadInput
from explorer.models.layers import KEPT_LAYERS, layer_list
from explorer.models.loading import Loaded
from explorer.specs import DepthStudent

# Shape letters: B blocks, T tokens of a block, H hidden size.


def build(
    teacher: Loaded, spec: DepthStudent, blocks_BT: Tensor, on_block: Callable[[int], None]
) -> tuple[Loaded, list[int]]:
    """Cut a student and say which of the teacher's layers it keeps.

    Args:
        teacher: Any causal model whose layers stand in one list, as Llama's and GPT's do.
        spec: How many layers and how they are chosen.
        blocks_BT: Token ids on which the importance is measured; unused for `uniform`.
        on_block: Called with the number of blocks done.

    Raises:
        BadInput: The teacher has fewer layers, or none that we can find.
    """
    _, layers = layer_list(teacher.model)
    total = len(layers)
    if spec.num_layers > total:
        raise BadInput(
            f"student.num_layers must be between 1 and the teacher's {total}, "
            f"got {spec.num_layers}."
        )
    if spec.choice == "uniform":
        kept = uniform_layers(total, spec.num_layers)
    else:
        influence = block_influence(teacher.model, blocks_BT[: spec.sample_blocks], on_block)
        kept = most_influential(influence, spec.num_layers)
    return Loaded(f"{teacher.name}:{spec.num_layers}l", keep_layers(teacher.model, kept),
                  teacher.tokenizer), kept  # fmt: skip


def uniform_layers(total: int, num_layers: int) -> list[int]:
    """`num_layers` of `total` layers, evenly spaced, the first and the last among them."""
    if num_layers == 1:
        return [0]
    return [round(i * (total - 1) / (num_layers - 1)) for i in range(num_layers)]


def most_influential(influence: list[float], num_layers: int) -> list[int]:
    """The layers of the largest influence, in the model's order."""
    by_influence = sorted(range(len(influence)), key=lambda i: (-influence[i], i))
    return sorted(by_influence[:num_layers])


@torch.inference_mode()
def block_influence(
    model: PreTrainedModel, blocks_BT: Tensor, on_block: Callable[[int], None] = lambda n: None
) -> list[float]:
    """1 - mean cosine between what enters and what leaves each layer; one number a layer."""
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
            model.base_model(block_T[None].to(model.device))
            num_tokens += block_T.numel()
            on_block(done)
    finally:
        for hook in hooks:
            hook.remove()
    return [float(value) for value in 1 - sums / num_tokens]


def keep_layers(model: PreTrainedModel, kept: list[int]) -> PreTrainedModel:
    """A new model of the same class with only these layers, its weights copied."""
    prefix, layers = layer_list(model)
    config = copy.deepcopy(model.config)
    for key, value in vars(model.config).items():
        # Per-layer settings, such as Qwen's and Gemma's layer_types.
        if isinstance(value, (list, tuple)) and len(value) == len(layers):
            setattr(config, key, [value[i] for i in kept])
    config.num_hidden_layers = len(kept)
    setattr(config, KEPT_LAYERS, kept)
    student: PreTrainedModel = type(model)._from_config(config, dtype=model.dtype)
    new_index = {str(old): new for new, old in enumerate(kept)}
    state = {}
    for key, tensor in model.state_dict().items():
        if not key.startswith(prefix + "."):
            state[key] = tensor
            continue
        old, _, rest = key.removeprefix(prefix + ".").partition(".")
        if old in new_index:
            state[f"{prefix}.{new_index[old]}.{rest}"] = tensor
    student.load_state_dict(state)
    student.tie_weights()
    student.generation_config = copy.deepcopy(model.generation_config)
    placed: Any = student  # Module.to has no usable type in transformers
    placed.to(model.device).eval()
    return student
