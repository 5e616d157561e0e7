"""Several processes do one run: each takes a share of a training's step, or of a task's batches.

The first process does the run as always. The others wait in `help_out` for its orders: one that
begins a kind of work, then one for each round of it. What they compute goes to the first, which
alone holds the optimiser, the answers, the measurements and everything on disk. So a run is that
of one process (a training's losses to rounding, an evaluation's answers to the last bit), it may
be continued with another number of processes, and whoever ends it, in whatever way, ends it for
all.

    accelerate launch --config_file docs/accelerate/gpus.yaml -m explorer run spec.yaml
"""

import contextlib
import dataclasses
import datetime
import functools
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn

from explorer.distill import heap, products
from explorer.errors import ExplorerError, RunCancelled, RunFailed

PATIENCE = datetime.timedelta(days=7)
"""How long the others wait for an order: the first may be testing or timing for hours."""
TERMS = ("loss", "kd", "label", "hidden")

Result = TypeVar("Result")
Helper = Callable[[Any], Callable[[Any], None]]
"""Makes, from what begins a work, that which does a share of each of its rounds."""


@dataclasses.dataclass(frozen=True)
class Begin:
    """The order that begins a work."""

    helper: Helper
    """A function of a module, which every process finds by its name."""
    what: Any
    """What it has to know."""


def launched() -> bool:
    """Whether a launcher started several processes for this work."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def num_shards() -> int:
    """Processes over which a student's layers are spread: as many as were launched under FSDP."""
    if launched() and parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return int(os.environ["WORLD_SIZE"])
    return 1


def is_helper() -> bool:
    """Whether this is one of them that only helps."""
    return launched() and int(os.environ.get("RANK", "0")) > 0


class Crew:
    """The processes of one launch; without a launcher, this one alone."""

    def __init__(self) -> None:
        self.size, self.rank, self.device = 1, 0, torch.device("cpu")
        if not launched():
            return
        # Unlike Accelerator, PartialState does not read this variable itself.
        on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
        state = PartialState(cpu=on_cpu)
        self.size, self.rank = state.num_processes, state.process_index
        if self.size != int(os.environ["WORLD_SIZE"]):
            raise RunFailed(
                f"{os.environ['WORLD_SIZE']} processes were launched, but Accelerate sees "
                f"{self.size}: none would share the work. On a CPU set ACCELERATE_USE_CPU=true."
            )
        self.device = state.device
        # Orders go by the CPU: a GPU would spin while it waits for one.
        self._orders = dist.new_group(backend="gloo", timeout=PATIENCE)

    @property
    def sharded(self) -> bool:
        """Whether a student in training lies in shards."""
        return num_shards() > 1

    def order(self, what: Any = None) -> Any:
        """Say to all what comes next, or hear it.

        Raises:
            RunCancelled: Another process is gone.
        """
        if self.size == 1:
            return what
        box = [what]
        with all_there():
            dist.broadcast_object_list(box, src=0, group=self._orders)
        return box[0]

    def share(self, numbers: list[int]) -> list[int]:
        """This process's part of a step's blocks."""
        return numbers[self.rank :: self.size]

    def each(self, work: Callable[[], Result]) -> list[Result]:
        """What every process makes of its own work, in their order; only the first gets it.

        Raises:
            RunCancelled: Another process is gone.
            Exception: What went wrong in any of them, at the first process.
        """
        if self.size == 1:
            return [work()]
        own: Any = None
        failure: Exception | None = None
        try:
            own = work()
        except Exception as error:
            # Who fails without a word leaves the others waiting.
            failure = error
            own = _sendable(error)
        found: list[Any] | None = [None] * self.size if self.rank == 0 else None
        with all_there():
            dist.gather_object(own, found, dst=0, group=self._orders)
        if found is None:
            return []
        for one in [failure, *found]:
            if isinstance(one, Exception):
                raise one
        return found

    def same_parameters(self, model: nn.Module) -> None:
        """Give everybody the first process's parameters."""
        if self.size > 1:
            with all_there():
                for parameter in model.parameters():
                    dist.broadcast(parameter.data, src=0)

    def gather(
        self,
        parameters: Iterable[nn.Parameter],
        terms: dict[str, float],
        num_scored: int,
        *,
        everywhere: bool = False,
    ) -> tuple[dict[str, float], int]:
        """Sum up gradients, terms and scored tokens at the first process, or at each."""
        if self.size == 1:
            return terms, num_scored
        numbers = [terms.get(name, 0.0) for name in TERMS]
        seen = [float(name in terms) for name in TERMS]
        told = torch.tensor([*numbers, *seen, num_scored], dtype=torch.float64, device=self.device)
        add = dist.all_reduce if everywhere else functools.partial(dist.reduce, dst=0)
        with all_there():
            for parameter in parameters:
                if parameter.requires_grad:
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    add(parameter.grad)
            add(told)
        sums: Tensor = told.cpu()
        found = {n: float(sums[i]) for i, n in enumerate(TERMS) if sums[len(TERMS) + i] > 0}
        return found, int(sums[-1])


def _sendable(error: Exception) -> Exception:
    """What the first process is told; not every exception can be sent, but its words can."""
    if isinstance(error, ExplorerError | torch.OutOfMemoryError | MemoryError):
        return error
    return RuntimeError("".join(traceback.format_exception(error)))


@contextlib.contextmanager
def all_there() -> Iterator[None]:
    """Say in words that another process is gone."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise RunCancelled(
            "Another process of this launch exited; its log says why. The same command "
            f"continues the run. ({str(error).splitlines()[0]})"
        ) from error


_crew: Crew | None = None


def crew() -> Crew:
    """The crew of this process, made when first asked for."""
    global _crew
    if _crew is None:
        _crew = Crew()
    return _crew


@heap.kept()
@products.by_onednn()
def help_out() -> None:
    """Do what the first process orders until it dismisses us.

    Raises:
        RunCancelled: Another process is gone.
    """
    do: Callable[[Any], None] | None = None
    while (order := crew().order()) is not None:
        if isinstance(order, Begin):
            # The room of the work before is free for this one.
            do = None
            do = order.helper(order.what)
        else:
            assert do is not None, "a work begins before its first round"
            do(order)


def dismiss() -> None:
    """The first process's last word."""
    if launched():
        with contextlib.suppress(RunCancelled):
            crew().order(None)
        dist.destroy_process_group()
