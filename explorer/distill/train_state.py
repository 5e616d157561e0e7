"""A student in training as a rank holds it: its weights, its gradients and its optimizer.

The student is whole on every rank, which then all take the same step, or its layers are sharded
(`sharding`). A checkpoint is whole either way, so a training can continue with another number of
processes, in shards or out of them.
"""

import logging
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

from explorer.devices import accelerator
from explorer.distill import cpu_tuning, distributed, sharding
from explorer.distill.schedule import learning_rate
from explorer.distill.student_layers import StudentLayers
from explorer.models import loading
from explorer.models.layers import KEPT_LAYERS, KEPT_WIDTHS, intact_layers, layer_list
from explorer.specs import DistillSpec

log = logging.getLogger("explorer")

MAX_HALVINGS = 2
"""How often a training takes smaller passes because memory ran out."""
MAX_NORM = 1.0
"""Of a step's gradient; a longer one is scaled down."""


class TrainState:
    """The student and its optimizer."""

    def __init__(self, student: PreTrainedModel | None, spec: DistillSpec) -> None:
        """Set up training; every rank calls this.

        Args:
            student: On rank 0, which trains it in place, in float32. None elsewhere: the other
                ranks make a copy.
            spec: Everything that decides the training.

        Raises:
            BadInput: The student is sharded and the blocks of a step do not divide evenly.
        """

        def kind() -> tuple[PretrainedConfig, str]:
            assert student is not None, "rank 0 brings the student"
            return student.config, student.device.type

        config, device_type = distributed.from_main(kind)
        self.spec = spec
        self.num_halvings = 0
        self.device = torch.device(device_type) if student is None else student.device
        self.sharded = distributed.num_shards() > 1
        self.saveable = True
        """Whether this rank may write a checkpoint now; not in the middle of an update, and with
        shards not in the middle of what all ranks do together."""
        self._given, self._given_dtype = student, student.dtype if student is not None else None
        if self.sharded:
            sharding.check_even_blocks(spec, distributed.world_size())
            self.student: Any = sharding.shard(student, config, self.device)
        else:
            self.student = student
            if student is None:
                self.student = AutoModelForCausalLM.from_config(
                    config, trust_remote_code=loading.runs_own_code(config)
                ).to(self.device)
            self.student.to(torch.float32)
            distributed.broadcast_tensors(self.student.parameters())
        self.student.get_input_embeddings().requires_grad_(spec.train_embeddings)
        for layer in untrained_layers(self.student, spec):
            layer.requires_grad_(False)
        if spec.gradient_checkpointing:
            self.student.activation_checkpointing_enable(
                cpu_tuning.checkpoint_options(compiles=spec.compile)
            )
        self.student.train()
        self.layers = StudentLayers(self.student, try_compiled=spec.compile)
        self.optimizer = torch.optim.AdamW(
            sharding.parameter_groups([p for p in self.student.parameters() if p.requires_grad]),
            lr=spec.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=spec.weight_decay,
            fused=accelerator.has_fused_adamw(self.device),
        )

    def can_halve(self, num_blocks: int) -> bool:
        """Whether passes may become smaller: not a third time, and not alone among shards."""
        return (
            self._pass_blocks(num_blocks) > 1
            and self.num_halvings < MAX_HALVINGS
            and not (self.sharded)
        )

    def halve(self, num_blocks: int) -> None:
        """Let a pass take half as many blocks from here on; `num_blocks` are this rank's."""
        size = self._pass_blocks(num_blocks)
        self.num_halvings += 1
        self.spec = self.spec.with_(micro_blocks=size // 2)
        self.layers = StudentLayers(self.student, try_compiled=self.spec.compile)
        log.warning(
            "Memory ran out, so passes take %d instead of %d blocks from here on; the losses stay "
            "the same.",
            size // 2,
            size,
        )

    def _pass_blocks(self, num_blocks: int) -> int:
        return min(self.spec.micro_blocks or num_blocks, num_blocks)

    def sum_gradients(self) -> float:
        """Sum the gradients over all ranks, clip them, and return their norm before that."""
        distributed.all_reduce_gradients(sharding.whole_parameters(self.student))
        if self.sharded:
            return sharding.clip_gradients(self.student, MAX_NORM)
        return float(nn.utils.clip_grad_norm_(self.student.parameters(), MAX_NORM))

    def update(self, step: int) -> None:
        """Let the optimizer step, at the rate of this step."""
        self.saveable = False
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.spec, step)
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimizer state, whole on rank 0; with shards every rank calls this.

        They are the CPU's, so that a training can continue where there is no such device.
        """
        outside = StateDictOptions(cpu_offload=accelerator.is_accelerator(self.device))
        options = sharding.GATHERED if self.sharded else outside
        model, optimizer = get_state_dict(self.student, self.optimizer, options=options)
        return {"model": model, "optimizer": optimizer}

    def load(self, path: Path) -> None:
        """Read what `state_dict` gave from a file; every rank does, with shards its own part."""
        stored = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        set_state_dict(
            self.student,
            self.optimizer,
            model_state_dict=stored["model"],
            optim_state_dict=stored["optimizer"],
            options=StateDictOptions(full_state_dict=self.sharded),
        )

    def finish(self) -> None:
        """Leave rank 0's student trained, in evaluation mode and in the dtype it came in."""
        if self.sharded:
            sharding.unshard_into(self._given, self.student, self.device)
        elif self.spec.gradient_checkpointing:
            self.student.activation_checkpointing_disable()
        student: Any = self._given
        if student is not None:
            student.eval()
            student.to(self._given_dtype)


def untrained_layers(student: PreTrainedModel, spec: DistillSpec) -> list[nn.Module]:
    """The layers that `train_layers: auto` leaves as they are: those before the first cut."""
    kept_layers = getattr(student.config, KEPT_LAYERS, None)
    if spec.train_layers == "all" or not kept_layers or hasattr(student.config, KEPT_WIDTHS):
        return []
    _, layers = layer_list(student)
    return list(layers[: intact_layers(kept_layers)])
