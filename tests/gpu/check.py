"""Is the product right on this machine's accelerator? A table in less than four minutes.

Nothing is downloaded: the models have the starter's shapes and random weights. Each check prints as
it ends. One that needs what this machine lacks says so and is not counted as passed.

    make gpu              # the accelerator that torch finds
    make gpu DEVICE=cpu   # the same checks between the CPU and itself, to test this script
"""

import argparse
import dataclasses
import importlib.util
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from explorer import jobs
from explorer.analysis.planning import run_memory
from explorer.devices import accelerator, memory, nvml
from explorer.distill import student_layers, train
from explorer.distill.checkpoint import TrainingProgress
from explorer.distill.teacher_cache import TeacherCache, local_teacher
from explorer.distill.teacher_signal import CachedTeacher, LiveTeacher, TrainingData
from explorer.errors import ExplorerError
from explorer.evaluate.backends.prefix_lm import PrefixLM
from explorer.latency import timing
from explorer.latency.runtimes.pytorch import CompiledRuntime, EagerRuntime
from explorer.models.loading import Loaded, load
from explorer.models.starter import STARTER_SIZES
from explorer.specs import DistillSpec, LatencySpec, RunSpec
from explorer.specs.model_size import ModelSize
from explorer.store import disk
from explorer.students import depth
from tests import byte_tokenizer

LIMIT_S = 240
"""All checks together; what has not begun by then is not run."""
CHECK_LIMIT_S = 30
"""One check on an accelerator."""
CPU_CHECK_LIMIT_S = 120
"""One check where the CPU stands in for it."""
CPU = torch.device("cpu")
NUM_LAYERS = 4
SCALES = {"o_proj": 15, "down_proj": 15, "embed_tokens": 4}
"""By how much random weights are larger than transformers makes them."""


class NotRun(Exception):
    """Why a check cannot be run here."""


class TooLong(BaseException):
    """A check ran into its limit; no handler in the product may swallow that."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a check measured, what it was held against, and their ratio if they are numbers."""

    measured: str
    expected: str
    ratio: float | None = None


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where the checks run."""

    device: torch.device
    folder: Path

    def needs_accelerator(self) -> None:
        """Leave a check that means nothing on a CPU."""
        if not accelerator.is_accelerator(self.device):
            raise NotRun("needs an accelerator")

    def model(self, num_layers: int = NUM_LAYERS) -> str:
        """A model of the starter's shapes with few layers, made on first use."""
        folder = self.folder / f"layers-{num_layers}"
        if not (folder / "config.json").exists():
            sizes = {
                k: v for k, v in STARTER_SIZES.items() if k not in ("num_layers", "num_parameters")
            }
            config = LlamaConfig(
                **sizes,
                num_hidden_layers=num_layers,
                max_position_embeddings=2048,
                tie_word_embeddings=True,
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=2,
            )
            torch.manual_seed(0)
            model = LlamaForCausalLM(config)
            # A plain random model is nearly uniform, and its losses are nearly 0.
            for parameter_name, parameter in model.named_parameters():
                parameter.data.mul_(SCALES.get(parameter_name.split(".")[-2], 1))
            model.save_pretrained(folder)
            byte_tokenizer.save(folder, config.vocab_size)
        return str(folder)

    def load(
        self, device: torch.device, dtype: str = "float32", num_layers: int = NUM_LAYERS
    ) -> Loaded:
        """The model on a device."""
        return load(self.model(num_layers), device=device, dtype=dtype)


CHECKS: dict[str, Callable[[Bench], Result]] = {}


def check(function: Callable[[Bench], Result]) -> Callable[[Bench], Result]:
    """Add a function to the checks, under its name."""
    CHECKS[function.__name__.replace("_", " ")] = function
    return function


def train_spec(**changes: Any) -> DistillSpec:
    """Four steps of two blocks."""
    plain = {
        "max_tokens": 4 * 2 * 63,
        "block_tokens": 64,
        "blocks_per_step": 2,
        "heldout_blocks": 2,
        "top_k": 16,
        "precision": "float32",
    }
    return DistillSpec(**{**plain, **changes})


def losses(bench: Bench, device: torch.device, spec: DistillSpec) -> list[float]:
    """Losses of a short training on a device; the teacher's targets are made there, too."""
    return losses_and_progress(bench, device, spec)[0]


