"""Reading ahead: a thread prepares a batch while the student computes the one before it.

The thread reads token ids and cached targets, draws the sampled vocabulary and pins the tensors
where the device can copy from pinned memory. Everything that needs a model stays in the main
thread. A batch is a function of (blocks, step) alone, so the losses are those without the thread.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from transformers import PreTrainedModel

from explorer.devices import accelerator
from explorer.distill import distributed
from explorer.distill.schedule import blocks_of_step, num_steps
from explorer.distill.teacher_signal import Batch, Stored, TrainingData
from explorer.distill.token_file import Blocks
from explorer.specs import DistillSpec

Part = tuple[list[int], int]
"""The blocks of one forward and backward pass on this rank, and its step."""


class Prefetch:
    """A teacher's signal that is read one part ahead; `close` ends its thread."""

    def __init__(self, data: TrainingData, spec: DistillSpec, device: torch.device) -> None:
        """The thread starts with the first batch.

        Args:
            data: What is trained on.
            spec: Its steps.
            device: Where the student is.
        """
        self.signal, self._data, self._spec = data.signal, data, spec
        self._pins = accelerator.pins_memory(device)
        # Pinning belongs to a device, and a new thread begins with the first one.
        self._pool = ThreadPoolExecutor(1, "prefetch", accelerator.use, (device,))
        self._parts: Iterator[Part] = iter(())
        self._next: Part | None = None
        self._stored: Future[Stored] | None = None

    @property
    def blocks_NT(self) -> Blocks:
        """Token ids of the corpus."""
        return self.signal.blocks_NT

    def read(self, numbers: list[int], step: int) -> Stored:
        """What is on disk of these blocks, in pinned memory where the device can use it."""
        stored = self.signal.read(numbers, step)
        return stored.pin() if self._pins else stored

    def batch(
        self, numbers: list[int], step: int, student: PreTrainedModel, stored: Stored | None = None
    ) -> Batch:
        """These blocks, read before unless they are the first; begins to read the next ones."""
        if self._stored is not None and self._next == (numbers, step):
            stored = self._stored.result()
        else:
            # The first part of this process, or a smaller one because memory ran out.
            self._parts = self._from(step, len(numbers))
            next(self._parts, None)
            stored = self.read(numbers, step)
        self._next = next(self._parts, None)
        self._stored = self._pool.submit(self.read, *self._next) if self._next else None
        return self.signal.batch(numbers, step, student, stored)

    def _from(self, first_step: int, size: int) -> Iterator[Part]:
        """The parts of this rank from a step on, with this many blocks each."""
        for step in range(first_step, num_steps(self._spec)):
            blocks = blocks_of_step(self._spec, self._data.training, step)
            share = distributed.own_share(blocks)
            for start in range(0, len(share), size):
                yield share[start : start + size], step

    def close(self) -> None:
        """End the thread; a part that it is reading is dropped."""
        self._pool.shutdown(cancel_futures=True)
