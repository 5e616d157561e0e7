"""The budget of a training, step by step: how many there are, their blocks and their rates."""

import math

from explorer.specs import DistillSpec


def num_steps(spec: DistillSpec) -> int:
    """Optimiser steps that the budget of scored tokens buys, at least one."""
    return max(1, spec.max_tokens // (spec.blocks_per_step * (spec.block_tokens - 1)))


def blocks_of_step(spec: DistillSpec, training: list[int], step: int) -> list[int]:
    """Block numbers of a step; the corpus is read again from its start when it ends."""
    first = step * spec.blocks_per_step
    return [training[(first + i) % len(training)] for i in range(spec.blocks_per_step)]


def learning_rate(spec: DistillSpec, step: int) -> float:
    """Linear warm-up, then a cosine down to a tenth of the peak."""
    total = num_steps(spec)
    warmup = max(1, round(spec.warmup_fraction * total))
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    along = (step - warmup) / max(1, total - warmup)
    return spec.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * along)))
