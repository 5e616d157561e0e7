"""The chart of the runs, and three more views: ranking, by task, and where the time goes."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from explorer.analysis import ranking, request_time, task_retention
from explorer.analysis.pick.limits import Limits
from explorer.catalogue.prices import Price
from explorer.charts import ranking_chart, task_heat_map, time_chart
from explorer.index import StoreIndex, by_task
from explorer.pages.explore import axes, chart, filters, overlays, removed
from explorer.pages.explore.comparison import Comparison
from explorer.pages.explore.needs import Needs
from explorer.pages.shared import chart_element, pricing, text_format, widgets

CHART, RANKING, TASKS, TIME = "chart", "ranking", "tasks", "time"
VIEWS = {
    CHART: "Chart",
    RANKING: "Ranking",
    TASKS: "By task",
    TIME: "Where the time goes",
}
"""Views by key; the address has the names."""


def choose_view() -> str:
    """The control that switches between the views."""
    view = st.segmented_control(
        "View",
        list(VIEWS),
        default=CHART,
        required=True,
        format_func=lambda key: VIEWS[key],
        key="view",
        bind="query-params",
        label_visibility="collapsed",
        wrap=True,
    )
    return str(view)


@st.fragment(key=axes.FRAGMENT)
def draw(
    root: Path,
    index: StoreIndex,
    view: str,
    found: Comparison,
    asked: Needs,
    task: str | None,
    known_prices: dict[str, Price],
    *,
    control_arms: bool,
) -> None:
    """Draw one of the views: the part of the page that is drawn again when an axis changes.

    Args:
        root: The store.
        index: Its index.
        view: A key of `VIEWS`.
        found: The runs and the decision.
        asked: The limits; drawn as lines.
        task: The only task that counts; None for all.
        known_prices: Device name to its price.
        control_arms: Whether control arms are shown; if not, only as what a limit removed.
    """
    runs, decided, shown = found.runs, found.decided, axes.chosen()
    if runs.empty:
        st.info("No finished run matches the filters. Change them in the sidebar.")
        return
    if view == CHART and "usd" in shown.x and runs[shown.x].isna().all():
        pricing.missing_prices(root, runs, known_prices)
        return
    hidden = set() if control_arms else filters.controls(runs) - removed.highlighted(decided)
    drawn = runs[~runs["run_id"].isin(hidden)]
    if view == CHART:
        chart.draw_chart(index, drawn, task, shown, asked, decided, found.finding)
    elif view == RANKING:
        _ranking(index, drawn, task, asked.limits, found.picked)
    elif view == TASKS:
        _tasks(index, drawn)
    else:
        _time(drawn, asked.limits)


def _ranking(
    index: StoreIndex, runs: pd.DataFrame, task: str | None, limits: Limits, picked: str | None
) -> None:
    ranked = ranking.rank(runs, index.draws(ranking.best_of(runs), task))
    said = ranking.sentences(ranked)
    _say(said)
    chart_element.draw(
        ranking_chart.ranking_chart(
            ranked,
            template=widgets.template(),
            target=limits.min_retention,
            selected=widgets.picked_run(),
            picked=picked,
        ),
        "explore_ranking",
        " ".join(said),
        on_pick=overlays.pick_run,
    )
    st.caption(
        "A bracket joins models that can't be told apart: in fewer than 97.5 % of the paired draws "
        "one of them keeps more. In the shell: `explorer rank`."
    )
    _left_out(ranking.left_out_lines(ranked))


def _tasks(index: StoreIndex, runs: pd.DataFrame) -> None:
    best = ranking.best_of(runs)
    students = best[best["role"] != "teacher"]
    cells = by_task.retention_by_task(index, students)
    names = ranking.unique_names(students).set_axis(students["run_id"])
    said = task_retention.sentences(cells, set(students["run_id"]))
    _say(said)
    chart_element.draw(
        task_heat_map.task_heat_map(cells, names, template=widgets.template()),
        "explore_tasks",
        " ".join(said),
    )
    st.caption(
        "Retention above chance; hover for its 95 % interval. In the shell: "
        "`explorer rank --by task`."
    )


def _time(runs: pd.DataFrame, limits: Limits) -> None:
    times = request_time.request_times(runs)
    said = request_time.sentences(times)
    _say(said)
    chart_element.draw(
        time_chart.time_chart(times, template=widgets.template(), limit_ms=limits.max_latency_ms),
        "explore_time",
        " ".join(said),
        on_pick=overlays.pick_run,
    )
    where = f"Medians, one device: {times.device}. " if times.device else ""
    st.caption(f"{text_format.md(where)}In the shell: `explorer rank --by time`.")
    _left_out(request_time.left_out_lines(times))


def _say(sentences: Sequence[str]) -> None:
    """The finding of a view: the first sentence is the strongest."""
    st.markdown(f"**{text_format.md(sentences[0])}** {text_format.md(' '.join(sentences[1:]))}")


def _left_out(lines: Sequence[str]) -> None:
    if lines:
        st.caption(text_format.md(f"Not shown: {'; '.join(lines)}."))
