"""How a tournament stands, read from the store, and its rounds one after another.

A tournament that was started has a folder of its own, in which it says what it does as a
run does in its own:

    results/.work/tournaments/<tune_id>/spec.yaml  status.json  cancel
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from explorer.analysis import numbers
from explorer.errors import BadInput, RunCancelled, RunFailed
from explorer.models import sizes
from explorer.records import RunRecord
from explorer.specs import RunSpec, TuneSpec
from explorer.store import disk
from explorer.store.progress import Progress


@dataclasses.dataclass
class Standing:
    """One contender and how it did."""

    words: str
    spec: RunSpec
    kl: list[float | None] = dataclasses.field(default_factory=list)
    """Held-out KL after each round that it was in, in nats; None where its training failed."""


@dataclasses.dataclass(frozen=True)
class Round:
    """How a tournament stands in its present round, or at its end."""

    table: list[Standing]
    """The winner or leader first, then who came furthest with the lowest KL."""
    title: str
    """round 2 of 3"""
    num_runs: int
    """Trainings of this round."""
    missing: dict[str, RunSpec]
    """Those that are still to be done, by what they change; none once the tournament is over."""


Train = Callable[[Round, Path, Progress], None]
"""Does the missing trainings of a round; a variant that fails in its training is no error."""


def folder(root: Path) -> Path:
    """Where a store's tournaments lie, as the runs lie in the store."""
    return root / ".work" / "tournaments"


def begin(spec: TuneSpec, root: Path) -> str:
    """Write a tournament down and return its id.

    Raises:
        BadInput: A student is not smaller than the model that it is cut from.
    """
    sizes.check_students(spec.contenders().values(), root)
    path = folder(root) / spec.tune_id / disk.SPEC
    if not path.exists():
        disk.write_text(path, spec.to_yaml())
    return spec.tune_id


def ids(root: Path) -> list[str]:
    """The ids of all tournaments that were started."""
    return [tune_id for tune_id in disk.run_ids(folder(root)) if known(root, tune_id)]


def known(root: Path, tune_id: str) -> bool:
    """Whether a tournament of this id was started."""
    return (disk.run_folder(folder(root), tune_id) / disk.SPEC).is_file()


def resolve_tune_id(root: Path, text: str) -> str:
    """The tournament that `text` names: by its whole id, or by a beginning that is unique.

    Raises:
        BadInput: No tournament's id begins so, or several do; the message names candidates.
    """
    disk.run_folder(folder(root), text)  # refuses what cannot be an id
    return disk.resolve_id(
        text,
        ids(root),
        "tournaments",
        f"There is no tournament {text!r} in {root}.",
        "`explorer tune --standings` lists them.",
    )


def read(root: Path, tune_id: str) -> TuneSpec:
    """The spec that a tournament was started with.

    Raises:
        BadInput: There is no such tournament.
    """
    if not known(root, tune_id):
        raise BadInput(
            f"There is no tournament {tune_id!r} in {root}. `explorer tune --standings` lists them."
        )
    return TuneSpec.read(folder(root) / tune_id / disk.SPEC)


def standings(spec: TuneSpec, root: Path) -> Round:
    """How it stands, by the records in the store.

    Raises:
        BadInput: The runs have no held-out KL, since teacher and student share no tokenizer.
        RunFailed: No contender was left.
    """
    table = [Standing(words, one) for words, one in spec.contenders().items()]
    going = table
    for number in range(spec.rounds):
        missing = {}
        for standing in going:
            run = spec.in_round(standing.spec, number)
            record = ended(root, run.run_id)
            if record:
                standing.kl.append(_held_out_kl(record))
            else:
                missing[standing.words] = run
        title = f"round {number + 1} of {spec.rounds}"
        now = Round(sorted(table, key=_place), title, len(going), missing)
        if missing:
            return now
        finished = [standing for standing in going if standing.kl[-1] is not None]
        if not finished:
            raise RunFailed("No variant's training ended well; lower distill.learning_rate in run.")
        going = sorted(finished, key=_place)[: spec.survivors(len(going))]
    return now


def hold(spec: TuneSpec, root: Path, train: Train) -> list[Standing]:
    """Hold it, from where it stands, and return its table, the winner first.

    Raises:
        ExplorerError: It was cancelled, or could not go on; its status says so too.
    """
    progress = Progress(folder(root), begin(spec, root))
    try:
        now = standings(spec, root)
        while now.missing:
            before = now.missing
            told(progress, now, now.num_runs - len(before))
            train(now, root, progress)
            now = standings(spec, root)
            assert now.missing != before, "a round's trainings end, or say why they cannot"
    except RunCancelled as error:
        asked = disk.cancel_requested(folder(root), spec.tune_id)
        progress.write(state="cancelled" if asked else "interrupted", error=str(error))
        raise
    except KeyboardInterrupt:
        progress.write(state="interrupted", error="Interrupted by hand.")
        raise
    except Exception as error:
        progress.write(state="failed", error=str(error) or type(error).__name__)
        raise
    progress.write(state="finished")
    return now.table


def told(progress: Progress, now: Round, num_done: int) -> None:
    """Say how far the round is.

    Raises:
        RunCancelled: Somebody asked the tournament to stop.
    """
    progress(now.title, num_done, now.num_runs, "runs")


def ended(root: Path, run_id: str) -> RunRecord | None:
    """The record of a training that is over, or failed in a way that it would fail again."""
    if not (disk.run_folder(root, run_id) / disk.RECORD).exists():
        return None
    record = disk.load(root, run_id)
    return record if record.status == "finished" or _diverged(record) else None


def _diverged(record: RunRecord) -> bool:
    """Whether the loss or the gradient stopped being finite: the variant's own fault."""
    error = record.error
    return error is not None and (error.kind, error.stage) == (RunFailed.__name__, "distil")


def _held_out_kl(record: RunRecord) -> float | None:
    if record.status != "finished":
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
    last = standing.kl[-1] if standing.kl else None
    if last is None:
        return min(0, 1 - len(standing.kl)), float("inf")
    return -len(standing.kl), last


def in_words(spec: TuneSpec, table: list[Standing]) -> pd.DataFrame:
    """A row a contender: what it changes, and its held-out KL after each round."""
    rows = []
    for standing in table:
        shown = ["failed" if kl is None else numbers.significant(kl) for kl in standing.kl]
        shown += [numbers.MISSING] * (spec.rounds - len(shown))
        heads = [f"KL at {spec.tokens_of_round(number):,} tokens" for number in range(spec.rounds)]
        rows.append({"Variant": standing.words, **dict(zip(heads, shown, strict=True))})
    return pd.DataFrame(rows)
