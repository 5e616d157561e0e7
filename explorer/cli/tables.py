"""Tables in the terminal, or as files."""

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.table import Table

from explorer import store
from explorer.analysis.cost import UTILISATION
from explorer.cli.base import console, wide_console
from explorer.errors import BadInput, ExplorerError, NoRoom
from explorer.records import RunRecord
from explorer.specs import RunSpec

Format = Annotated[
    str,
    typer.Option("--format", "-f", help="table, or csv, xlsx, parquet, md, latex, json."),
]


def give(raw: pd.DataFrame, words: pd.DataFrame, format: str, out: Path | None) -> None:
    """A table on the terminal, or the bytes of a file to a file or to standard output.

    Raises:
        BadInput: A format that is not offered.
        ExplorerError: The file cannot be written.
    """
    from explorer.report import export

    if format == "table":
        print_frame(words, width=220)
    else:
        write_out(export.write_table(raw, words, format), out)


def print_frame(words: pd.DataFrame, width: int = 150) -> None:
    """A frame of texts as a table; `width` is what a file or a pipe gets."""
    table = Table(*[str(column) for column in words.columns], box=None)
    for row in words.itertuples(index=False):
        table.add_row(*[str(cell) for cell in row])
    wide_console(width).print(table, markup=False)


def write_out(data: bytes, out: Path | None) -> None:
    """Bytes to a file, or to standard output.

    Raises:
        ExplorerError: The file cannot be written.
    """
    if out is None:
        sys.stdout.buffer.write(data)
        return
    try:
        out.write_bytes(data)
    except OSError as error:
        raise ExplorerError(f"Could not write {out}: {error.strerror}.") from error
    console.print(f"Wrote {out} ({len(data):,} bytes).")


def refuse_unknown(wanted: Collection[str], found: list[RunRecord], root: Path) -> None:
    """Refuse run ids that have no record.

    Raises:
        BadInput: The message names them.
    """
    unknown = {*wanted} - {record.run_id for record in found}
    if unknown:
        raise BadInput(
            f"No record of {', '.join(sorted(unknown))} in {root}. `explorer ls` lists the runs."
        )


def analysed(root: Path, run_ids: list[str], utilisation: float) -> pd.DataFrame:
    """The store's frame with retention and cost, of these runs and the teachers they need."""
    return _analysed(store.records(root)[0], root, run_ids, utilisation)


def _analysed(
    found: list[RunRecord], root: Path, run_ids: list[str], utilisation: float
) -> pd.DataFrame:
    from explorer.analysis import cost, retention
    from explorer.catalogue import prices

    refuse_unknown(run_ids, found, root)
    teachers = {record.teacher_run_id for record in found if record.run_id in run_ids}
    if run_ids:
        found = [r for r in found if r.run_id in {*run_ids, *teachers}]
    runs = store.frame(found)
    answers = {record.run_id: store.answers(root, record.run_id) for record in found}
    runs = retention.add(runs, store.scores(found), answers)
    runs = cost.add(runs, prices.prices_for(runs, root), utilisation=utilisation)
    return runs[runs["run_id"].isin(run_ids)] if run_ids else runs


def print_comparison(root: Path, run_ids: list[str], utilisation: float = UTILISATION) -> None:
    """Print the comparison, the finding in one sentence, and what has no price."""
    from explorer.analysis import advise, cost, interference, retention
    from explorer.report import tables

    found, _ = store.records(root)
    runs = _analysed(found, root, run_ids, utilisation)
    if runs.empty:
        console.print("No finished runs yet. Start some: explorer demo")
        return
    print_frame(tables.without_equal_lengths(tables.comparison(runs)))
    if runs["usd_per_mtok"].notna().any():
        console.print(f"\n{cost.conditions_of(runs)}.", markup=False)
    console.print("\n" + advise.headline(runs), markup=False)
    if warning := retention.over_different_tasks(runs):
        console.print(warning, markup=False)
    if runs["usd_per_hour"].isna().any():
        unpriced = runs.loc[runs["usd_per_hour"].isna(), "device_name"].dropna().unique()
        console.print(
            f"No price is known for {', '.join(map(str, unpriced))}: set one on the page, or with "
            "explorer price.",
            markup=False,
        )
    busy = runs.loc[interference.busy(runs), "run_id"].tolist()
    if busy:
        console.print(interference.advice(busy), markup=False, soft_wrap=True)
    print_effects(found, root, run_ids)


def print_effects(found: list[RunRecord], root: Path, run_ids: list[str]) -> None:
    """Print, for each student that has a control arm in the store, what distillation added."""
    from explorer.analysis import control

    runs, scores = store.frame(found), store.scores(found)
    for run_id in run_ids or list(runs["run_id"]):
        ids = control.needed(runs, run_id)
        answers = {one: store.answers(root, one) for one in ids}
        known = control.effect(runs, scores[scores["run_id"].isin(ids)], answers, run_id)
        if known:
            console.print(f"{run_id}: {known.in_words()}", markup=False, soft_wrap=True)


def print_forecasts(runs: list[RunSpec], root: Path) -> None:
    """Print what each run will take, their sum, and what does not fit.

    Raises:
        NoRoom: One of them cannot be done here; the message says what could.
    """
    from explorer import preflight
    from explorer.analysis import numbers
    from explorer.analysis.estimate import MEASURED

    found = preflight.forecasts(runs, root)
    rows = [
        {
            "Run": one.run_id,
            "Memory": numbers.size(sum(told.memory.values())),
            "Most of it": max(told.memory, key=lambda name: told.memory[name]),
            "Disk": numbers.size(told.disk_bytes),
            "Time": numbers.duration(told.seconds),
            "Cost": numbers.dollars(told.usd),
        }
        for one, told in zip(runs, found, strict=True)
    ]
    print_frame(pd.DataFrame(rows))
    known = [told.seconds for told in found if told.seconds is not None]
    spent = [told.usd for told in found if told.usd is not None]
    total = f"About {numbers.duration(sum(known))}" if known else "Time not known yet"
    console.print(
        f"{total}{f', {numbers.dollars(sum(spent))}' if spent else ''}. Nothing was started.",
        markup=False,
    )
    bases = [told.seconds_basis for told in found]
    if 0 < bases.count(MEASURED) < len(bases):
        verb = "is" if bases.count(MEASURED) == 1 else "are"
        console.print(f"{bases.count(MEASURED)} of the {len(bases)} runs {verb} already measured.")
        bases = [basis for basis in bases if basis != MEASURED]
    for basis in dict.fromkeys(bases):
        console.print(basis, markup=False)
    problems = [told.problem for told in found if told.problem]
    if problems:
        raise NoRoom(" ".join(problems) + " To try all the same: --insist.")
