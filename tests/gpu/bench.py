"""How fast the product is on this accelerator, beside the plain way to do the same.

    make gpu-bench

Ratios above 1 favour the product. Each pair does the same work in turns; the median counts.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from explorer.devices import accelerator
from explorer.distill import train
from explorer.distill.losses import forward_kl
from explorer.distill.teacher_signal import LiveTeacher, TrainingData
from explorer.distill.train_state import TrainState
from explorer.evaluate.backends.prefix_lm import PrefixLM
from explorer.latency import timing
from explorer.latency.runtimes.pytorch import EagerRuntime
from explorer.specs import LatencySpec
from explorer.students import depth
from tests.gpu.check import NUM_LAYERS, Bench, device_of, table, train_spec

REPEATS = 5

Pair = tuple[Callable[[], object], Callable[[], object]]


def training(bench: Bench) -> Pair:
    """One step of live distillation, ours and with all logits at once."""
    spec = train_spec(method="live", block_tokens=256, blocks_per_step=4, precision="auto")
    teacher = bench.load(bench.device, "auto")
    blocks = torch.randint(3, 259, (8, 256), generator=torch.Generator().manual_seed(0))
    signal = LiveTeacher(teacher.model, blocks, spec)
    data = TrainingData(signal, list(range(8)), signal, [0])
    student = depth.keep_layers(teacher.model, [0, NUM_LAYERS - 1])
    state = TrainState(student, spec)
    plain_student = depth.keep_layers(teacher.model, [0, NUM_LAYERS - 1]).float().train()
    optimizer = torch.optim.AdamW(plain_student.parameters(), lr=1e-4)
    ids = blocks[:4].to(bench.device)
    narrow = train.in_bfloat16(spec, bench.device)

    def ours() -> None:
        train.step(state, data, 0)

    def plain() -> None:
        with torch.no_grad():
            wanted = teacher.model(ids, use_cache=False).logits[:, :-1].flatten(0, 1)
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=narrow):
            found = plain_student(ids, use_cache=False).logits[:, :-1].flatten(0, 1)
        forward_kl(found, wanted).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return ours, plain


def evaluation(bench: Bench) -> Pair:
    """Two hundred log-likelihoods with a common beginning, ours and lm-eval's own."""
    loaded = bench.load(bench.device, "auto")
    header = "Read the text and answer. " * 8
    pairs = [(f"{header}Question {i}:", f" answer {j}") for i in range(50) for j in range(4)]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    ours = PrefixLM(loaded.model, tokenizer=loaded.tokenizer, batch_size=64)
    stock = HFLM(loaded.model, tokenizer=loaded.tokenizer, batch_size=64)
    return (lambda: ours.loglikelihood(requests, True)), (
        lambda: stock.loglikelihood(requests, True)
    )


def decoding(bench: Bench) -> Pair:
    """64 tokens after 64, ours and transformers' own generate."""
    loaded = bench.load(bench.device, "auto")
    runtime = EagerRuntime(loaded)
    prompt = timing.random_prompt([runtime], LatencySpec(prompt_tokens=64), 1)

    def plain() -> None:
        loaded.model.generate(prompt, max_new_tokens=64, min_new_tokens=64, do_sample=False)

    return (lambda: list(runtime.stream(prompt, 64))), plain


def seconds(device: torch.device, work: Callable[[], object]) -> float:
    """How long the work takes, the device's part included."""
    accelerator.synchronize(device)
    began = time.perf_counter()
    work()
    accelerator.synchronize(device)
    return time.perf_counter() - began


def main() -> int:
    """Time each pair in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = device_of(options.device, "DEVICE=cpu times the CPU.")
    print(f"{accelerator.name(device) or device.type}, torch {torch.__version__}", flush=True)
    rows = [["work", "ours", "plain", "ratio"]]
    with tempfile.TemporaryDirectory(prefix="explorer-gpu-") as folder:
        bench = Bench(device, Path(folder))
        for pair in (training, evaluation, decoding):
            works = pair(bench)
            times: tuple[list[float], list[float]] = ([], [])
            for repeat in range(REPEATS + 1):
                for kept, work in zip(times, works, strict=True):
                    taken = seconds(device, work)
                    if repeat:  # the first is the warm-up
                        kept.append(taken)
            ours, plain = (statistics.median(kept) for kept in times)
            row = [pair.__name__, f"{1e3 * ours:.1f} ms", f"{1e3 * plain:.1f} ms"]
            rows.append([*row, f"{plain / ours:.2f}"])
            print(" ".join(rows[-1]), flush=True)
    print(f"\n{table(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
