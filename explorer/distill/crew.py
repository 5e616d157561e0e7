"""Several processes teach one student: each takes a share of a step's blocks.

The first process does the run as always. The others wait in `help_out`; for every step they
get the student's parameters, compute the gradient of their blocks, and hand it to the
first, which alone holds the optimiser, the measurements and the checkpoints. So a step is
that of one process to rounding, a training may be continued with another number of
processes, and whoever ends a run, in whatever way, ends it for all.

    accelerate launch --config_file docs/accelerate/gpus.yaml -m explorer run spec.yaml
"""

import datetime
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn

from explorer.errors import BadInput

PATIENCE = datetime.timedelta(days=7)
"""How long the others wait for an order: the first may be testing or timing for hours."""
TERMS = ("loss", "kd", "label", "hidden")


def launched() -> bool:
    """Whether a launcher started several processes for this work."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_helper() -> bool:
    """Whether this is one of them that only helps."""
    return launched() and int(os.environ.get("RANK", "0")) > 0


class Crew:
    """The processes of one launch; without a launcher, this one alone."""

    def __init__(self) -> None:
        self.size, self.rank, self.device = 1, 0, torch.device("cpu")
        if not launched():
            return
        if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
            raise BadInput(
                "The loop shares out blocks, not parameters, so it cannot run under FSDP. Take "
                "docs/accelerate/gpus.yaml; a student has to fit one device."
            )
        state = PartialState()
        self.size, self.rank = state.num_processes, state.process_index
        self.device = state.device
        # Orders go by the CPU: a GPU would spin while it waits for one.
        self._orders = dist.new_group(backend="gloo", timeout=PATIENCE)

    def order(self, what: Any = None) -> Any:
        """Say to all what comes next, or hear it."""
        if self.size == 1:
            return what
        box = [what]
        dist.broadcast_object_list(box, src=0, group=self._orders)
        return box[0]

    def share(self, numbers: list[int]) -> list[int]:
        """This process's part of a step's blocks."""
        return numbers[self.rank :: self.size]

    def same_parameters(self, model: nn.Module) -> None:
        """Give everybody the first process's parameters."""
        if self.size > 1:
            for parameter in model.parameters():
                dist.broadcast(parameter.data, src=0)

    def gather(
        self, model: nn.Module, terms: dict[str, float], num_scored: int
    ) -> tuple[dict[str, float], int]:
        """Sum up gradients, terms and scored tokens at the first process."""
        if self.size == 1:
            return terms, num_scored
        for parameter in model.parameters():
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.reduce(parameter.grad, dst=0)
        numbers = [terms.get(name, 0.0) for name in TERMS]
        seen = [float(name in terms) for name in TERMS]
        told = torch.tensor([*numbers, *seen, num_scored], dtype=torch.float64, device=self.device)
        dist.reduce(told, dst=0)
        sums: Tensor = told.cpu()
        found = {n: float(sums[i]) for i, n in enumerate(TERMS) if sums[len(TERMS) + i] > 0}
        return found, int(sums[-1])


_crew: Crew | None = None


def crew() -> Crew:
    """The crew of this process, made when first asked for."""
    global _crew
    if _crew is None:
        _crew = Crew()
    return _crew


Helper = Callable[[Any], Callable[[int], None]]
"""Makes, from the order that begins a training, what does a step's share."""


def help_out(begin: Helper) -> None:
    """Do what the first process orders until it dismisses us."""
    step: Callable[[int], None] | None = None
    while (order := crew().order()) is not None:
        if isinstance(order, int):
            assert step is not None, "a training begins before its first step"
            step(order)
        else:
            step = begin(order)


def dismiss() -> None:
    """The first process's last word."""
    if launched():
        crew().order(None)
        dist.destroy_process_group()
