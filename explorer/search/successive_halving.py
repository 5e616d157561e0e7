"""The state of a search, read from the store, and its rounds one after another.

A search has a folder of its own and writes its status there as a run does:

    results/.work/tournaments/<tune_id>/spec.yaml  status.json  cancel

Source: Jamieson and Talwalkar 2016, arXiv:1502.07943.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from explorer.analysis import numbers
from explorer.errors import BadInput, RunCancelled, RunFailed
from explorer.files import durable_files
from explorer.models import size_limits
from explorer.records import RunRecord
from explorer.specs import RunSpec, TuneSpec
from explorer.store import disk
from explorer.store.progress import Progress


@dataclasses.dataclass
class VariantResult:
    """One variant and how well it trained."""

    changes: str
    """What it changes in the run, such as `learning_rate 0.001`; `as it is` for the run itself."""
    spec: RunSpec
    kl: list[float | None] = dataclasses.field(default_factory=list)
    """Held-out KL after each round it was in, in nats per token; None if its training failed."""


@dataclasses.dataclass(frozen=True)
class RoundStatus:
    """The state of a search in its present round, or at its end."""

    results: list[VariantResult]
    """The most rounds first, then the lowest KL: the leader, at the end the winner, comes first."""
    title: str
    """Such as `round 2 of 3`."""
    num_runs: int
    """Trainings of this round."""
    missing: dict[str, RunSpec]
    """Trainings of this round that have not ended, by their changes; empty at the end."""


TrainRound = Callable[[RoundStatus, Path, Progress], None]
"""Runs a round's missing trainings. A variant whose training diverges is out, not an error."""


def searches_folder(root: Path) -> Path:
    """Folder of a store's searches; it holds one folder per search, as the store does per run."""
    return root / disk.TOURNAMENTS


def save_spec(spec: TuneSpec, root: Path) -> str:
    """Write a search's spec into its folder and return its id.

    Raises:
        BadInput: A student is not smaller than the model it is cut from.
    """
    size_limits.check_students(spec.contenders().values(), root)
    path = searches_folder(root) / spec.tune_id / disk.SPEC
    if not path.exists():
        durable_files.write_text(path, spec.to_yaml())
    return spec.tune_id


def search_ids(root: Path) -> list[str]:
    """The ids of all searches of a store."""
    return [tune_id for tune_id in disk.run_ids(searches_folder(root)) if is_search(root, tune_id)]


def is_search(root: Path, tune_id: str) -> bool:
    """Whether the store has a search of this id."""
    return (disk.run_folder(searches_folder(root), tune_id) / disk.SPEC).is_file()


def resolve_tune_id(root: Path, text: str) -> str:
    """The search that `text` names, by its whole id or by a unique beginning of it.

    Raises:
        BadInput: No search's id begins so, or several do; the message names candidates.
    """
    disk.run_folder(searches_folder(root), text)  # refuses what cannot be an id
    return disk.resolve_id(
        text,
        search_ids(root),
        "tournaments",
        f"There is no tournament {text!r} in {root}.",
        "`explorer tune --standings` lists them.",
    )


def read_spec(root: Path, tune_id: str) -> TuneSpec:
    """The spec of a search.

    Raises:
        BadInput: The store has no such search, or its spec is of another one.
    """
    if not is_search(root, tune_id):
        raise BadInput(
            f"There is no tournament {tune_id!r} in {root}. `explorer tune --standings` lists them."
        )
    path = searches_folder(root) / tune_id / disk.SPEC
    spec = TuneSpec.read(path)
    if spec.tune_id != tune_id:
        raise BadInput(
            f"{path} holds the spec of {spec.tune_id}, not of {tune_id}. Was it copied or edited "
            "by hand? Nothing was started; to start that tournament, copy the file elsewhere and "
            "name the copy."
        )
    return spec


