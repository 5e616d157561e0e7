"""A short tournament: which variant of a run brings its student closest to the teacher.

Every variant is trained a little; one in `keep` goes on and is trained `keep` times as
long, from the start, since the schedule of the learning rate depends on the budget. What
counts is the held-out KL. Each training is a run of the store, so a tournament that was
interrupted goes on where it stopped, and the winner's student is there already.

    explorer tune tune.yaml
"""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

from explorer.errors import BadInput, RunFailed
from explorer.progress import Listener
from explorer.run import run
from explorer.specs import RunSpec, TuneSpec

log = logging.getLogger("explorer")


@dataclasses.dataclass
class Standing:
    """One contender and how it did."""

    words: str
    spec: RunSpec
    kl: list[float | None] = dataclasses.field(default_factory=list)
    """Held-out KL after each round that it was in, in nats; None where its training failed."""


OnRun = Callable[[str], Listener]
"""Called before each run with a title; gives what hears the run's progress."""


def tournament(spec: TuneSpec, root: Path, on_run: OnRun) -> list[Standing]:
    """Hold it; the winner comes first, then who came furthest with the lowest KL.

    Raises:
        BadInput: The runs have no held-out KL, since teacher and student share no tokenizer.
        RunFailed: No contender was left.
    """
    table = [Standing(words, one) for words, one in spec.contenders().items()]
    going = table
    for number in range(spec.rounds):
        for standing in going:
            title = f"round {number + 1} of {spec.rounds}: {standing.words}"
            standing.kl.append(_held_out_kl(spec, standing.spec, number, root, on_run(title)))
        finished = [standing for standing in going if standing.kl[-1] is not None]
        if not finished:
            raise RunFailed("No variant's training ended well; lower distill.learning_rate in run.")
        finished.sort(key=_place)
        going = finished[: spec.survivors(len(going))]
    return sorted(table, key=_place)


def in_round(spec: TuneSpec, contender: RunSpec, number: int) -> RunSpec:
    """A contender's run of a round: its training alone, with the round's budget."""
    assert contender.distill is not None, "checked when the spec was made"
    taught = contender.distill.with_(max_tokens=spec.tokens_of_round(number))
    return contender.with_(
        name=f"{spec.name}-{number + 1}",
        distill=taught.model_dump(),
        capability=None,
        latency=None,
    )


def _held_out_kl(
    spec: TuneSpec, contender: RunSpec, number: int, root: Path, listener: Listener
) -> float | None:
    try:
        record = run(in_round(spec, contender, number), root, listener)
    except RunFailed as error:
        log.warning("Out of the tournament: %s", error)
        return None
    assert record.distillation is not None, "the run has a training"
    if record.distillation.kl_after is None:
        raise BadInput(
            "explorer tune compares by the held-out KL to the teacher, which a student with "
            "another tokenizer does not have."
        )
    return record.distillation.kl_after


def _place(standing: Standing) -> tuple[int, float]:
    """Who came further, then the lower KL."""
    last = standing.kl[-1]
    if last is None:
        return -len(standing.kl) + 1, float("inf")
    return -len(standing.kl), last