def losses_and_progress(
    bench: Bench, device: torch.device, spec: DistillSpec
) -> tuple[list[float], TrainingProgress]:
    """As `losses`, with what the training knows at its end."""
    teacher = bench.load(device)
    blocks = torch.randint(
        3, 259, (16, spec.block_tokens), generator=torch.Generator().manual_seed(0)
    )
    identity = {
        "teacher": "t",
        "top_k": 16,
        "temperature": 1.0,
        "vocab_size": STARTER_SIZES["vocab_size"],
    }
    with tempfile.TemporaryDirectory(dir=bench.folder) as scratch:
        targets = TeacherCache(Path(scratch) / "targets", blocks, identity)
        targets.fill(lambda: local_teacher(teacher), list(range(16)), lambda *told: None)
        data = TrainingData(
            CachedTeacher(targets, spec), list(range(2, 16)), CachedTeacher(targets), [0, 1]
        )
        found: list[float] = []
        progress = train.train(
            depth.keep_layers(teacher.model, [0, NUM_LAYERS - 1]),
            data,
            spec,
            Path(scratch) / "checkpoint",
            lambda state, total, loss, rate: found.append(loss),
        )
    return found, progress


def compare_losses(found: list[float], wanted: list[float], tolerance: float) -> Result:
    """Every loss within a relative tolerance; the ratio is that of the last ones."""
    largest = max(abs(a / b - 1) for a, b in zip(found, wanted, strict=True))
    assert largest <= tolerance, f"losses {found} differ from {wanted} by {largest:.2%}"
    expected = f"{wanted[-1]:.5f} ± {tolerance:.2%}"
    return Result(f"{found[-1]:.5f}", expected, found[-1] / wanted[-1])


@check
def losses_in_float32(bench: Bench) -> Result:
    """Training has the CPU's losses."""
    spec = train_spec()
    return compare_losses(losses(bench, bench.device, spec), losses(bench, CPU, spec), 1e-3)


@check
def losses_in_bfloat16(bench: Bench) -> Result:
    """Training in the format that the device takes by default stays near float32."""
    bench.needs_accelerator()
    if not accelerator.multiplies_in_bfloat16(bench.device):
        raise NotRun("this device does not compute in bfloat16")
    found = losses(bench, bench.device, train_spec(precision="auto"))
    return compare_losses(found, losses(bench, bench.device, train_spec()), 2e-2)


@check
def targets_read_ahead(bench: Bench) -> Result:
    """Batches that a thread has read and pinned have the losses of batches read when needed."""
    spec = train_spec(micro_blocks=1, vocab_sample=1024)
    found = losses(bench, bench.device, spec.with_(prefetch=True))
    result = compare_losses(found, losses(bench, bench.device, spec), 1e-4)
    pinned = "pinned" if accelerator.pins_memory(bench.device) else "not pinned"
    return dataclasses.replace(result, measured=f"{result.measured} {pinned}")


@check
def compiled_training(bench: Bench) -> Result:
    """Compiled layers have the losses of eager ones; the ratio is how much faster they are."""
    num_steps = 2 * (student_layers.NUM_WARMUP + student_layers.NUM_TIMED) + 2
    spec = train_spec(max_tokens=num_steps * 2 * 63)
    found, progress = losses_and_progress(bench, bench.device, spec.with_(compile=True))
    compare_losses(found, losses(bench, bench.device, spec), 1e-3)
    outcome = progress.compilation
    assert outcome is not None, "the trial of compiled layers did not end"
    assert outcome.compiled_ms is not None, outcome.problem
    return Result(
        f"{outcome.compiled_ms:.1f} ms a pass, kept {outcome.kept}",
        f"{outcome.eager_ms:.1f} eager",
        outcome.eager_ms / outcome.compiled_ms,
    )


@check
def optimizer_step(bench: Bench) -> Result:
    """The step that the device takes by default is AdamW's."""
    stepped = []
    for fused in (accelerator.has_fused_adamw(bench.device), False):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 1000, device=bench.device))
        optimizer = torch.optim.AdamW([weight], lr=1e-2, betas=(0.9, 0.95), fused=fused)
        for step in range(3):
            weight.grad = torch.cos(weight.detach() * (step + 1))
            optimizer.step()
        stepped.append(weight.detach().cpu())
    difference = float((stepped[0] - stepped[1]).abs().max())
    assert difference < 1e-5, f"weights differ by {difference:.1e}"
    fused = "fused" if accelerator.has_fused_adamw(bench.device) else "not fused"
    return Result(f"{fused}, off by {difference:.0e}", "1e-05 at most")


