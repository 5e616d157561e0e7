"""A sharded student: each rank holds a part of every layer (FSDP2).

The parameters, gradients and optimizer state of the layers are sharded, so that a student may be
larger than one device; a layer is whole only while it computes. The embedding, the last norm and
the head stay whole on every rank: the loop goes through the head in chunks, and would otherwise
gather it for each.

Source: Zhao et al. 2023 (PyTorch FSDP), arXiv:2304.11277; `torch.distributed.fsdp.fully_shard`.
"""

import copy
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from explorer.distill import distributed
from explorer.errors import BadInput
from explorer.models import loading
from explorer.models.layers import body_of, layer_list
from explorer.specs import DistillSpec

GATHERED = StateDictOptions(full_state_dict=True, cpu_offload=True)
"""Whole tensors, on rank 0 and outside the device's memory."""


def check_even_blocks(spec: DistillSpec, num_processes: int) -> None:
    """Refuse a step whose blocks do not divide evenly: sharded ranks run in lockstep.

    Raises:
        BadInput: Names a number of blocks that divides.
    """
    if spec.blocks_per_step % num_processes:
        fits = -(-spec.blocks_per_step // num_processes) * num_processes
        raise BadInput(
            f"With shards each of the {num_processes} processes takes as many blocks, and "
            f"blocks_per_step is {spec.blocks_per_step}. Write distill.blocks_per_step: {fits}, or "
            "launch another number of processes."
        )


def shard(
    student: PreTrainedModel | None, config: PretrainedConfig, device: torch.device
) -> nn.Module:
    """A float32 copy of rank 0's student, sharded; every rank calls this.

    Args:
        student: On rank 0; it moves to the CPU and is otherwise unchanged. None elsewhere.
        config: The student's.
        device: This rank's.

    Raises:
        BadInput: The model has no list of layers.
    """
    if student is None:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(
                config, dtype=torch.float32, trust_remote_code=loading.runs_own_code(config)
            )
    else:
        model = copy.deepcopy(_moved(student, torch.device("cpu")))
    mesh = init_device_mesh(device.type, (distributed.world_size(),))
    _, layers = layer_list(model)
    # Layer by layer, so that no device ever holds all of them whole.
    for layer in layers:
        _materialise(layer, device)
        fully_shard(layer, mesh=mesh)
    in_layers = {id(module) for module in layers.modules()}
    for module in model.modules():
        if id(module) not in in_layers and not any(module.children()):
            _materialise(module, device)
    model.tie_weights()
    fully_shard(body_of(model), mesh=mesh, ignored_params=set(whole_parameters(model)))
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Each rank's loss is already weighted with its share of the step: sum, do not average.
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)
    sharded: nn.Module = model
    return sharded


def _materialise(module: nn.Module, device: torch.device) -> None:
    """Bring a module to this rank's device, with rank 0's numbers."""
    if distributed.is_main():
        module.to(device, torch.float32)
    else:
        module.to_empty(device=device)
    distributed.broadcast_tensors([*module.parameters(), *module.buffers()])


def _moved(model: Any, device: torch.device) -> Any:
    return model.to(device)  # Module.to has no usable type in transformers


def whole_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that every rank holds whole; all of them where nothing is sharded."""
    return [p for p in model.parameters() if not isinstance(p, DTensor)]


def parameter_groups(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Groups for an optimizer, whose fused step takes whole parameters or shards, never both."""
    groups: list[list[nn.Parameter]] = [[], []]
    for parameter in parameters:
        groups[isinstance(parameter, DTensor)].append(parameter)
    return [{"params": group} for group in groups if group]


def clip_gradients(model: nn.Module, max_norm: float) -> float:
    """Scale the gradients down to `max_norm`, as `clip_grad_norm_` does; their norm before."""
    groups = parameter_groups([p for p in model.parameters() if p.grad is not None])
    norms = []
    for group in groups:
        norm = get_total_norm([p.grad for p in group["params"]])
        norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    total_norm = torch.linalg.vector_norm(torch.stack(norms))
    for group in groups:
        clip_grads_with_norm_(group["params"], max_norm, total_norm)
    return float(total_norm)


def unshard_into(student: PreTrainedModel | None, model: nn.Module, device: torch.device) -> None:
    """Copy the trained weights into rank 0's student; every rank calls this."""
    weights = get_model_state_dict(model, options=GATHERED)
    if student is not None:
        student.load_state_dict(weights)
        _moved(student, device)
