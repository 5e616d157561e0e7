"""The processes of one launch: rank, world size and the collectives of a run.

Plain SPMD: every rank does the same run. All ranks train and evaluate their share; rank 0 alone
writes to the store, and the others wait for what it decides. A rank that fails exits, the
launcher ends the rest, and the same command resumes the run.

    torchrun --nproc-per-node 2 -m explorer run spec.yaml
    accelerate launch --config_file docs/accelerate/gpus.yaml -m explorer run spec.yaml

`ACCELERATE_USE_FSDP=true`, which `docs/accelerate/shards.yaml` sets, shards the student's layers.
"""

import contextlib
import datetime
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import psutil
import torch
import torch.distributed as dist
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn

from explorer.devices import accelerator
from explorer.errors import BadInput, RunCancelled

TIMEOUT = datetime.timedelta(days=7)
"""Of a collective: rank 0 may be timing a model for hours while the others wait."""
BUCKET_BYTES = 25 * 2**20
"""Gradients that one all-reduce sums, as in DDP."""

Result = TypeVar("Result")
Item = TypeVar("Item")


def num_launched() -> int:
    """Processes that a launcher started for this command."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def num_shards() -> int:
    """Ranks over which a student's layers are sharded; 1 unless launched under FSDP."""
    return num_launched() if parse_flag_from_env("ACCELERATE_USE_FSDP") else 1


def world_size() -> int:
    """Processes that share the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def own_share(items: list[Item]) -> list[Item]:
    """This rank's part of a step's items, which are dealt out one by one."""
    return items[rank() :: world_size()]


def is_main() -> bool:
    """Whether this is rank 0, the only one that writes."""
    return rank() == 0


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Join the other processes of the launch, if there are any, until the block ends.

    Raises:
        BadInput: The launcher was asked for several processes and started one.
    """
    if "WORLD_SIZE" not in os.environ and {"ACCELERATE_USE_CPU", "MASTER_PORT"} <= set(os.environ):
        raise BadInput(
            "`accelerate launch --cpu` starts a single process unless it runs under MPI, so the "
            "work would not be shared. Use: torchrun --nproc-per-node 2 -m explorer run SPEC"
        )
    if num_launched() == 1:
        yield
        return
    backend = "gloo"
    if accelerator.found() and not parse_flag_from_env("ACCELERATE_USE_CPU"):
        backend = accelerator.collective_backend()
        accelerator.use_share_of_launch(int(os.environ.get("LOCAL_RANK", "0")))
    if is_on_this_machine():
        _use_loopback()
    store = _loopback_store()
    if store is None:
        dist.init_process_group(backend, timeout=TIMEOUT)
    else:
        dist.init_process_group(
            backend,
            timeout=TIMEOUT,
            store=store,
            rank=int(os.environ["RANK"]),
            world_size=num_launched(),
        )
    try:
        yield
    finally:
        dist.destroy_process_group()


def is_on_this_machine() -> bool:
    """Whether every process of the launch runs here, so that no other machine needs to reach us."""
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE"):
        return True
    host = os.environ.get("MASTER_ADDR", "")
    return host in ("localhost", "::1") or host.startswith("127.")


def _use_loopback() -> None:
    """Let gloo and NCCL listen on loopback, unless somebody has chosen a network.

    By default they listen on the interface of the host's name, without any authentication.
    """
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address.startswith("127.") for address in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
            return


def _loopback_store() -> Any:
    """Where the processes of this machine meet; None where the launcher has made that place.

    Torch's own listens on every interface, whatever MASTER_ADDR says.
    """
    if not is_on_this_machine() or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return None
    port, is_first = int(os.environ["MASTER_PORT"]), os.environ["RANK"] == "0"
    listener = socket.create_server(("127.0.0.1", port)) if is_first else None
    return dist.TCPStore(  # type: ignore[attr-defined] # not in torch's hints
        "127.0.0.1",
        port,
        num_launched(),
        is_first,
        timeout=TIMEOUT,
        master_listen_fd=listener.detach() if listener else None,
    )


def check_joined() -> None:
    """Refuse a command that several processes cannot share.

    Raises:
        BadInput: Several processes were launched and have not joined.
    """
    if num_launched() > 1 and not dist.is_initialized():
        raise BadInput(
            f"{num_launched()} processes were launched, but only `explorer run`, `explorer sweep` "
            "and `explorer demo` can share their work. Start this command without a launcher."
        )


def check_num_devices(num_devices: int) -> None:
    """Refuse a run that asks for several devices where another number of processes shares it.

    Raises:
        BadInput: Says what to start, and what to write.
    """
    if num_devices in (1, world_size()):
        return
    raise BadInput(
        f"The spec has num_devices {num_devices}, and the processes that share the run are "
        f"{world_size()}. `explorer run` and the queue start {num_devices}; with a launcher of "
        f"your own, start {num_devices} or write num_devices: {world_size()}. A training that has "
        "begun continues with any number."
    )


@contextlib.contextmanager
def peers_alive() -> Iterator[None]:
    """Turn the errors of a broken collective into a sentence.

    Raises:
        RunCancelled: Another process exited.
    """
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


@peers_alive()
def from_main(compute: Callable[[], Result]) -> Result:
    """What rank 0 computes, at every rank; the others wait for it and compute nothing."""
    if world_size() == 1:
        return compute()
    box: list[Any] = [compute() if is_main() else None]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    result: Result = box[0]
    return result


@peers_alive()
def all_gather(value: Result) -> list[Result]:
    """The value of every rank, in their order."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def check_same(value: object, complaint: str) -> None:
    """Refuse to go on where ranks differ in what has to be the same.

    Raises:
        BadInput: They differ; the complaint follows the ranks that differ from rank 0.
    """
    values = all_gather(value)
    if others := [str(i) for i, other in enumerate(values) if other != values[0]]:
        raise BadInput(f"Process {', '.join(others)} {complaint}")


@peers_alive()
def all_reduce(numbers: list[float]) -> list[float]:
    """Sums over all ranks, in float64."""
    if world_size() == 1:
        return numbers
    sums = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(sums)
    summed: list[float] = sums.tolist()
    return summed


@peers_alive()
def all_reduce_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sum gradients over all ranks, in place.

    They are flattened into buckets of `BUCKET_BYTES`, whose all-reduces run at the same time.
    """
    if world_size() == 1:
        return
    buckets: list[list[Tensor]] = []
    room = 0
    for parameter in parameters:
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:  # this rank had no block of the step
            parameter.grad = torch.zeros_like(parameter)
        if parameter.grad.nbytes > room:
            buckets.append([])
            room = BUCKET_BYTES
        buckets[-1].append(parameter.grad)
        room -= parameter.grad.nbytes
    flat = [torch.cat([gradient.flatten() for gradient in bucket]) for bucket in buckets]
    for work in [dist.all_reduce(bucket, async_op=True) for bucket in flat]:
        assert work is not None, "asynchronous"
        work.wait()
    for bucket, summed in zip(buckets, flat, strict=True):
        sizes = [gradient.numel() for gradient in bucket]
        for gradient, part in zip(bucket, summed.split(sizes), strict=True):
            gradient.copy_(part.view_as(gradient))


@peers_alive()
def broadcast_tensors(tensors: Iterable[Tensor]) -> None:
    """Give every rank the tensors of rank 0, in place."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor.data, src=0)
