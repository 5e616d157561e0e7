"""How fast is our distillation loop beside TRL's `GKDTrainer`, and what memory does it take?

The peer is TRL 1.16.0, `trl.experimental.gkd.GKDTrainer` with `lmbda=0` (the given text) and
`beta=0` (forward KL). Both sides teach the same students of the starter teacher on the same
texts of the starter corpus, four a step, in float32 on two threads, with AdamW. TRL takes the
texts as they are and pads those of a step to the longest, as it comes; only tokens that are
no padding count. Beside that it gets our packed blocks of 256 tokens, its best case. It asks
the teacher at every step; we read the targets that one pass of the teacher left, and that
pass is counted in the sweep. TRL's loss takes every token of the vocabulary. Ours is timed so
too, with all layers trained, and, which is the side called ours, with `vocab_sample: 4096`, an
estimate of the same loss, and `train_layers: auto`, which leaves the first three layers of the two
larger students as they are. `distill_quality.py` shows what either learns in a minute.

    pip install -e '.[bench]'
    python benchmarks/distill_vs_trl.py [--turns 2] [--steps 8] [--short]

Each measurement is a process of its own, ours and TRL's in turns, so that the peak memory is
that side's alone. Three quarters of an hour on two cores; half of it with `--short`, which leaves
out packed blocks and trained embeddings. The last line is one JSON object:

speed_ratio_single  tokens/s of ours over TRL's, 10 layers, cached targets
speed_ratio_sweep4  time of TRL over ours for four students, the teacher's pass counted
..._all_tokens      the same for ours with every token of the vocabulary
..._packed          the same against TRL on our packed blocks
cpu_ratio_single    the same in tokens per second of processor time, which other work on the
                    machine disturbs less
memory_ratio        our peak memory over TRL's, 10 layers
peak_fraction       useful arithmetic of our step over the machine's matrix-multiply peak, the best
                    product before or after the training
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import io
import json
import math
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

TRL = "1.16.0"
THREADS = 2
SINGLE, SWEEP = 10, (20, 15, 10, 6)
RECIPE: dict[str, Any] = {"vocab_sample": 4_096, "train_layers": "auto"}
HELDOUT = 2
COMPARED = ("ours", "trl", "ours_all")
PACKED = "trl_packed"
EMBEDDING = ("ours_whole", "trl_frozen")
"""Beside the compared ones: ours with the embedding trained, TRL's without."""


def main(turns: int, steps: int, *, short: bool) -> None:
    require_trl()
    compared, beside = (COMPARED, ()) if short else ((*COMPARED, PACKED), EMBEDDING)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        pass_rate = call(work, "prepare", steps=steps)["tokens_per_s"]
        found: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for _ in range(turns):
            for layers in SWEEP:
                for side in compared + (beside if layers == SINGLE else ()):
                    found.setdefault((side, layers), []).append(
                        call(work, side, layers=layers, steps=steps)
                    )
    check_same_loss(found)
    rates = {
        key: statistics.median(r for one in runs for r in one["rates"])
        for key, runs in found.items()
    }
    memory = {key: max(one["peak_bytes"] for one in runs) for key, runs in found.items()}
    names = {
        "ours": "ours, tokens drawn",
        "ours_all": "ours, all tokens",
        "ours_whole": "ours, embedding trained",
        "trl": "TRL GKDTrainer",
        "trl_packed": "TRL, blocks packed",
        "trl_frozen": "TRL, packed and frozen",
    }
    print(f"\n{'':24} layers   tokens/s (all steps)      peak memory")
    for (side, layers), runs in found.items():
        every = [r for one in runs for r in one["rates"]]
        print(
            f"{names[side]:24} {layers:>6} {rates[side, layers]:>10.1f}"
            f" [{min(every):.1f}, {max(every):.1f}] {memory[side, layers] / 1e9:>12.2f} GB"
        )
    print(f"{'the teacher, once':24} {30:>6} {pass_rate:>10.1f}")
    peaks = [one["peak_flops"] for one in found["ours", SINGLE]]
    fractions = {
        side: statistics.median(
            statistics.median(one["rates"]) * one["flops_per_token"] / one["peak_flops"]
            for one in found[side, SINGLE]
        )
        for side in ("ours", "ours_all")
    }
    print(f"matrix-multiply peak, float32, {THREADS} threads: {max(peaks) / 1e9:.0f} GFLOP/s")
    cpu = {
        side: statistics.median(r for one in found[side, SINGLE] for r in one["cpu_rates"])
        for side in compared
    }
    seconds = {side: sum(1 / rates[side, layers] for layers in SWEEP) for side in compared}
    for side in ("ours", "ours_all"):
        seconds[side] += 1 / pass_rate
    packed = (
        {}
        if short
        else {
            "speed_ratio_single_packed": ratio(rates["ours", SINGLE], rates[PACKED, SINGLE]),
            "speed_ratio_sweep4_packed": ratio(seconds[PACKED], seconds["ours"]),
        }
    )
    print(
        json.dumps(
            {
                "speed_ratio_single": ratio(rates["ours", SINGLE], rates["trl", SINGLE]),
                "speed_ratio_sweep4": ratio(seconds["trl"], seconds["ours"]),
                "speed_ratio_single_all_tokens": ratio(
                    rates["ours_all", SINGLE], rates["trl", SINGLE]
                ),
                "speed_ratio_sweep4_all_tokens": ratio(seconds["trl"], seconds["ours_all"]),
                **packed,
                "cpu_ratio_single": ratio(cpu["ours"], cpu["trl"]),
                "memory_ratio": ratio(memory["ours", SINGLE], memory["trl", SINGLE]),
                "peak_fraction": round(fractions["ours"], 3),
                "peak_fraction_all_tokens": round(fractions["ours_all"], 3),
                "speed_ratio_by_turn": [
                    ratio(statistics.median(a["rates"]), statistics.median(b["rates"]))
                    for a, b in zip(found["ours", SINGLE], found["trl", SINGLE], strict=True)
                ],
                "versions": {"trl": TRL, **found["trl", SINGLE][0]["versions"]},
            }
        )
    )


