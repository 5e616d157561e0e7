"""How close does a student come to its teacher in a minute, ours, TRL's, or from labels alone?

The same 10-layer student, the same packed blocks of the starter corpus, the same optimiser at
a constant rate, two threads, float32: for a few minutes each, the held-out KL to the teacher
against the training's clock. Measuring stops the clock, and takes every token of the vocabulary.
Ours learns with `vocab_sample: 4096`, and once more with all tokens; both pay for the teacher's
pass over every block that they have used, as if no other student shared it. TRL asks the teacher
at every step; labels only asks nobody.

    pip install -e '.[bench]'
    python benchmarks/distill_quality.py [--minutes 3]

Four processes, one after the other; about twenty minutes on two cores. The last line is one JSON
object: `kl_ratio_by_minute`, ours over TRL's at each full minute (below 1 is better),
`kl_ratio_by_minute_all_tokens` and `kl_ratio_to_labels_by_minute`.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import distill_vs_trl as base
import numpy as np

NUM_HELDOUT = 8
LAYERS = base.SINGLE
TOKENS_PER_S = 600
"""So many blocks get targets; a side that is faster than this reads them again."""
EVERY_S = 20.0
"""Seconds of training between two measurements."""


class Over(Exception):
    """The minutes are over."""


def main(minutes: int) -> None:
    base.require_trl()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        pass_rate = call(work, "prepare", minutes)["tokens_per_s"]
        curves = {side: call(work, side, minutes) for side in ("ours", "trl", "ours_all", "labels")}
    for ours in (curves["ours"], curves["ours_all"]):
        together = zip(ours["seconds"], ours["tokens"], strict=True)
        ours["seconds"] = [seconds + tokens / pass_rate for seconds, tokens in together]
    marks = [60.0 * (minute + 1) for minute in range(minutes)]
    print(f"\nheld-out KL to the teacher, nats per token; before: {curves['ours']['kl'][0]:.3f}")
    print(f"{'':34}" + "".join(f"{mark / 60:>8.0f} min" for mark in marks))
    names = {
        "ours": "ours, teacher's pass counted",
        "ours_all": "ours with all tokens, as well",
        "trl": "TRL GKDTrainer",
        "labels": "labels only",
    }
    at = {side: np.interp(marks, one["seconds"], one["kl"]) for side, one in curves.items()}
    for side, name in names.items():
        print(f"{name:34}" + "".join(f"{kl:>12.3f}" for kl in at[side]))
    print(
        json.dumps(
            {
                "kl_ratio_by_minute": (at["ours"] / at["trl"]).round(3).tolist(),
                "kl_ratio_by_minute_all_tokens": (at["ours_all"] / at["trl"]).round(3).tolist(),
                "kl_ratio_to_labels_by_minute": (at["ours"] / at["labels"]).round(3).tolist(),
                "teacher_tokens_per_s": round(pass_rate, 1),
                "tokens_seen": {side: one["tokens"][-1] for side, one in curves.items()},
            }
        )
    )


def call(work: Path, side: str, minutes: int) -> dict[str, Any]:
    return base.call(work, side, script=__file__, minutes=minutes)


def measured(work: Path) -> tuple[Any, Any]:
    """The course on cached targets, and a function that gives a student's held-out KL."""
    from explorer.distill.heldout import evaluate_heldout
    from explorer.distill.teacher_signal import CachedTeacher, TrainingData

    source = CachedTeacher(base.targets(work))
    _, heldout, training = base.blocks()
    known = set(source.targets.done)
    data = TrainingData(source, [n for n in training if n in known], source, heldout[:NUM_HELDOUT])
    return data, lambda student: evaluate_heldout(student, data, 1.0).kl


def teach_ours(work: Path, minutes: int, side: str) -> dict[str, Any]:
    """Our loop, with the teacher's targets or with labels alone."""
    from explorer.distill import train
    from explorer.distill.teacher_signal import CachedTeacher, NoTeacher
    from explorer.models.loading import load

    data, _ = measured(work)
    # So large a budget that the cosine's rate is constant for these minutes.
    one = base.spec(
        max_tokens=100_000_000,
        eval_every_steps=5,
        method="labels" if side == "labels" else "cached",
        **(base.RECIPE if side == "ours" else {}),
    )
    source: Any = CachedTeacher(data.heldout_signal.targets, one)
    if side == "labels":
        source = NoTeacher(source.blocks_NT)
    data = dataclasses.replace(data, signal=source)
    seen: list[Any] = []

    def stop(state: Any, *told: Any) -> None:
        seen[:] = state.curve
        if state.curve[-1].seconds > 60 * minutes:
            raise Over

    with contextlib.suppress(Over):
        train.train(load(str(work / str(LAYERS))).model, data, one, work / side, stop)
    return {
        "seconds": [point.seconds for point in seen],
        "tokens": [point.scored_tokens for point in seen],
        "kl": [point.heldout_kl for point in seen],
    }


def teach_trl(work: Path, minutes: int) -> dict[str, Any]:
    """TRL's trainer; the clock stands while the held-out KL is measured."""
    import transformers

    _, kl_of = measured(work)
    found: dict[str, list[float]] = {"seconds": [], "tokens": [], "kl": []}

    class Watch(transformers.TrainerCallback):
        def on_train_begin(self, arguments: Any, state: Any, control: Any, **have: Any) -> None:
            self.paused, self.began = 0.0, time.monotonic()
            self.note(state, have["model"])

        def on_step_end(self, arguments: Any, state: Any, control: Any, **have: Any) -> None:
            now = time.monotonic() - self.began - self.paused
            if now - found["seconds"][-1] >= EVERY_S:
                self.note(state, have["model"])
            control.should_training_stop = now > 60 * minutes + EVERY_S

        def note(self, state: Any, model: Any) -> None:
            stopped = time.monotonic()
            found["seconds"].append(stopped - self.began - self.paused)
            found["tokens"].append(state.global_step * 4 * 255)
            found["kl"].append(kl_of(model))
            self.paused += time.monotonic() - stopped

    steps = 60 * minutes * TOKENS_PER_S // (4 * 255)
    with contextlib.redirect_stdout(io.StringIO()):
        base.trl_trainer(work, LAYERS, base.packed_rows(steps), [Watch()], False).train()
    return found


def side() -> None:
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("--side")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--minutes", type=int)
    asked = parser.parse_args()
    torch.set_num_threads(base.THREADS)
    if asked.side == "prepare":
        num_blocks = 60 * asked.minutes * TOKENS_PER_S // 256
        rate = base.prepare(asked.work, (LAYERS,), num_blocks, NUM_HELDOUT)
        result: dict[str, Any] = {"tokens_per_s": rate}
    elif asked.side == "trl":
        result = teach_trl(asked.work, asked.minutes)
    else:
        result = teach_ours(asked.work, asked.minutes, asked.side)
    print(json.dumps(result))


if __name__ == "__main__":
    if "--side" in sys.argv:
        side()
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument("--minutes", type=int, default=3)
        main(parser.parse_args().minutes)
