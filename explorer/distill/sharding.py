"""A student in shards: each process of a crew holds a part of every layer (FSDP2).

Parameters, gradients and the optimiser's state of the layers lie in shards, so that a student
may be larger than one device. A layer is whole only while it computes. The embedding, the last
norm and the head stay whole at every process: the loop goes through the head in chunks, which
would gather it anew for each.

Source: Zhao et al. 2023 (PyTorch FSDP), arXiv:2304.11277; `torch.distributed.fsdp.fully_shard`.
"""

import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from explorer.distill.distributed import Crew
from explorer.models.layers import layer_list

GATHERED = StateDictOptions(full_state_dict=True, cpu_offload=True)
"""Whole tensors, in the first process's memory beside the device."""


def spread(student: PreTrainedModel | None, config: PretrainedConfig, crew: Crew) -> nn.Module:
    """A float32 copy of the first process's student, in shards; every process calls this.

    Args:
        student: The student, which moves to the CPU and is otherwise left alone; None elsewhere.
        config: Its configuration.
        crew: The processes.

    Raises:
        BadInput: The model has no list of layers.
    """
    if student is None:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    else:
        _move(student, torch.device("cpu"))
        model = copy.deepcopy(student)
    mesh = init_device_mesh(crew.device.type, (crew.size,))
    _, layers = layer_list(model)
    # Layer by layer, so that no device ever holds all of them whole.
    for layer in layers:
        _arrive(layer, crew, first=student is not None)
        fully_shard(layer, mesh=mesh)
    in_layers = {id(module) for module in layers.modules()}
    for module in model.modules():
        if id(module) not in in_layers and not any(module.children()):
            _arrive(module, crew, first=student is not None)
    model.tie_weights()
    fully_shard(model.base_model, mesh=mesh, ignored_params=set(whole(model)))
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Each share is weighted with its part of the step, so the gradients are summed up.
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)
    found: nn.Module = model
    return found


def _arrive(module: nn.Module, crew: Crew, *, first: bool) -> None:
    """Bring a module to this process's device, with the first process's numbers."""
    if first:
        module.to(crew.device, torch.float32)
    else:
        module.to_empty(device=crew.device)
    for tensor in (*module.parameters(), *module.buffers()):
        dist.broadcast(tensor.data, src=0)


def _move(model: Any, where: torch.device) -> None:
    model.to(where)  # Module.to has no usable type in transformers


def whole(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that every process holds whole."""
    return [p for p in model.parameters() if not isinstance(p, DTensor)]


def kinds(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Groups for an optimiser, whose fused step takes whole ones or shards, never both."""
    groups: list[list[nn.Parameter]] = [[], []]
    for parameter in parameters:
        groups[isinstance(parameter, DTensor)].append(parameter)
    return [{"params": group} for group in groups if group]


def clip(model: nn.Module, max_norm: float) -> float:
    """Scale the gradients down to a norm, as `clip_grad_norm_` does; their norm before."""
    groups = kinds([p for p in model.parameters() if p.grad is not None])
    norms = []
    for group in groups:
        norm = get_total_norm([p.grad for p in group["params"]])
        norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    whole_norm = torch.linalg.vector_norm(torch.stack(norms))
    for group in groups:
        clip_grads_with_norm_(group["params"], max_norm, whole_norm)
    return float(whole_norm)


def hand_back(model: nn.Module, student: PreTrainedModel | None, crew: Crew) -> None:
    """Give the first process's student what the shards have learned; every process calls this."""
    learned = get_model_state_dict(model, options=GATHERED)
    if student is not None:
        student.load_state_dict(learned)
        _move(student, crew.device)
