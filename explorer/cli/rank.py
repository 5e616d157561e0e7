"""Models in order, by task, and where their time goes: rank."""

import json
from typing import Annotated

import pandas as pd
import typer

from explorer.analysis.cost.unit_cost import UTILISATION
from explorer.cli.common import AsJson, ResultsDir, Wide, app, console, root_of
from explorer.cli.tables import analysed_runs, named_runs, open_index, print_table
from explorer.errors import BadInput
from explorer.index import StoreIndex

VIEWS = ("capability", "task", "time")


@app.command()
def rank(
    run_ids: Annotated[
        list[str] | None, typer.Argument(help="Runs to rank, all by default; a unique beginning.")
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="capability (what each model keeps), task (the same for each task) or time "
            "(prefill and decode of a request)."
        ),
    ] = "capability",
    task: Annotated[str | None, typer.Option(help="Rank by this task only.")] = None,
    results: ResultsDir = None,
    as_json: AsJson = False,
    wide: Wide = False,
) -> None:
    """Rank models, and say which of them can't be told apart.

    The same as the views Ranking, By task and Where the time goes on the Explore page.
    """
    if by not in VIEWS:
        raise BadInput(f"--by must be one of {', '.join(VIEWS)}, got {by!r}.")
    root = root_of(results)
    runs = analysed_runs(root, named_runs(root, run_ids or []), UTILISATION)
    index = open_index(root)
    if task is not None:
        if task not in index.tasks():
            raise BadInput(
                f"No run was evaluated on {task!r}. Choose {', '.join(index.tasks()) or 'none'}."
            )
        runs = index.with_retention(runs, task)
    cells, said, left_out, facts = _view(by, index, runs, task)
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    print_table(cells, identifying=["Model"], wide=wide)
    console.print()
    for sentence in said:
        console.print(sentence, markup=False)
    if left_out:
        console.print(f"Not shown: {'; '.join(left_out)}.", markup=False)


def _view(
    by: str, index: StoreIndex, runs: pd.DataFrame, task: str | None
) -> tuple[pd.DataFrame, list[str], list[str], dict[str, object]]:
    """A view's table, its sentences, what it leaves out, and all of it as JSON values."""
    from explorer.analysis import ranking, request_time, task_retention
    from explorer.analysis.pick import candidates
    from explorer.index import by_task
    from explorer.records.rows import row_dicts

    runs = runs[runs["method"].ne(candidates.CONTROL)]
    if by == "time":
        times = request_time.request_times(runs)
        return (
            request_time.table(times),
            request_time.sentences(times),
            request_time.left_out_lines(times),
            request_time.as_json(times),
        )
    best = ranking.best_of(runs)
    if by == "task":
        students = best[best["role"] != "teacher"]
        cells = by_task.retention_by_task(index, students)
        said = task_retention.sentences(cells, set(students["run_id"]))
        names = ranking.unique_names(students).set_axis(students["run_id"])
        facts = {"cells": row_dicts(cells), "sentences": said}
        return task_retention.table(cells, names), said, [], facts
    ranked = ranking.rank(runs, index.draws(best, task))
    return (
        ranking.table(ranked),
        ranking.sentences(ranked),
        ranking.left_out_lines(ranked),
        ranking.as_json(ranked),
    )
