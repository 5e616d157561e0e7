"""A configuration with fewer layers, in which each layer is of the kind that it was.

Many families decide by a layer's index what it is: dense or experts, local or global attention,
with or without rotary positions. Their configurations say so by a value for each layer, by lists
of indices, by counts of first or last layers, or by a rhythm.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

NOT_BY_LAYER = re.compile(r"token|architectures|section|limit|labels|^_")
"""Lists that are not about layers, although their length may be the number of layers."""
INDEX_LISTS = (
    "attn_layer_indices",
    "cross_attention_layers",
    "full_attn_idxs",
    "hybrid_layer_ids",
    "local_layer_ids",
    "mlp_only_layers",
    "moe_layers",
)
"""Keys whose value lists the indices of layers of one kind, counted from 0."""
FIRST = ("first_k_dense_replace", "max_window_layers", "num_dense_layers", "num_hash_layers")
"""Keys whose value is the number of first layers of one kind."""
LAST = ("num_kv_shared_layers",)
"""Keys whose value is the number of last layers of one kind."""
PERIODS = (
    ("attn_layer_period", "attn_layer_offset"),
    ("expert_layer_period", "expert_layer_offset"),
)
"""Pairs of keys: a layer is of one kind if its index modulo the period is the offset."""


def keep_config_layers(config: Any, kept: list[int]) -> None:
    """Change a configuration to one with only these layers.

    A rhythm that no values of its keys describe is left as it is; `layer_check` refuses such a
    student.

    Args:
        config: The configuration, or the part of it for the language model.
        kept: Indices of the layers, ascending.
    """
    config = config.get_text_config()
    total = int(config.num_hidden_layers)
    values = {key: value for key, value in vars(config).items() if not NOT_BY_LAYER.search(key)}
    _keep_sparse_step(config, kept, values)
    for key, value in values.items():
        if key in INDEX_LISTS and value is not None:
            setattr(config, key, [new for new, old in enumerate(kept) if old in value])
        elif key == "block_types":  # RecurrentGemma repeats it
            setattr(config, key, [value[old % len(value)] for old in kept])
        elif isinstance(value, (list, tuple)) and len(value) == total and key not in INDEX_LISTS:
            setattr(config, key, [value[old] for old in kept])
        elif key in FIRST and isinstance(value, int):
            setattr(config, key, sum(old < value for old in kept))
        elif key in LAST and isinstance(value, int):
            setattr(config, key, sum(old >= total - value for old in kept))
    for period, offset in PERIODS:
        if period in values:
            _keep_period(config, period, offset, kept)
    if "moe_layer_interval" in values:
        _keep_interval(config, kept)
    if "attention_types" in values:  # GPT-Neo expands it to attention_layers
        config.attention_types = [[list(config.attention_layers), 1]]
    config.num_hidden_layers = len(kept)


def _keep_sparse_step(config: Any, kept: list[int], values: dict[str, Any]) -> None:
    """Qwen's experts in every n-th layer, as a list of the dense layers."""
    step = values.get("decoder_sparse_step")
    if not isinstance(step, int):
        return
    dense = set(values.get("mlp_only_layers") or ())
    dense |= {old for old in kept if step > 0 and (old + 1) % step}
    values["mlp_only_layers"] = sorted(dense)
    if step > 0:
        config.decoder_sparse_step = 1


def _keep_period(config: Any, period: str, offset: str, kept: list[int]) -> None:
    """Choose a period and an offset that give each kept layer the kind that it was."""
    every, first = getattr(config, period), getattr(config, offset)
    wanted = [old % every == first for old in kept]
    # A period longer than the model allows for none of them.
    candidates = ((p, o) for p in range(1, len(kept) + 2) for o in range(p))
    same = _first(candidates, wanted, lambda new, p, o: new % p == o)
    if same:
        setattr(config, period, same[0])
        setattr(config, offset, same[1])


def _keep_interval(config: Any, kept: list[int]) -> None:
    """ERNIE's experts: in every n-th layer from a first to a last one."""
    every = config.moe_layer_interval
    first, last = config.moe_layer_start_index, config.moe_layer_end_index
    wanted = [(old + 1) % every == 0 and first <= old <= last for old in kept]
    size = len(kept)
    # An end of -1 would mean the last layer.
    ends = [(start, end) for start in range(size + 1) for end in range(size)]
    candidates = ((n, start, end) for n in range(1, size + 1) for start, end in ends)
    same = _first(
        candidates, wanted, lambda new, n, start, end: (new + 1) % n == 0 and start <= new <= end
    )
    if same:
        config.moe_layer_interval, config.moe_layer_start_index, config.moe_layer_end_index = same


def _first(
    candidates: Iterable[tuple[int, ...]], wanted: list[bool], rule: Callable[..., bool]
) -> tuple[int, ...] | None:
    """The first values with which a rule gives what is wanted for every layer."""
    for values in candidates:
        if [rule(new, *values) for new in range(len(wanted))] == wanted:
            return values
    return None
