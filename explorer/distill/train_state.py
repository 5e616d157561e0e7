"""A student in training, as each process of a crew holds it.

One process has it whole, with the optimiser. Several share out the blocks of a step, in one of
two ways:

- the student is whole at each, and the first process alone has the optimiser: the others get
  the parameters before a step and send their gradients after it (docs/decisions/0009);
- the student lies in shards, under FSDP, and each process steps its own: see `shards`.
"""

import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from explorer.distill import distributed as together
from explorer.distill import products, sharding, train_step
from explorer.distill.schedule import blocks_of_step, learning_rate
from explorer.distill.teacher_signal import LiveTeacher, TrainingData
from explorer.distill.train_step import HeldOut
from explorer.errors import BadInput
from explorer.models.layers import KEPT_LAYERS, KEPT_WIDTHS, intact_layers, layer_list
from explorer.specs import DistillSpec

WEIGHTS = "training.pt"
"""In a checkpoint: the student's parameters and the optimiser's state, whole."""
MAX_NORM = 1.0
"""Of a step's gradient; a longer one is scaled down."""


class TrainState:
    """What every process of a training holds; `all_do` lets all of them do the same."""

    def __init__(
        self,
        student: PreTrainedModel | None,
        config: PretrainedConfig,
        data: TrainingData,
        spec: DistillSpec,
    ) -> None:
        """Set the student up; every process does this.

        Args:
            student: At the first process, which trains it in place; None at the others.
            config: The student's configuration.
            data: What it learns from and is measured on.
            spec: Everything that decides the training.

        Raises:
            BadInput: The blocks of a step cannot be shared evenly where the shards need it.
        """
        self.data, self.spec = data, spec
        self.crew = together.crew()
        self.sharded = self.crew.sharded
        self.busy = False
        """Whether all processes are doing something, which nobody may then leave alone."""
        self._handed_in = student
        self._dtype = student.dtype if student is not None else torch.float32
        if self.sharded:
            check_even(spec, self.crew.size)
            self.student: Any = sharding.spread(student, config, self.crew)
        elif student is None:
            self.student = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            self.student.to(self.crew.device)
        else:
            self.student = student
            self.student.to(torch.float32)
        self.student.get_input_embeddings().requires_grad_(spec.train_embeddings)
        for layer in untrained_layers(self.student, spec):
            layer.requires_grad_(False)
        if spec.gradient_checkpointing:
            self.student.activation_checkpointing_enable(
                {"use_reentrant": False, "context_fn": products.in_both_passes}
            )
        self.student.train()
        self.optimizer: torch.optim.Optimizer | None = None
        if self.sharded or self.crew.rank == 0:
            self.optimizer = torch.optim.AdamW(
                sharding.kinds([p for p in self.student.parameters() if p.requires_grad]),
                lr=spec.learning_rate,
                betas=(0.9, 0.95),
                weight_decay=spec.weight_decay,
                fused=True,
            )

    def all_do(self, what: str, *args: Any) -> Any:
        """Do one of the methods below; so do the others, where it takes all of them.

        Raises:
            RunCancelled: Another process is gone.
        """
        if not self.sharded:
            if what == "step":
                self.crew.order(args)
            return getattr(self, what)(*args)
        self.busy = True
        with together.all_there():
            self.crew.order((what, *args))
            found = getattr(self, what)(*args)
        self.busy = False
        return found

    def step(self, number: int) -> tuple[dict[str, float], int, float]:
        """One step, taken only where its loss and its gradient are finite.

        Returns:
            The mean loss and its terms as `passes.gradients`, the number of scored tokens and the
            gradient's norm; at a process that only helps, those of its share.
        """
        numbers = blocks_of_step(self.spec, self.data.training, number)
        # Of dropout, where a family has it: a training that goes on later draws the same.
        draw = random.Random(f"{self.spec.seed} {number} {self.crew.rank}")
        torch.manual_seed(draw.getrandbits(62))
        if not self.sharded:
            self.crew.same_parameters(self.student)
        terms, num_scored = train_step.gradients(
            self.student, self.data, number, self.crew.share(numbers), self.spec, len(numbers)
        )
        norm = math.nan
        if self.sharded:
            terms, num_scored = self.crew.gather(
                sharding.whole(self.student), terms, num_scored, everywhere=True
            )
            norm = sharding.clip(self.student, MAX_NORM)
        else:
            terms, num_scored = self.crew.gather(self.student.parameters(), terms, num_scored)
            if self.optimizer:
                parameters = self.student.parameters()
                norm = float(torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM))
        if self.optimizer and math.isfinite(terms["loss"]) and math.isfinite(norm):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.spec, number)
            self.optimizer.step()
        self.student.zero_grad()
        return terms, num_scored, norm

    def evaluate_heldout(self) -> HeldOut:
        """The student on the held-out blocks."""
        return train_step.evaluate_heldout(self.student, self.data, self.spec.temperature)

    def save(self, folder: Path) -> None:
        """Write parameters and the optimiser's state, whole, whatever the number of processes.

        They are on the disk when this returns, so a later rename never shows half a file.
        """
        assert self.optimizer, "a process without an optimiser saves nothing"
        options = sharding.GATHERED if self.sharded else StateDictOptions()
        model, optimizer = get_state_dict(self.student, self.optimizer, options=options)
        if self.crew.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / WEIGHTS).open("wb") as file:
                torch.save({"model": model, "optimizer": optimizer}, file)
                file.flush()
                os.fsync(file.fileno())

    def load(self, folder: Path) -> None:
        """The inverse of `save`; every process reads the file, in shards its own part of it."""
        assert self.optimizer, "a process without an optimiser loads nothing"
        found = torch.load(folder / WEIGHTS, map_location="cpu", mmap=True, weights_only=True)
        set_state_dict(
            self.student,
            self.optimizer,
            model_state_dict=found["model"],
            optim_state_dict=found["optimizer"],
            options=StateDictOptions(full_state_dict=self.sharded),
        )

    def finish(self) -> None:
        """Leave the student that the first process handed in as it came, but taught."""
        if self.sharded:
            sharding.hand_back(self.student, self._handed_in, self.crew)
        student: Any = self._handed_in
        if student is None:
            return
        if self.spec.gradient_checkpointing and not self.sharded:
            student.activation_checkpointing_disable()
        student.eval()
        student.to(self._dtype)