def ratio(one: float, other: float) -> float:
    return round(one / other, 3)


def require_trl() -> None:
    """Say what to do where the peer is missing or another version."""
    if importlib.util.find_spec("trl") is None:
        raise SystemExit(
            f"This benchmark times the explorer beside TRL {TRL}, which is not installed. "
            "Install it: pip install -e '.[bench]' -c constraints.txt"
        )
    if importlib.metadata.version("trl") != TRL:
        raise SystemExit(f"This benchmark is about TRL {TRL}; install that version.")


def check_same_loss(found: dict[tuple[str, int], list[dict[str, Any]]]) -> None:
    """Both sides must see the same loss on the same first batch, before any step."""
    ours = found["ours", SINGLE][0]["dense_loss"]
    theirs = found["trl", SINGLE][0]["dense_loss"]
    print(
        f"\nforward KL of the first batch before any step: ours {ours:.5f}, TRL {theirs:.5f} nats"
    )
    if not math.isclose(ours, theirs, rel_tol=1e-3):
        raise SystemExit("The two sides do not compute the same loss; their speed says nothing.")


def call(work: Path, side: str, *, script: str = __file__, **options: int) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, script, "--side", side, "--work", work]
    for name, value in options.items():
        command += [f"--{name}", value]
    # Names tokenizers and Accelerate look at; the hub is not needed.
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(THREADS),
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{side} {options} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if rates := result.get("rates"):
        shown = ", ".join(f"{rate:.1f}" for rate in rates)
        print(f"{side} {options['layers']}: {shown} tokens/s", flush=True)
    return result


# What both benchmarks stand on ----------------------------------------------------------------


def spec(**changes: Any) -> Any:
    """The distillation of both benchmarks: the default of a run but for the schedule."""
    from explorer.specs import DistillSpec

    return DistillSpec(warmup_fraction=0.0, checkpoint_every_s=1e9, **changes)


def blocks() -> tuple[Any, list[int], list[int]]:
    """The starter corpus in blocks, held-out and training block numbers."""
    from explorer.distill import corpus, token_file
    from explorer.models.loading import load_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "starter.bin")
        text, tokenizer = corpus.read_corpus("starter"), load_tokenizer("starter")
        tokens = token_file.ensure_tokens(text, tokenizer, path, 256)
        packed = tokens[list(range(len(tokens)))]
    return packed, *corpus.split_heldout(len(packed), 24, 0)


def targets(work: Path) -> Any:
    """The targets of both benchmarks, empty at first."""
    from explorer.distill.teacher_cache import TeacherCache

    identity = {"teacher": "starter", "top_k": 32, "temperature": 1.0, "vocab_size": 49_152}
    return TeacherCache(work / "targets", blocks()[0], identity)


