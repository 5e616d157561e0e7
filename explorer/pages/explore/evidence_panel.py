"""Beside the chart: the evidence for the clicked run in short, and why it is not the pick."""

import html
from pathlib import Path

import pandas as pd
import streamlit as st

from explorer.analysis import baseline, numbers
from explorer.analysis.cost import unit_cost
from explorer.analysis.pick import candidates, sentences
from explorer.analysis.pick.decide import Decision
from explorer.pages.explore import evidence
from explorer.pages.shared import text_format, widgets
from explorer.records.rows import row_dicts

WIDEST = 110
"""Percent of the teacher at the right end of a bar."""


def evidence_panel(
    root: Path,
    runs: pd.DataFrame,
    run_id: str,
    decided: Decision | None,
    against: str,
) -> None:
    """Draw the panel of one run.

    Args:
        root: The store.
        runs: With the columns of `retention.add_retention` and `unit_cost.add_costs`.
        run_id: One of these runs.
        decided: The decision, if there is one.
        against: What ratios compare with: a key of `baseline.CHOICES`.
    """
    row = row_dicts(runs[runs["run_id"] == run_id])[0]
    if decided is not None:
        st.caption(text_format.md(_standing(decided, run_id)))
    ratio = baseline.times(runs, "tpot_ms", against)[runs["run_id"] == run_id].iloc[0]
    than = f", {numbers.times(ratio)} {baseline.baseline_name(runs, run_id, against)}"
    busy = unit_cost.utilisation_text(row["utilisation"])
    widgets.facts_list(
        [
            (
                "Keeps",
                numbers.percent(row["retention"], row["retention_low"], row["retention_high"]),
            ),
            (
                "TPOT",
                numbers.milliseconds(row["tpot_ms"])
                + ("" if numbers.missing(ratio) else widgets.escape(than)),
            ),
            ("Cost", f"{numbers.dollars(row['usd_per_mtok'])} per 1M output {busy}"),
            ("Weights", numbers.size(row["weight_bytes"])),
        ]
    )
    if row["role"] != "teacher" and row["teacher_run_id"]:
        tasks = widgets.attempt(lambda: evidence.tasks_of(root, run_id, row["teacher_run_id"]))
        if tasks is not None and not tasks.empty:
            st.html(task_bars(tasks))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        ids = [run_id] if row["teacher_run_id"] is None else [row["teacher_run_id"], run_id]
        st.page_link(
            widgets.COMPARE, label="Compare", query_params=[("runs", each) for each in ids]
        )
        st.button("Back to the pick", key="explore_unpick", on_click=_forget, type="tertiary")


def _forget() -> None:
    widgets.pick_run(None)


def _standing(decided: Decision, run_id: str) -> str:
    """Whether the run may be picked, and if not, what removed it."""
    if decided.pick is not None and decided.pick["run_id"] == run_id:
        return "The pick."
    reasons = [name for name, run_ids in decided.removed.items() if run_id in run_ids]
    texts = [
        candidates.REASONS.get(name) or f"by {sentences.limit_text(name, decided.limits)}"
        for name in reasons
    ]
    if texts:
        return f"Removed: {'; '.join(texts)}."
    return f"Meets every limit; place {decided.fitting.index(run_id) + 1} by the objective."


def task_bars(tasks: pd.DataFrame) -> str:
    """A small bar for each task as HTML: from chance on the left to the teacher's mark.

    Args:
        tasks: As from `retention.per_task`.
    """
    lines = []
    for row in row_dicts(tasks):
        kept = numbers.percent(row["retention"], row["low"], row["high"], digits=2)
        text = kept if row["used"] else f"{numbers.MISSING} {row['reason'] or 'does not count'}"
        share = 0.0 if numbers.missing(row["retention"]) else 100 * row["retention"]
        wide = max(0.0, min(share, WIDEST)) / WIDEST * 100
        title = html.escape(f"{row['task']}: {text}", quote=True)
        short = numbers.percent(row["retention"], digits=2) if row["used"] else numbers.MISSING
        lines.append(
            f'<div title="{title}"><span>{html.escape(str(row["task"]))}</span>'
            f'<span class="bar"><i style="width:{wide:.1f}%"></i>'
            f'<u style="left:{100 / WIDEST * 100:.1f}%"></u></span><span>{short}</span></div>'
        )
    return (
        f'<div class="bars" role="group" aria-label="Retention by task">{"".join(lines)}</div>'
        '<p class="quiet">Bars begin at chance; the line is the teacher.</p>'
    )
