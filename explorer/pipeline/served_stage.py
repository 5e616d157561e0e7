"""A model timed in a real server, which the run starts and stops (`latency.serve`)."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from explorer.devices import accelerator
from explorer.errors import RunFailed
from explorer.latency.gpu_watch import GpuWatch
from explorer.latency.interference import InterferenceWatch
from explorer.latency.load_test import time_requests
from explorer.latency.runtimes.endpoint_stream import StreamingClient
from explorer.latency.servers import arguments, engines, server
from explorer.latency.servers.engines import Server, Target
from explorer.latency.servers.server import LiveServer
from explorer.latency.timing import warn_if_busy
from explorer.models import own_code
from explorer.models.gguf import gguf_files
from explorer.models.loading import disk_bytes, locate, pick_dtype
from explorer.pipeline import evaluation_stage
from explorer.pipeline.context import RunContext
from explorer.records import Energy, Latency, RuntimeFacts, Timing
from explorer.specs import LatencySpec, RunSpec
from explorer.store import disk

log = logging.getLogger("explorer")


def check(spec: RunSpec) -> tuple[Server, Path]:
    """The server that will time a run's model, and its program.

    Raises:
        BadInput: None is installed, or it may not get the spec's arguments.
    """
    serve = spec.server
    assert serve is not None, "skipped otherwise"
    which, program = engines.choose(serve.engine, reads_gguf=spec.reads_gguf)
    arguments.refuse(which, serve.arguments)
    return which, program


def measure(run: RunContext, model: str) -> None:
    """Serve a model and time it through its endpoint; no model is loaded in this process by now.

    Args:
        run: The run; the facts of its model are known.
        model: What `models.loading` calls it, or the path of a GGUF file.

    Raises:
        ExplorerError: The server cannot be started, or died.
    """
    run.stage = "latency"
    run.use_all_threads()
    spec, facts = run.spec.latency, run.record_parts["model"]
    assert spec is not None, "it names a server"
    which, program = check(run.spec)
    target = _target(run, model, spec)
    decides = evaluation_stage.latency_inputs(spec, run.environment, facts.fingerprint, None)
    run.record_parts["latency"] = run.cached_stage(
        "latency",
        decides | {"server": which.engine},
        Latency,
        lambda: _time(run, which, program, target, spec),
        alone=evaluation_stage.alone_on_device(run),
    )


def _target(run: RunContext, model: str, spec: LatencySpec) -> Target:
    if run.spec.reads_gguf:
        files = Path(model)
    else:
        files = Path(locate(model).fetched(weights=True).path)
        if run.spec.trust_remote_code:
            own_code.refuse(model, files)
    return Target(
        files=files.absolute(),
        dtype=str(pick_dtype(run.spec.dtype, run.device)).removeprefix("torch."),
        device=str(run.device),
        threads=torch.get_num_threads(),
        num_clients=max((1, *spec.concurrency)),
        num_tokens=spec.prompt_tokens + spec.output_tokens,
        trust_remote_code=run.spec.trust_remote_code,
    )


def _time(
    run: RunContext, which: Server, program: Path, target: Target, spec: LatencySpec
) -> Latency:
    serve = spec.serve
    assert serve is not None, "it names a server"
    began = time.monotonic()
    watch, gpu = InterferenceWatch(run.device, only_before=True), GpuWatch(run.device)
    flags = warn_if_busy(watch)
    log.info("Starting the %s: %s", which.runtime, program)

    def on_wait() -> None:
        run.progress(f"starting the {which.runtime}", 0, 0, "", **flags)

    with server.running(
        which,
        program,
        target,
        serve.arguments,
        log_path=disk.run_folder(run.root, run.spec.run_id) / disk.SERVER_LOG,
        wait_s=serve.wait_s,
        on_wait=on_wait,
        environment={
            **accelerator.variables_of_child(run.device),
            "OMP_NUM_THREADS": str(target.threads),
        },
    ) as live:
        log.info("It is healthy after %.1f s: %s", live.load_s, live.version or "unknown version")

        def on_progress(*args: Any, **numbers: Any) -> None:
            live.check_alive()
            gpu.sample()
            run.progress(*args, **numbers)

        timing = _timed(live, spec, on_progress, flags)
    interference, gpu_state = watch.interference(), gpu.state()
    warnings = [interference.warning, gpu_state.warning if gpu_state else None]
    size = gguf_files.read_files(target.files).num_bytes if target.files.is_file() else None
    facts = RuntimeFacts(
        name=which.runtime,
        version=live.version,
        load_s=live.load_s,
        disk_bytes=size or disk_bytes(str(target.files)),
        command=live.command,
    )
    energy = Energy(reason="It is not measured for a model in a server.")
    return Latency(
        own=timing.model_copy(update={"runtime": facts, "energy": energy}),
        seconds=time.monotonic() - began,
        warning=" ".join(filter(None, warnings)) or None,
        interference=interference,
        gpu=gpu_state,
    )


def _timed(
    live: LiveServer, spec: LatencySpec, progress: Callable[..., None], flags: dict[str, bool]
) -> Timing:
    client = StreamingClient(
        live.endpoint,
        timeout_s=spec.timeout_s,
        sends_key=False,
        fixed_length=live.server.fixed_length,
    )
    try:
        timing = time_requests(client, spec, progress, flags=flags)
    except RunFailed as error:
        # If the server died, that is what went wrong, and its own words say why.
        live.check_healthy()
        raise RunFailed(f"{error} {live.words()}") from error
    live.check_healthy()
    return timing