@check
def peak_memory_of_training(bench: Bench) -> Result:
    """The plan's bytes are those that the allocator counts, within 5 %."""
    bench.needs_accelerator()
    if not memory.counts_peak(bench.device):
        raise NotRun("this device's allocator counts no peak")
    whole, half = STARTER_SIZES["num_layers"], STARTER_SIZES["num_layers"] // 2
    distill = train_spec(
        max_tokens=3 * 8 * 255, block_tokens=256, blocks_per_step=8, method="live", precision="auto"
    )
    spec = RunSpec(student={"num_layers": half}, distill=distill)
    teacher = bench.load(bench.device, "auto", whole)
    blocks = torch.randint(3, 259, (40, 256), generator=torch.Generator().manual_seed(0))
    signal = LiveTeacher(teacher.model, blocks, distill)
    student = depth.keep_layers(teacher.model, list(range(0, whole, 2)))
    memory.release_cached(bench.device)
    memory.reset_peak(bench.device)
    train.train(
        student,
        TrainingData(signal, list(range(2, 40)), signal, [0, 1]),
        distill,
        bench.folder / "peak",
    )
    measured = memory.peak_bytes(bench.device)
    size = ModelSize(
        **{
            name: STARTER_SIZES[name]
            for name in (field.name for field in dataclasses.fields(ModelSize))
        }
    )
    machine = run_memory.Machine(bench.device.type, 10**15, 10**15, 2)
    parts = run_memory.memory_parts(spec, size, size.with_layers(half), machine)
    planned = sum(parts.values()) - parts["libraries"]
    ratio = measured / planned
    assert abs(ratio - 1) <= 0.05, (
        f"{measured / 1e9:.2f} GB measured, {planned / 1e9:.2f} GB planned: {parts}"
    )
    return Result(f"{measured / 1e9:.2f} GB", f"{planned / 1e9:.2f} GB ± 5%", ratio)


@check
def decoding_in_bfloat16(bench: Bench) -> Result:
    """Logits in bfloat16 lie near those in float32."""
    ids = torch.randint(3, 259, (2, 48), generator=torch.Generator().manual_seed(0))
    logits = []
    with torch.inference_mode():
        for dtype in ("bfloat16", "float32"):
            model = bench.load(bench.device, dtype).model
            logits.append(model(ids.to(bench.device)).logits.float().cpu())
    spread = float(logits[1].std())
    difference = float((logits[0] - logits[1]).abs().mean()) / spread
    assert difference < 0.05, f"logits differ by {difference:.1%} of their spread"
    return Result(f"off by {difference:.2%}", "5% of the spread at most")


@check
def compiled_decoding(bench: Bench) -> Result:
    """The compiled step gives the eager model's tokens; the ratio is how much faster it is."""
    bench.needs_accelerator()
    loaded = bench.load(bench.device)
    eager, compiled = EagerRuntime(loaded), CompiledRuntime(loaded)
    prompt = timing.random_prompt([eager], LatencySpec(prompt_tokens=16), 1)
    compiled.prepare(1, 64)
    answers, seconds = [], []
    for runtime in (eager, compiled):
        list(runtime.stream(prompt, 32))
        list(runtime.stream(prompt, 32))
        accelerator.synchronize(bench.device)
        began = time.perf_counter()
        answers.append(list(runtime.stream(prompt, 32)))
        seconds.append(time.perf_counter() - began)
    assert answers[0] == answers[1], "the compiled step gives other tokens"
    return Result(
        f"{1e3 * seconds[1] / 32:.2f} ms/token",
        f"{1e3 * seconds[0] / 32:.2f} eager",
        seconds[0] / seconds[1],
    )


@check
def evaluation(bench: Bench) -> Result:
    """At least 99.5 % of the answers are the CPU's."""
    questions = [
        (f"The number {i} and the number {i * 7 % 101} are", f" {word}")
        for i in range(200)
        for word in ("even", "odd")
    ]
    best = []
    for device in (bench.device, CPU):
        loaded = bench.load(device, num_layers=2)
        lm = PrefixLM(loaded.model, tokenizer=loaded.tokenizer, batch_size=16)
        scores = lm.loglikelihood(
            [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(questions)], True
        )
        best.append([scores[i][0] > scores[i + 1][0] for i in range(0, len(scores), 2)])
    same = sum(a == b for a, b in zip(*best, strict=True)) / len(best[0])
    assert same >= 0.995, f"only {same:.1%} of the answers are the CPU's"
    return Result(f"{same:.1%} equal", "99.5% at least", same)


@check
def energy_counter(bench: Bench) -> Result:
    """The driver counts the joules of a second of work."""
    bench.needs_accelerator()
    before = nvml.energy_joules(bench.device)
    if before is None:
        raise NotRun(nvml.energy_problem(bench.device))
    factor = torch.ones(2048, 2048, device=bench.device)
    began = time.perf_counter()
    while time.perf_counter() - began < 1:
        accelerator.synchronize(bench.device)
        factor = (factor @ factor).clamp(-1, 1)
    watts = (nvml.energy_joules(bench.device) - before) / (time.perf_counter() - began)
    limit = nvml.power_limit_watts(bench.device)
    assert watts > 5, f"{watts:.1f} W under load"
    return Result(
        f"{watts:.0f} W",
        f"{limit:.0f} W limit" if limit else "above 5 W",
        watts / limit if limit else None,
    )