def helper(order: tuple[PretrainedConfig, TrainingData, DistillSpec]) -> Callable[[Any], None]:
    """What a process that only helps does in the training that it was told of."""
    config, data, spec = order
    if isinstance(data.signal, LiveTeacher):
        teacher: Any = data.signal.teacher
        teacher.to(together.crew().device)
    pupil = TrainState(None, config, data, spec)

    def do(what: tuple[Any, ...]) -> None:
        if not pupil.sharded:
            pupil.step(*what)
            return
        with together.all_there():
            getattr(pupil, what[0])(*what[1:])

    return do


def untrained_layers(student: PreTrainedModel, spec: DistillSpec) -> list[nn.Module]:
    """The layers that the training leaves as they are."""
    kept = getattr(student.config, KEPT_LAYERS, None)
    if spec.train_layers == "all" or not kept or hasattr(student.config, KEPT_WIDTHS):
        return []
    _, layers = layer_list(student)
    return list(layers[: intact_layers(kept)])


def check_even(spec: DistillSpec, num_processes: int) -> None:
    """Refuse a step that shards cannot share: each gathers a layer as often as all others.

    Raises:
        BadInput: How many blocks would do.
    """
    if spec.blocks_per_step % num_processes:
        fits = -(-spec.blocks_per_step // num_processes) * num_processes
        raise BadInput(
            f"{num_processes} processes with shards need as many blocks each, and blocks_per_step "
            f"is {spec.blocks_per_step}. Write distill.blocks_per_step: {fits}, or launch another "
            "number of processes."
        )
