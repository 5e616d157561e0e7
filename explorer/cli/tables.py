"""Tables in the terminal."""

from pathlib import Path

import pandas as pd
from rich.table import Table

from explorer import store
from explorer.cli.base import console, wide_console
from explorer.errors import BadInput


def analysed(root: Path, run_ids: list[str], utilisation: float) -> pd.DataFrame:
    """The store's frame with retention and cost, of these runs and the teachers they need."""
    from explorer.analysis import cost, retention
    from explorer.catalogue import prices

    found, _ = store.records(root)
    unknown = set(run_ids) - {record.run_id for record in found}
    if unknown:
        raise BadInput(
            f"No record of {', '.join(sorted(unknown))} in {root}. `explorer ls` lists the runs."
        )
    teachers = {record.teacher_run_id for record in found if record.run_id in run_ids}
    if run_ids:
        found = [r for r in found if r.run_id in {*run_ids, *teachers}]
    runs = store.frame(found)
    answers = {record.run_id: store.answers(root, record.run_id) for record in found}
    runs = retention.add(runs, store.scores(found), answers)
    runs = cost.add(runs, prices.prices_for(runs, root), utilisation=utilisation)
    return runs[runs["run_id"].isin(run_ids)] if run_ids else runs


def print_comparison(root: Path, run_ids: list[str], utilisation: float = 1.0) -> None:
    """Print the comparison, the finding in one sentence, and what has no price."""
    from explorer.analysis import advise
    from explorer.report import tables

    runs = analysed(root, run_ids, utilisation)
    if runs.empty:
        console.print("No finished runs yet. Start some: explorer demo")
        return
    frame = tables.comparison(runs)
    table = Table(*[str(column) for column in frame.columns], box=None)
    for row in frame.itertuples(index=False):
        table.add_row(*[str(cell) for cell in row])
    wide_console().print(table, markup=False)
    console.print("\n" + advise.headline(runs), markup=False)
    if runs["usd_per_hour"].isna().any():
        unpriced = runs.loc[runs["usd_per_hour"].isna(), "device_name"].dropna().unique()
        console.print(
            f"No price is known for {', '.join(map(str, unpriced))}: set one on the page, or with "
            "explorer price.",
            markup=False,
        )
    print_effects(root, run_ids)


def print_effects(root: Path, run_ids: list[str]) -> None:
    """Print, for each student that has a control arm in the store, what distillation added."""
    from explorer.analysis import control

    found, _ = store.records(root)
    runs, scores = store.frame(found), store.scores(found)
    for run_id in run_ids or list(runs["run_id"]):
        both = pd.concat(control.members(runs, run_id))
        ids = {*both["run_id"], *both["teacher_run_id"].dropna()}
        answers = {one: store.answers(root, one) for one in ids}
        known = control.effect(runs, scores[scores["run_id"].isin(ids)], answers, run_id)
        if known:
            console.print(f"{run_id}: {known.in_words()}", markup=False, soft_wrap=True)
