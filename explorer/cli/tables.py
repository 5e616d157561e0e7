"""Tables in the terminal, or as files."""

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.cells import cell_len
from rich.text import Text

from explorer.analysis import numbers
from explorer.analysis.cost.unit_cost import UTILISATION
from explorer.cli.common import console, err_console, output_width
from explorer.errors import BadInput, DamagedStore, ExplorerError
from explorer.index import StoreIndex, index_of
from explorer.specs import RunSpec
from explorer.store import disk, trash

Format = Annotated[
    str,
    typer.Option("--format", "-f", help="table, or csv, xlsx, parquet, md, latex, json."),
]


NAMES_SHARE = 0.6
"""Share of a line that names may take; a few longer ones may run past it."""
GAP = 2
"""Spaces between two columns."""
MANY_RUNS = 500
"""From here on a line says how far reading them is."""
PAGE_ROWS = 50
"""Runs that a table shows unless more are asked for."""


def print_or_write(
    raw: pd.DataFrame,
    cells: pd.DataFrame,
    format: str,
    out: Path | None,
    *,
    identifying: Collection[str],
    importance: Sequence[str] = (),
    wide: bool = False,
) -> None:
    """Print a table, or write it as a file or to standard output.

    Args:
        raw: What a file gets: numbers, with units in the column names.
        cells: What the terminal gets: text.
        format: `table`, or a format of `export.write_table`.
        out: The file; None is standard output.
        identifying: As in `print_table`.
        importance: As in `print_table`.
        wide: As in `print_table`.

    Raises:
        BadInput: An unknown format.
        ExplorerError: The file cannot be written.
    """
    from explorer.charts import export

    if format == "table":
        print_table(cells, identifying=identifying, importance=importance, wide=wide)
    else:
        write_out(export.write_table(raw, cells, format), out)


def print_table(
    cells: pd.DataFrame,
    *,
    identifying: Collection[str],
    importance: Sequence[str] = (),
    wide: bool = False,
    note: bool = True,
) -> list[str]:
    """Print one line per row; no cell is cut short or wrapped.

    A terminal that is too narrow gets fewer columns: empty ones go first, then the least
    important. Standard error names them. A file or a pipe gets all columns.

    Args:
        cells: Text in every cell.
        identifying: Columns that identify a row, such as names and ids; they always stay.
        importance: Other columns, the most important first; the rest follow in their order.
        wide: Print every column, whatever the width.
        note: Whether to say which columns were left out.

    Returns:
        The columns that were left out.
    """
    columns = {
        str(name): [_one_line(cell) for cell in cells.iloc[:, number]]
        for number, name in enumerate(cells.columns)
    }
    widths = {name: max(map(cell_len, [name, *texts])) for name, texts in columns.items()}
    shown = set(columns)
    if not wide and (width := output_width()) is not None:
        for name in identifying:
            widths[name] = _aligned(map(cell_len, [name, *columns[name]]), width)
        ordered = [*(name for name in importance if name in columns), *columns]
        ordered.sort(key=lambda name: set(columns[name]) <= {numbers.MISSING, ""})
        shown = _fitting(widths, identifying, ordered, width)
    lines = [
        "".join(
            cell + " " * (max(widths[name] - cell_len(cell), 0) + GAP)
            for name, cell in zip(columns, row, strict=True)
            if name in shown
        ).rstrip()
        for row in [tuple(columns), *zip(*columns.values(), strict=True)]
    ]
    for number, line in enumerate(lines):
        console.print(Text(line, "" if number else "bold"), soft_wrap=True)
    left_out = [name for name in columns if name not in shown]
    if note:
        say_left_out(left_out)
    return left_out


def say_left_out(columns: Collection[str]) -> None:
    """Name the columns that a narrow terminal had no room for, if any."""
    if columns:
        names = ", ".join(dict.fromkeys(columns))
        text = f"Columns left out to fit the width: {names}. --wide shows all."
        err_console.print(text, markup=False, highlight=False)