def round_status(spec: TuneSpec, root: Path) -> RoundStatus:
    """The state of a search, from the records in the store.

    Raises:
        BadInput: The runs have no held-out KL: teacher and student share no tokenizer.
        RunFailed: The training of every variant failed.
    """
    results = [VariantResult(changes, run) for changes, run in spec.contenders().items()]
    entrants = results
    for number in range(spec.rounds):
        missing = {}
        for entrant in entrants:
            run = spec.in_round(entrant.spec, number)
            record = final_record(root, run.run_id)
            if record:
                entrant.kl.append(_heldout_kl(record))
            else:
                missing[entrant.changes] = run
        title = f"round {number + 1} of {spec.rounds}"
        status = RoundStatus(sorted(results, key=_rank), title, len(entrants), missing)
        if missing:
            return status
        trained = [entrant for entrant in entrants if entrant.kl[-1] is not None]
        if not trained:
            raise RunFailed(
                "The training of every variant failed. Lower distill.learning_rate in run."
            )
        entrants = sorted(trained, key=_rank)[: spec.survivors(len(entrants))]
    return status


def run_search(spec: TuneSpec, root: Path, train_round: TrainRound) -> list[VariantResult]:
    """Run the rounds that are left and return all results, the winner first.

    Raises:
        ExplorerError: The search was cancelled or cannot continue; its status says so too.
    """
    progress = Progress(searches_folder(root), save_spec(spec, root))
    try:
        status = round_status(spec, root)
        while status.missing:
            before = status.missing
            report_progress(progress, status, status.num_runs - len(before))
            train_round(status, root, progress)
            status = round_status(spec, root)
            assert status.missing != before, "a round's trainings end, or say why they cannot"
    except RunCancelled as error:
        cancelled = disk.cancel_requested(searches_folder(root), spec.tune_id)
        progress.write_status(state="cancelled" if cancelled else "interrupted", error=str(error))
        raise
    except KeyboardInterrupt:
        progress.write_status(state="interrupted", error="Interrupted by hand.")
        raise
    except Exception as error:
        progress.write_status(state="failed", error=str(error) or type(error).__name__)
        raise
    progress.write_status(state="finished")
    return status.results


def report_progress(progress: Progress, status: RoundStatus, num_done: int) -> None:
    """Write how many trainings of the round have ended.

    Raises:
        RunCancelled: The search was asked to stop.
    """
    progress(status.title, num_done, status.num_runs, "runs")


def final_record(root: Path, run_id: str) -> RunRecord | None:
    """The record of a training that finished, or that diverged and would diverge again."""
    if not (disk.run_folder(root, run_id) / disk.RECORD).exists():
        return None
    record = disk.load(root, run_id)
    return record if record.status == "finished" or _diverged(record) else None


def results_table(spec: TuneSpec, results: list[VariantResult]) -> pd.DataFrame:
    """One row per variant: what it changes, and its held-out KL after each round, as text."""
    rows = []
    for result in results:
        cells = ["failed" if kl is None else numbers.significant(kl) for kl in result.kl]
        cells += [numbers.MISSING] * (spec.rounds - len(cells))
        heads = [f"KL at {spec.tokens_of_round(number):,} tokens" for number in range(spec.rounds)]
        rows.append({"Variant": result.changes, **dict(zip(heads, cells, strict=True))})
    return pd.DataFrame(rows)


def _diverged(record: RunRecord) -> bool:
    """Whether the loss or the gradient became infinite or NaN: the fault of the variant itself."""
    error = record.error
    return error is not None and (error.kind, error.stage) == (RunFailed.__name__, "distil")


def _heldout_kl(record: RunRecord) -> float | None:
    if record.status != "finished":
        return None
    assert record.distillation is not None, "the run has a training"
    if record.distillation.kl_after is None:
        raise BadInput(
            "explorer tune compares variants by the held-out KL to the teacher. A student with "
            "another tokenizer has none."
        )
    return record.distillation.kl_after


def _rank(result: VariantResult) -> tuple[int, float]:
    """Sorts by the number of rounds, the most first, then by the KL of the last one."""
    last = result.kl[-1] if result.kl else None
    if last is None:
        return min(0, 1 - len(result.kl)), float("inf")
    return -len(result.kl), last
