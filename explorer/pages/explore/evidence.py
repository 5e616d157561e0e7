"""The evidence for a run: a strip under the chart with its facts, scores and times."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from explorer.analysis import baseline, interference, numbers, studies
from explorer.analysis.cost import unit_cost
from explorer.analysis.stats import control_pairs
from explorer.catalogue import api_prices
from explorer.catalogue.prices import Price
from explorer.charts import run_chart
from explorer.pages.explore import how_made, run_dialog
from explorer.pages.shared import (
    chart_element,
    glossary,
    removal,
    run_list,
    submitting,
    text_format,
    widgets,
)
from explorer.records import RunRecord
from explorer.records.rows import row_dicts
from explorer.store import disk, frames

MOST_LISTED = 200
"""Runs in the list; a browser would take seconds for ten thousand."""


def choose_run(runs: pd.DataFrame) -> str | None:
    """The list to pick a run from; returns the id of the picked run.

    It stands above what a choice changes, so that it stays where it is.

    Args:
        runs: With the columns of `retention.add_retention`.
    """
    listed = listed_runs(runs)
    run_id = run_list.run_list(
        "Evidence for", listed, widgets.PICKED, placeholder="Click a point, or choose a run"
    )
    widgets.remember_pick(run_id)
    if len(listed) < len(runs):
        st.caption(
            f"{len(listed):,} of {len(runs):,} runs listed, those that keep most. Click any "
            "point, or write run=ID in the address."
        )
    return run_id


def evidence_strip(
    root: Path, runs: pd.DataFrame, run_id: str, known_prices: dict[str, Price], against: str
) -> None:
    """All evidence for one run, under the chart.

    Args:
        root: The store.
        runs: With the columns of `retention.add_retention` and `unit_cost.add_costs`.
        run_id: One of these runs.
        known_prices: By device name.
        against: What ratios of times compare with: a key of `baseline.CHOICES`.
    """
    own = runs[runs["run_id"] == run_id]
    row = row_dicts(own)[0]
    st.subheader(text_format.md(studies.names_of(own)[0]), anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom", key="strip_head"):
        if st.button("Open the run", icon=":material/open_in_full:", key="explore_open"):
            run_dialog.run_dialog(root, run_id)
        st.page_link(widgets.ANSWERS, label="Read its answers", query_params={"student": run_id})
        label, icon, hint = ("Run it again", "replay", None)
        if row["machine_busy"]:
            label, icon, hint = ("Time it again", "timer", glossary.TERMS["machine_busy"])
        can_run = not widgets.read_only() and row["basis"] == "measured"
        if can_run and st.button(label, icon=f":material/{icon}:", key="explore_again", help=hint):
            submitting.run_again(root, run_id)
        removal.run_menu(root, run_id, place="strip")
    record = widgets.attempt(lambda: disk.load(root, run_id))
    if record is None:
        return
    left, middle, right = st.columns([4, 5, 4], gap="medium")
    with left:
        effect = effect_of(root, run_id)
        api_cost = widgets.attempt(lambda: api_prices.run_usage_message(record, root))
        widgets.facts_list(
            [
                *_facts(record, row, known_prices, _ratios(runs, run_id, against)),
                *([("Distillation", widgets.escape(effect.in_words()))] if effect else []),
                *([("API cost", widgets.escape(api_cost))] if api_cost else []),
                *[("Endpoint", widgets.escape(note)) for note in record.endpoint_notes],
            ]
        )
    with middle:
        _per_task(root, record)
    with right:
        _timing(record)


def listed_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs to choose from, the largest first.

    A browser gets at most `MOST_LISTED`: those that keep most, and the one that is open.

    Args:
        runs: With the columns of `retention.add_retention`.
    """
    is_open = runs["run_id"] == widgets.picked_run()
    ordered = runs.assign(is_open=is_open).sort_values(
        ["is_open", "retention"], ascending=False, kind="stable"
    )
    first = ordered.head(MOST_LISTED)
    return first.sort_values("num_parameters", ascending=False, kind="stable")


def _ratios(runs: pd.DataFrame, run_id: str, against: str) -> dict[str, str]:
    """`, 0.801× the teacher as q4_k_m`, for TPOT and TTFT; empty where it is not known."""
    name = baseline.baseline_name(runs, run_id, against)
    own = runs["run_id"] == run_id
    return {
        column: ""
        if numbers.missing(ratio := baseline.times(runs, column, against)[own].iloc[0])
        else f", {numbers.times(ratio)} {name}"
        for column in baseline.PAIRED
    }