def print_facts(facts: Mapping[str, str], *, width: int = 0) -> None:
    """Print one line per fact, its name first; no line is cut short or wrapped.

    Args:
        facts: Name to value.
        width: Width of the names at least.
    """
    width = max(width, max(map(cell_len, facts), default=0) + GAP)
    for name, value in facts.items():
        padded = name + " " * (width - cell_len(name))
        console.print(Text(f"{padded}{_one_line(value)}"), soft_wrap=True)


def _fitting(
    widths: Mapping[str, int], identifying: Collection[str], ordered: Sequence[str], width: int
) -> set[str]:
    """The columns that fit beside each other, chosen by importance."""
    shown = {name for name in widths if name in identifying}
    for name in ordered:
        wanted = shown | {name}
        if sum(widths[column] for column in wanted) + GAP * (len(wanted) - 1) <= width:
            shown = wanted
    return shown


def _aligned(lengths: Iterable[int], width: int) -> int:
    """Width of a column of names of these lengths.

    The longest name decides. If a few names exceed their share of the line, the longest of the
    others decides instead, and only the lines of those few run past the columns.
    """
    ordered = sorted(lengths)
    usual = [length for length in ordered if length <= NAMES_SHARE * width]
    return usual[-1] if 2 * len(usual) >= len(ordered) else ordered[-1]


def _one_line(cell: object) -> str:
    return " ".join(str(cell).split())


def write_out(data: bytes, out: Path | None) -> None:
    """Write bytes to a file, or to standard output if `out` is None.

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


def named_runs(root: Path, texts: Sequence[str]) -> list[str]:
    """The ids of the runs that these ids, or unique beginnings of ids, name; each once.

    Raises:
        BadInput: One of them matches no run, or several.
    """
    return list(dict.fromkeys(disk.resolve_run_id(root, text) for text in texts))


def open_index(root: Path) -> StoreIndex:
    """Bring the store's index up to date; a line shows the progress if there are many runs."""
    index = index_of(root)
    index.update(on_progress=progress_line("Reading runs"))
    return index


def progress_line(title: str) -> Callable[[int, int], None]:
    """A function that rewrites one line of a terminal's standard error: `title: 200 of 10,000`."""

    def show(done: int, total: int) -> None:
        if total >= MANY_RUNS and sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r{title}: {done:,} of {total:,}", end=end, file=sys.stderr, flush=True)

    return show


def refuse_unknown(run_ids: Collection[str], index: StoreIndex) -> None:
    """Refuse run ids that have no record.

    Raises:
        BadInput: The message names them.
    """
    unknown = {*run_ids} - set(index.runs(run_ids)["run_id"])
    if unknown:
        raise BadInput(
            f"No record of {', '.join(sorted(unknown))} in {index.root}. `explorer ls` lists the "
            "runs."
        )


def analysed_runs(root: Path, run_ids: list[str], utilisation: float) -> pd.DataFrame:
    """Frame of these runs, or of all that are not hidden, with retention and cost."""
    return _with_results(open_index(root), run_ids, utilisation)


def _with_results(index: StoreIndex, run_ids: list[str], utilisation: float) -> pd.DataFrame:
    from explorer.analysis.cost import unit_cost
    from explorer.catalogue import prices

    refuse_unknown(run_ids, index)
    runs = index.runs(run_ids or None)
    if run_ids:
        teachers = set(runs["teacher_run_id"].dropna())
        runs = index.runs({*run_ids, *teachers})
    runs = index.with_retention(runs, on_progress=progress_line("Computing retention"))
    runs = unit_cost.add_costs(runs, prices.prices_for(runs, index.root), utilisation=utilisation)
    if run_ids:
        return runs[runs["run_id"].isin(run_ids)]
    return runs[~runs["run_id"].isin(hidden_runs(index.root))]


def hidden_runs(root: Path) -> frozenset[str]:
    """The runs that tables leave out unless named; none if the list of hidden runs is damaged."""
    try:
        return trash.hidden_run_ids(root)
    except DamagedStore as error:
        print(error, file=sys.stderr)
        return frozenset()


