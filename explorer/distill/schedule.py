"""A training budget in steps: how many there are, their blocks and their learning rates."""

import math

from explorer.specs import DistillSpec


def num_steps(spec: DistillSpec) -> int:
    """Optimizer steps that the budget of scored tokens pays for; at least one."""
    return max(1, spec.max_tokens // (spec.blocks_per_step * (spec.block_tokens - 1)))


def blocks_of_step(spec: DistillSpec, training: list[int], step: int) -> list[int]:
    """Block numbers of a step; after its last block the corpus starts again."""
    first = step * spec.blocks_per_step
    return [training[(first + i) % len(training)] for i in range(spec.blocks_per_step)]


def learning_rate(spec: DistillSpec, step: int) -> float:
    """Rate of a step: linear warm-up, then a cosine down to a tenth of the peak."""
    total = num_steps(spec)
    warmup = max(1, round(spec.warmup_fraction * total))
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1, total - warmup)
    return spec.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * share)))
