"""The student's layers as a training step runs them: as they are, or compiled if that is faster.

With `distill.compile` the first passes of a process are a trial, on the training's own batches:
some run as they are, the next ones compiled, and the faster way is kept. Only the call is compiled,
not the model, so weights keep their names and everything else that runs the student is unchanged.
"""

import logging
import statistics
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from explorer.devices import accelerator, failures
from explorer.distill import cpu_tuning
from explorer.models.layers import body_of
from explorer.records import Compilation

log = logging.getLogger("explorer")

# Shape letters: B blocks, T tokens of a block.

NUM_WARMUP = 2
"""Passes of each way before those that count; the first compiled one compiles."""
NUM_TIMED = 5
"""Passes of each way whose median counts."""


class StudentLayers:
    """Runs all of the student but its head, forward and backward."""

    def __init__(self, student: PreTrainedModel, *, try_compiled: bool = False) -> None:
        """Begin a trial if it should be tried whether compiled layers are faster."""
        self._device = student.device
        self._eager = self._run = body_of(student)
        self._seconds: dict[bool, list[float]] = {False: [], True: []}
        """Of each pass of the trial: as they are, and compiled."""
        self._shape: torch.Size | None = None
        self._counts, self._forward_s = False, 0.0
        self.is_trial = try_compiled
        # What is computed once more in `backward` must be computed as it was.
        self._as_torch = try_compiled and student.is_activation_checkpointing
        self.outcome: Compilation | None = None
        """What the trial found; None before its end."""

    @property
    def is_compiled(self) -> bool:
        """Whether passes run compiled now."""
        return self._run is not self._eager

    def forward(self, blocks_BT: Tensor, *, hidden_states: bool = False) -> Any:
        """The layers' output, as transformers returns it.

        Args:
            blocks_BT: Token ids.
            hidden_states: Whether it has the hidden states of every layer.
        """
        self._shape = self._shape or blocks_BT.shape
        # A step's last pass may have fewer blocks.
        self._counts = self.is_trial and blocks_BT.shape == self._shape
        began = self._now()
        with self._products():
            output = self._run(blocks_BT, use_cache=False, output_hidden_states=hidden_states)
        self._forward_s = self._now() - began
        return output

    def backward(self, outputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> None:
        """Add to the parameters' gradients, from those of what the last `forward` returned."""
        began = self._now()
        with self._products():
            torch.autograd.backward(outputs, cotangents)
        if self._counts:
            self._note(self._forward_s + self._now() - began)

    def _products(self) -> AbstractContextManager[None]:
        """How products of matrices are computed: torch's compiler cannot replace ours."""
        if self.is_compiled or self._as_torch:
            return cpu_tuning.torch_matmul()
        return nullcontext()

    def _now(self) -> float:
        if self.is_trial:
            accelerator.synchronize(self._device)
        return time.perf_counter()

    def _note(self, seconds: float) -> None:
        """Count a pass of the trial, and go on to the next way, or to the end, after the last."""
        of_this_way = self._seconds[self.is_compiled]
        of_this_way.append(seconds)
        if len(of_this_way) < NUM_WARMUP + NUM_TIMED:
            return
        if not self.is_compiled:
            self._run = torch.compile(self._eager, dynamic=False)
            return
        eager_ms, compiled_ms = (
            1e3 * statistics.median(each[NUM_WARMUP:]) for each in self._seconds.values()
        )
        is_faster = compiled_ms < eager_ms
        self._end(
            Compilation(
                kept="compiled" if is_faster else "eager",
                eager_ms=eager_ms,
                compiled_ms=compiled_ms,
            )
        )
        log.info(
            "Compiled, the student's layers take %.1f ms a pass, otherwise %.1f ms; they run %s "
            "from here on.",
            compiled_ms,
            eager_ms,
            "compiled" if is_faster else "as they are",
        )

    def _end(self, outcome: Compilation) -> None:
        self.is_trial, self.outcome = False, outcome
        if outcome.kept == "eager":
            self._run = self._eager

    def gave_up(self, error: BaseException) -> bool:
        """Whether an error came while compiled layers were tried, which then run as they are."""
        has_eager = len(self._seconds[False]) == NUM_WARMUP + NUM_TIMED
        if not (self.is_trial and has_eager) or failures.was_lost(error):
            return False
        cause = getattr(error, "inner_exception", error)
        first_line = (str(cause).strip().splitlines() or [""])[0]
        reason = f"{type(cause).__name__}: {first_line}".removesuffix(": ")
        eager_ms = 1e3 * statistics.median(self._seconds[False][NUM_WARMUP:])
        self._end(Compilation(kept="eager", eager_ms=eager_ms, problem=reason))
        log.warning(
            "The student's layers could not be compiled, so they run as they are; the losses stay "
            "the same. (%s)",
            reason,
        )
        return True