def print_comparison(
    root: Path, run_ids: list[str], utilisation: float = UTILISATION, *, wide: bool = False
) -> None:
    """Print the comparison, the finding in one sentence, and devices without a price."""
    from explorer.analysis import headline, interference
    from explorer.analysis.cost import unit_cost
    from explorer.analysis.pick.limits import CONFIDENCE
    from explorer.analysis.stats import retention
    from explorer.analysis.tables import run_table
    from explorer.index import keeping

    index = open_index(root)
    runs = _with_results(index, run_ids, utilisation)
    if runs.empty:
        console.print("No finished runs yet. Start with: explorer demo")
        return
    shown = runs
    if not run_ids and len(runs) > PAGE_ROWS:
        latest = runs["finished_at"].sort_values(kind="stable").index[-PAGE_ROWS:]
        shown = runs[runs.index.isin(latest)]
    cells = run_table.without_equal_lengths(run_table.comparison_table(shown))
    cells["Run"] = shown["run_id"]
    print_table(
        cells,
        identifying=["Model"],
        wide=wide,
        importance=[
            "Retention [95 %]",
            "TPOT (ms)",
            "Latency vs teacher",
            unit_cost.heading_of(runs),
            "Parameters",
            "Layers",
            "TTFT (ms)",
            "Memory",
            "Run",
        ],
    )
    if len(shown) < len(runs):
        console.print(
            f"The latest {len(shown):,} of {len(runs):,} runs. Name runs to compare others; "
            "explorer export writes all."
        )
    if runs["usd_per_mtok"].notna().any():
        console.print(f"\n{unit_cost.conditions_text(runs)}.", markup=False)
    finding = keeping.finding(index, runs, headline.TARGET_RETENTION, CONFIDENCE)
    console.print(f"\n{finding}", markup=False)
    if warning := retention.over_different_tasks(shown):
        console.print(warning, markup=False)
    unpriced = runs.loc[runs["usd_per_hour"].isna(), "device_name"].dropna().unique()
    if len(unpriced):
        console.print(
            f"No price is known for {', '.join(map(str, unpriced))}. Set one on the page, or with "
            "explorer price.",
            markup=False,
        )
    busy = shown.loc[interference.was_busy(shown), "run_id"].tolist()
    if busy:
        console.print(interference.retiming_advice(busy), markup=False, soft_wrap=True)
    print_effects(index, list(shown["run_id"]))


def print_effects(index: StoreIndex, run_ids: Collection[str]) -> None:
    """Print what distillation added, for each student with a control arm in the store."""
    for run_id, effect in index.effects(run_ids).items():
        console.print(f"{run_id}: {effect.in_words()}", markup=False)


def print_forecasts(runs: list[RunSpec], root: Path, *, wide: bool = False) -> None:
    """Print the memory, time and cost of each run, and their sum."""
    from explorer.analysis.planning.run_time import NOTHING_TO_RUN
    from explorer.pipeline.forecast import forecasts

    planned = forecasts(runs, root)
    rows = [
        {
            "Run": run.run_id,
            "Memory": numbers.size(sum(forecast.memory.values())),
            "Most of it": max(forecast.memory, key=lambda name: forecast.memory[name]),
            "Disk": numbers.size(forecast.disk_bytes),
            "Time": numbers.duration(forecast.seconds),
            "Cost": numbers.dollars(forecast.usd),
        }
        for run, forecast in zip(runs, planned, strict=True)
    ]
    print_table(
        pd.DataFrame(rows),
        identifying=["Run"],
        importance=["Time", "Memory", "Cost", "Disk"],
        wide=wide,
    )
    seconds = [forecast.seconds for forecast in planned if forecast.seconds is not None]
    costs = [forecast.usd for forecast in planned if forecast.usd is not None]
    total = f"About {numbers.duration(sum(seconds))}" if seconds else "Time not known yet"
    console.print(
        f"{total}{f', {numbers.dollars(sum(costs))}' if costs else ''}. Nothing was started.",
        markup=False,
    )
    bases = [forecast.seconds_basis for forecast in planned]
    if 0 < bases.count(NOTHING_TO_RUN) < len(bases):
        verb = "is" if bases.count(NOTHING_TO_RUN) == 1 else "are"
        console.print(
            f"{bases.count(NOTHING_TO_RUN)} of the {len(bases)} runs {verb} already measured."
        )
        bases = [basis for basis in bases if basis != NOTHING_TO_RUN]
    for basis in dict.fromkeys(bases):
        console.print(basis, markup=False)