def _facts(
    record: RunRecord,
    row: Mapping[Any, Any],
    known_prices: dict[str, Price],
    ratios: Mapping[str, str],
) -> list[tuple[str, str]]:
    """Names and values in HTML: the model, how it was made, its cost, where and when."""
    model = record.model
    pairs = [
        (
            "Kept",
            _cell(
                numbers.percent(row["retention"], row["retention_low"], row["retention_high"]),
                row["excluded_tasks"],
            ),
        ),
        ("Raw ratio", numbers.percent(row["raw_ratio"], row["raw_low"], row["raw_high"])),
    ]
    if model:
        pairs += [
            ("Model", widgets.escape(f"{model.architecture}, {model.num_layers} layers")),
            (
                "Parameters",
                f"{numbers.parameters(model.num_parameters)}, "
                f"{numbers.size(model.weight_bytes)} as {widgets.escape(model.dtype)}",
            ),
        ]
    pairs.append(("Made", widgets.escape(how_made.how_made(record))))
    if row["machine_busy"]:
        pairs.append(
            (
                "Timing",
                f'<span class="worse">{interference.MARK}</span>: no conclusion uses the times, '
                "memory and cost below",
            )
        )
    pairs += [
        ("TPOT", numbers.milliseconds(row["tpot_ms"]) + ratios["tpot_ms"]),
        ("TTFT", numbers.milliseconds(row["ttft_ms"]) + ratios["ttft_ms"]),
        ("Memory", f"{numbers.size(row['peak_memory_bytes'])} at most"),
    ]
    price = known_prices.get(record.device_name or "")
    if price:
        source = html.escape(price.in_words(), quote=True)
        lengths = unit_cost.lengths_text(row["prompt_tokens"], row["output_tokens"])
        costs = (
            f"{numbers.dollars(row['usd_per_mtok'])} per million output tokens "
            f"{unit_cost.utilisation_text(row['utilisation'])} ({lengths}), "
            f"{numbers.dollars(row['usd_per_hour_at_load'])} per hour at the teacher's load"
        )
        rate = numbers.dollars(price.usd_per_hour)
        pairs.append(
            (
                "Cost",
                f'<span title="{source}">{costs}</span><br>'
                f'<span class="quiet">{rate} per hour: {source}</span>',
            )
        )
    else:
        pairs.append(("Cost", _cell(numbers.MISSING, "This device has no price yet.")))
    return [
        *pairs,
        ("Device", widgets.escape(record.device_name or "unknown")),
        ("Date", widgets.relative_time(record.finished_at)),
    ]


def _cell(value: str, reason: str) -> str:
    """A value with its reason on hover."""
    return f'<span title="{html.escape(reason, quote=True)}">{value}</span>' if reason else value


def _per_task(root: Path, record: RunRecord) -> None:
    st.markdown("**Score by task**", help=glossary.TERMS["chance"])
    if record.teacher_run_id is None:
        _own_scores(record)
        return
    with widgets.errors_shown():
        bars = run_chart.per_task_bars(
            tasks_of(root, record.run_id, record.teacher_run_id), template=widgets.template()
        )
        chart_element.draw(bars, key="strip_tasks", alt="Scores of student and teacher by task")


def _own_scores(record: RunRecord) -> None:
    """Scores of a run without a teacher to compare with."""
    frame = frames.scores([record])
    own = frame[frame["headline"]]
    if own.empty:
        st.caption("Not evaluated.")
        return
    st.dataframe(
        own[["task", "score", "chance", "num_documents"]],
        hide_index=True,
        column_config={
            "task": "Task",
            "score": st.column_config.NumberColumn("Score", format="%.3f"),
            "chance": st.column_config.NumberColumn("Chance", format="%.3f"),
            "num_documents": "Documents",
        },
    )


def tasks_of(root: Path, run_id: str, teacher_run_id: str) -> pd.DataFrame:
    """`retention.per_task` of a run and its teacher's run, computed once per record."""
    versions = widgets.load(root).versions
    return _tasks_cached(
        root, run_id, teacher_run_id, versions.get(run_id, ""), versions.get(teacher_run_id, "")
    )


@st.cache_data(show_spinner=False, max_entries=500)
def _tasks_cached(
    root: Path, run_id: str, teacher_run_id: str, version: str, teacher_version: str
) -> pd.DataFrame:
    """Computed once; the versions only make the cache key change with the records."""
    return widgets.index(root).tasks_of(run_id, teacher_run_id)


def effect_of(root: Path, run_id: str) -> control_pairs.DistillationEffect | None:
    """What distillation added to a student; None if its control arm is not in the store."""
    snapshot = widgets.load(root)
    run_ids = control_pairs.runs_compared(snapshot.runs, run_id)
    return _effect_cached(root, run_id, {each: snapshot.versions.get(each, "") for each in run_ids})


@st.cache_data(show_spinner=False, max_entries=500)
def _effect_cached(
    root: Path, run_id: str, versions: dict[str, str]
) -> control_pairs.DistillationEffect | None:
    """Computed once; the versions only make the cache key change with the records."""
    return widgets.index(root).effects([run_id]).get(run_id)


def _timing(record: RunRecord) -> None:
    st.markdown("**Time per output token**", help=glossary.TERMS["tpot"])
    if record.latency is None:
        st.caption("Not timed.")
        return
    teacher = record.latency.teacher
    if record.imported and record.imported.timing:
        source = record.imported.timing
        st.caption(
            text_format.md(f"Imported from {source.tool} on {source.device_name}: {source.load}.")
        )
    if not record.latency.own.turns:
        st.caption("The file has medians only, so there is no histogram.")
        return
    chart_element.draw(
        run_chart.latency_histogram(
            frames.turns(record.latency.own),
            frames.turns(teacher) if teacher else None,
            was_busy=record.latency.was_busy,
            template=widgets.template(),
        ),
        key="strip_timing",
        alt="Histogram of the time per output token of all timed answers",
    )
    own = record.latency.own
    answers = text_format.plural(len(own.turns), "answer") + (" each" if teacher else "")
    prompt = "" if own.prompt_tokens is None else f", prompt {own.prompt_tokens} tokens"
    turns = "; student and teacher took turns" if teacher else ""
    st.caption(f"{answers}, batch {own.batch_size}{prompt}{turns}.")
    if record.latency.warning:
        st.caption(f":orange[{text_format.md(record.latency.warning)}]")