def prepare(work: Path, sizes: tuple[int, ...], num_blocks: int, num_heldout: int) -> float:
    """Cut the students, fill the targets; the teacher's pass in tokens/s."""
    from explorer.distill.teacher_cache import local_teacher
    from explorer.models.loading import load
    from explorer.specs import DepthStudent
    from explorer.students import create

    teacher = load("starter")
    packed, heldout, training = blocks()
    for layers in sizes:
        wanted = DepthStudent(num_layers=layers, sample_blocks=4)
        student = create.create_student(teacher, teacher, wanted, packed[heldout])
        student.model.save_pretrained(work / str(layers))
        student.tokenizer.save_pretrained(work / str(layers))
    made = targets(work)
    asked = local_teacher(teacher)
    made.fill(lambda: asked, heldout[:num_heldout], lambda *told: None)  # warm-up
    rates: list[float] = []
    made.fill(lambda: asked, training[:num_blocks], lambda done, total, rate: rates.append(rate))
    return rates[-1]


def packed_rows(num_steps: int) -> list[list[int]]:
    """The training blocks in our order."""
    packed, _, training = blocks()
    return [packed[n].tolist() for n in training[: num_steps * spec().blocks_per_step]]


def text_rows(num_steps: int) -> list[list[int]]:
    """Whole documents, drawn with a seed, each with its end-of-text token."""
    from explorer.distill import corpus
    from explorer.models.loading import load_tokenizer

    tokenizer = load_tokenizer("starter")
    texts = random.Random(0).sample(
        list(corpus.read_corpus("starter").documents()), num_steps * spec().blocks_per_step
    )
    documents = tokenizer(texts, add_special_tokens=False).input_ids
    return [[*document, tokenizer.eos_token_id] for document in documents]


def trl_trainer(
    work: Path, layers: int, texts: list[list[int]], callbacks: list[Any], frozen: bool
) -> Any:
    """TRL's trainer on the same student and optimiser, a step for every four texts."""
    warnings.filterwarnings("ignore")
    from datasets import Dataset
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    from explorer.models.loading import load

    one = spec()
    rows = [
        # The first token is the prompt, so that all others are scored, as on our side.
        {"prompt": "", "input_ids": ids, "completion_mask": [0] + [1] * (len(ids) - 1)}
        for ids in texts
    ]
    max_steps = len(texts) // one.blocks_per_step
    student = load(str(work / str(layers)))
    if frozen:
        student.model.get_input_embeddings().requires_grad_(False)
    config = GKDConfig(
        output_dir=str(work / "trl"),
        max_steps=max_steps,
        lmbda=0.0,
        beta=0.0,
        temperature=1.0,
        per_device_train_batch_size=one.blocks_per_step,
        gradient_accumulation_steps=1,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        max_length=max(map(len, texts)),
        learning_rate=one.learning_rate,
        lr_scheduler_type="constant",
        warmup_steps=0,
        optim="adamw_torch_fused",
        adam_beta1=0.9,
        adam_beta2=0.95,
        weight_decay=one.weight_decay,
        max_grad_norm=1.0,
        logging_strategy="steps",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=0,
    )
    return GKDTrainer(
        model=student.model,
        teacher_model=load("starter").model,
        args=config,
        processing_class=student.tokenizer,
        train_dataset=Dataset.from_list(rows),
        callbacks=callbacks,
    )


# The sides, each in its own process -----------------------------------------------------------


class Clock:
    """Wall and processor time at the end of each step."""

    def __init__(self, num_tokens: dict[int, int] | None = None) -> None:
        """Take the scored tokens of each step, where they are not those of four blocks."""
        self.moments: list[tuple[float, float]] = []
        self.num_tokens = num_tokens

    def tick(self) -> None:
        """A step is over."""
        self.moments.append((time.monotonic(), time.process_time()))

    def rates(self) -> dict[str, list[float]]:
        """Tokens per second of all steps but the first and the last, by either clock."""
        pairs = list(zip(self.moments[:-1], self.moments[1:-1], strict=False))
        # The first moment is the end of the first step.
        tokens = [(self.num_tokens or {}).get(i + 1, 4 * 255) for i in range(len(pairs))]
        wall, cpu = (
            [n / (b[i] - a[i]) for n, (a, b) in zip(tokens, pairs, strict=True)] for i in (0, 1)
        )
        return {"rates": wall, "cpu_rates": cpu}