@check
def a_sweep_through_the_queue(bench: Bench) -> Result:
    """A teacher and a student run on Ray, each on its device, and leave whole records."""
    if importlib.util.find_spec("ray") is None:
        raise NotRun("Ray is not installed")
    root = bench.folder / "results"
    root.mkdir()
    corpus = bench.folder / "corpus.txt"
    corpus.write_text("\n\n".join(f"Document {i} says that {i} is a number." for i in range(80)))
    spec = RunSpec.parse(
        {
            "name": "gpu-check",
            "teacher": bench.model(2),
            "student": {"num_layers": 1, "choice": "uniform"},
            "distill": {
                "corpus": str(corpus),
                "max_tokens": 90,
                "block_tokens": 16,
                "heldout_blocks": 2,
                "top_k": 8,
            },
            "capability": {"tasks": ["starter_facts"], "limit": 8},
            "latency": None,
            "threads": 1,
            "device": bench.device.type,
        }
    )
    specs = [spec.teacher_run(), spec]
    try:
        run_ids = jobs.submit(specs, root)
        states = jobs.wait_until_done(root, run_ids, CPU_CHECK_LIMIT_S)
    finally:
        jobs.stop_engine()
    records = [disk.load(root, run_id) for run_id in run_ids]
    problems = [record.error.message for record in records if record.error]
    assert set(states.values()) == {"finished"}, problems or states
    devices = {record.environment.device for record in records}
    assert devices == {bench.device.type}, devices
    return Result(f"{len(records)} runs finished", f"{len(specs)} runs", len(records) / len(specs))


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """End the block when its time is up."""

    def stop(number: int, frame: Any) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def outcome(function: Callable[[Bench], Result], bench: Bench, limit_s: float) -> list[str]:
    """A row of the table: what became of a check, measured, expected, ratio."""
    try:
        with limit(limit_s):
            result = function(bench)
    except NotRun as reason:
        return ["not run", str(reason), "", ""]
    except TooLong:
        return ["FAILED", f"took more than {limit_s:.0f} s", "", ""]
    except (AssertionError, ExplorerError, RuntimeError, NotImplementedError) as error:
        return ["FAILED", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", "", ""]
    finally:
        memory.release_cached(bench.device)
    ratio = "" if result.ratio is None else f"{result.ratio:.3f}"
    return ["passed", result.measured, result.expected, ratio]


def table(rows: list[list[str]]) -> str:
    """Rows with columns as wide as their widest cell."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def device_of(name: str, instead: str) -> torch.device:
    """The device that a script was asked to use, ready for work.

    Args:
        name: As a spec's device; auto needs an accelerator.
        instead: What to do where there is none.

    Raises:
        SystemExit: The device does not exist (code 1), or auto finds no accelerator (0).
    """
    try:
        device = accelerator.pick_device(name)
    except ExplorerError as error:
        print(error)
        raise SystemExit(1) from error
    if name == "auto" and not accelerator.is_accelerator(device):
        print(f"Skipped: torch finds no accelerator here. {instead}")
        raise SystemExit(0)
    accelerator.use(device)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    return device


def main() -> int:
    """Run the checks and print the table; 1 if any of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--device", default="auto", help="as a spec's device; auto needs an accelerator"
    )
    parser.add_argument("--limit-s", type=float, default=LIMIT_S)
    parser.add_argument("--only", nargs="*", help="names of checks")
    options = parser.parse_args()
    if unknown := set(options.only or ()) - CHECKS.keys():
        parser.error(f"no check is called {', '.join(unknown)}; there are: {', '.join(CHECKS)}")
    device = device_of(options.device, "make gpu DEVICE=cpu tests this script.")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    name = accelerator.name(device) or device.type
    print(f"{name}, driver {accelerator.driver(device)}, torch {torch.__version__}", flush=True)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="explorer-gpu-"))
    os.environ["EXPLORER_CACHE"] = str(folder / "cache")
    os.environ["EXPLORER_INDEX"] = str(folder / "index")
    bench = Bench(device, folder)
    check_limit_s = CHECK_LIMIT_S if accelerator.is_accelerator(device) else CPU_CHECK_LIMIT_S
    rows = [["check", "seconds", "outcome", "measured", "expected", "ratio"]]
    try:
        for name, function in CHECKS.items():
            if options.only and name not in options.only:
                continue
            left_s = options.limit_s - (time.monotonic() - began)
            started = time.monotonic()
            if left_s < 1:
                row = ["not run", "no time left", "", ""]
            else:
                row = outcome(function, bench, min(check_limit_s, left_s))
            rows.append([name, f"{time.monotonic() - started:.1f}", *row])
            print(f"{row[0]}: {name} ({rows[-1][1]} s) {row[1]}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{table(rows)}\n\n{time.monotonic() - began:.0f} s in all.")
    return int(any(row[2] == "FAILED" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