def time_ours(work: Path, layers: int, steps: int, side: str) -> dict[str, Any]:
    from explorer.distill import train
    from explorer.distill.teacher_signal import CachedTeacher, LiveTeacher, TrainingData
    from explorer.models.loading import load

    # One step more than is timed: the last one's clock includes a measurement.
    one = spec(
        train_embeddings=side == "ours_whole",
        **({} if side == "ours_all" else RECIPE),
        max_tokens=4 * 255 * (steps + 2),
        eval_every_steps=1000,
    )
    heldout_signal = CachedTeacher(targets(work))
    source = CachedTeacher(heldout_signal.targets, one)
    _, heldout, training = blocks()
    data = TrainingData(source, training, heldout_signal, heldout[:1])
    model = load(str(work / str(layers))).model
    clock = Clock()
    before = matmul_peak()
    train.train(model, data, one, work / "checkpoint", lambda *told: clock.tick())
    peak_bytes = peak_memory()
    peak_flops = max(before, matmul_peak())
    # Only now, since it needs the teacher: what TRL's loss should be.
    model = load(str(work / str(layers))).model
    live = one.with_(method="live", vocab_sample=None)
    data = dataclasses.replace(
        data, signal=LiveTeacher(load("starter").model, source.blocks_NT, live)
    )
    terms, _ = train.gradients(model, data, 0, training[:4], live)
    return {
        **clock.rates(),
        "peak_bytes": peak_bytes,
        "peak_flops": peak_flops,
        "flops_per_token": flops_per_token(model, source.batch(training[:4], 0, model)),
        "dense_loss": terms["loss"],
    }


def time_trl(work: Path, layers: int, steps: int, *, packed: bool, frozen: bool) -> dict[str, Any]:
    import torch
    import transformers

    from explorer.models.loading import load

    counts: dict[int, int] = {}
    clock = Clock(counts)

    class Tick(transformers.TrainerCallback):
        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            clock.tick()

    rows = packed_rows(steps + 2) if packed else text_rows(steps + 2)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = trl_trainer(work, layers, rows, [Tick()], frozen)
        pad = trainer.data_collator

        def counted(examples: list[dict[str, Any]]) -> Any:
            batch = pad(examples)
            counts[len(counts)] = int((batch["labels"] != -100).sum())
            return batch

        trainer.data_collator = counted
        trainer.train()
    peak_bytes = peak_memory()
    # The loss of our first batch, by TRL's own function.
    every_block, _, training = blocks()
    ids = every_block[training[:4]]
    with torch.no_grad():
        own = load(str(work / str(layers))).model(ids).logits[:, :-1]
        theirs = trainer.teacher_model(ids).logits[:, :-1]
    loss = trainer.generalized_jsd_loss(own, theirs, labels=ids[:, 1:], beta=0.0)
    return {
        **clock.rates(),
        "peak_bytes": peak_bytes,
        "dense_loss": float(loss),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def peak_memory() -> int:
    """The process's highest resident memory so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def matmul_peak() -> float:
    """FLOP/s of the best of thirty float32 products of 2048 x 2048 matrices, by MKL or oneDNN."""
    import torch

    from explorer.distill import cpu_tuning

    a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
    best = math.inf
    for way in (contextlib.nullcontext, cpu_tuning.onednn_matmul) * 15:
        with way():
            began = time.perf_counter()
            torch.nn.functional.linear(a, b)
            best = min(best, time.perf_counter() - began)
    return 2 * 2048**3 / best


def flops_per_token(model: Any, batch: Any) -> float:
    """Useful arithmetic of one training step on cached targets, per token.

    Two for each weight of a layer forward and four backward; the frozen head, of the tokens that
    have logits, two forward and two backward; causal attention over half of 256 positions, twice
    (scores and values).
    """
    config = model.config
    layer = sum(p.numel() for p in model.model.layers[0].parameters())
    attention = 2 * 256 * config.hidden_size
    sizes = [len(vocab.ids_S) for vocab in batch.vocabs or []]
    head = (statistics.mean(sizes) if sizes else config.vocab_size) * config.hidden_size
    return config.num_hidden_layers * 3 * (2 * layer + attention) + 4 * head


def side() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--work", type=Path)
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(THREADS)
    if asked.side == "prepare":
        rate = prepare(asked.work, SWEEP, (asked.steps + 2) * 4, HELDOUT)
        result: dict[str, Any] = {"tokens_per_s": rate}
    elif asked.side.startswith("ours"):
        result = time_ours(asked.work, asked.layers, asked.steps, asked.side)
    else:
        frozen = asked.side == "trl_frozen"
        packed = frozen or asked.side == "trl_packed"
        result = time_trl(asked.work, asked.layers, asked.steps, packed=packed, frozen=frozen)
    print(json.dumps(result))


if __name__ == "__main__":
    if "--side" in sys.argv:
        side()
    else:
        arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        arguments.add_argument("--turns", type=int, default=2, help="turns of each side")
        arguments.add_argument("--steps", type=int, default=8, help="timed, after one warm-up")
        arguments.add_argument("--short", action="store_true", help="texts as they are only")
        main(**vars(arguments.parse_args()))
