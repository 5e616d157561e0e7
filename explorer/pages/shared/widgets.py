"""What all pages do alike: find the store, read it, show an error, mind read-only."""

import html
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from explorer import paths
from explorer.charts import theme
from explorer.errors import ExplorerError
from explorer.pages.dashboard import navigation
from explorer.pages.shared import text_format
from explorer.pages.shared.store_cache import Index, Shelf

T = TypeVar("T")

PICKED = "run"
"""The picked run, in the session and in the page's address."""
EXPLORE, RUN, COMPARE, ANSWERS, TASKS = (
    str(navigation.script(name)) for name in ("explore", "run", "compare", "answers", "tasks")
)

STYLE = """<style>
.stMainBlockContainer {padding-top: 4.2rem; padding-bottom: 3rem; max-width: 1600px;}
.finding {font-size: 1.45rem; line-height: 1.35; font-weight: 600; margin: 0; max-width: 62rem;
  text-wrap: pretty;}
.st-key-ruler {position: absolute;}
.quiet {opacity: .68; font-size: .84rem;}
.facts {display: grid; grid-template-columns: max-content 1fr; gap: .2rem .9rem;
  margin: 0 !important; padding: 0 !important; font-size: .92rem;}
.facts dt {opacity: .68; font-weight: 400;}
.facts dd {margin: 0; overflow-wrap: anywhere;}
.order {font-size: 1.02rem; line-height: 1.6; margin: 0 0 .6rem;}
.order b {font-size: 1.35rem; font-weight: 600;}
p.quiet {margin: 0;}
.scroll {overflow-x: auto;}
.scroll:focus-visible {outline: 2px solid currentColor;}
.results {border-collapse: collapse; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums;}
.results th, .results td {padding: .42rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid color-mix(in srgb, currentColor 14%, transparent);}
.results th:first-child, .results td:first-child {text-align: left; padding-left: .2rem;}
.results thead th {font-weight: 500; opacity: .72; vertical-align: bottom;}
.results thead tr:last-child th {white-space: normal; text-wrap: balance;}
.results thead th .long {display: inline-block; min-width: 8.5em;}
.results thead tr.groups th {text-align: left; font-weight: 600; opacity: 1; border-bottom: none;
  padding-top: .2rem;}
.results .first {border-left: 1px solid color-mix(in srgb, currentColor 14%, transparent);}
.results tr.teacher td {background: color-mix(in srgb, currentColor 6%, transparent);
  font-weight: 500;}
.results small {opacity: .62; font-size: .78rem; font-weight: 400;}
.results .better, .better {color: light-dark(#00734f, #2fc79d);}
.results .worse, .worse {color: light-dark(#b34700, #f0904f);}
.results .inconclusive {opacity: .68;}
.results .busy {color: color-mix(in srgb, currentColor 58%, transparent); font-style: italic;}
.layers {display: flex; flex-wrap: wrap; gap: 3px;}
.layer {width: 2rem; height: 2rem; line-height: 2rem; text-align: center; font-size: .75rem;
  border-radius: 4px; opacity: .6;
  border: 1px solid color-mix(in srgb, currentColor 25%, transparent);}
.layer.kept {background: #0072B2; border-color: #0072B2; color: #fff; opacity: 1;}
.st-key-strip_head [data-testid="stPageLink"] a {min-height: 2.5rem; margin: -.125rem 0 .375rem;}
.spark {display: block; width: 100%; height: 34px;}
@media (max-width: 640px) {
  .finding {font-size: 1.15rem;}
  .stMainBlockContainer {padding-left: 1rem; padding-right: 1rem;}
}
</style>"""


def results_dir() -> Path:
    """The store that this dashboard shows."""
    return paths.store_root()


def read_only() -> bool:
    """Whether actions are hidden: `EXPLORER_READ_ONLY=1`."""
    return os.environ.get("EXPLORER_READ_ONLY") == "1"


def style() -> None:
    """The few rules that Streamlit's theme has no setting for."""
    st.html(STYLE)


@st.cache_resource(show_spinner=False, max_entries=8)
def index(root: Path) -> Index:
    """The incremental reader of a store, one for all sessions."""
    return Index(root)


def load(root: Path) -> Shelf:
    """The store's frames as they are now."""
    return index(root).shelf()


def listed(shelf: Shelf) -> pd.DataFrame:
    """The runs that pages offer: all but the hidden ones that the page's address does not name."""
    named = {value for key in st.query_params for value in st.query_params.get_all(key)}
    return shelf.runs[~shelf.runs["run_id"].isin(shelf.hidden - named)]


def load_runs(root: Path) -> pd.DataFrame:
    """A row a run, as `frames.runs`."""
    return load(root).runs


@contextmanager
def errors_shown() -> Iterator[None]:
    """An `ExplorerError` becomes one red line; anything else is a bug and stays one."""
    try:
        yield
    except ExplorerError as error:
        st.error(text_format.md(str(error)), icon=":material/error:")


def attempt(action: Callable[[], T]) -> T | None:
    """Do something a person asked for; on an `ExplorerError` show its sentence, return None."""
    try:
        return action()
    except ExplorerError as error:
        st.error(text_format.md(str(error)), icon=":material/error:")
        return None


def problems_shown(problems: list[str]) -> None:
    """Folders that could not be read, out of the way but not hidden."""
    if not problems:
        return
    with st.expander(
        f"{text_format.plural(len(problems), 'folder')} in the results could not be read",
        icon=":material/folder_off:",
    ):
        st.caption("They are left as they are. Repair or remove them by hand.")
        for problem in problems[:50]:
            st.markdown(f"- {text_format.md(problem)}")
        if len(problems) > 50:
            st.caption(f"and {len(problems) - 50:,} more.")


def nothing_yet(sentence: str) -> None:
    """An empty page: one sentence and the way to the Run page."""
    st.html(f'<p class="finding">{text(sentence)}</p>')
    if st.button("Go to the Run page", type="primary", icon=":material/play_circle:"):
        st.switch_page(RUN)


def template() -> theme.Template:
    """The ink for figures: that of the theme the browser shows."""
    return "dark" if st.context.theme.type == "dark" else "light"


def picked() -> str | None:
    """The run that was picked on the chart, in its list or by the page's address."""
    chosen = st.session_state.get(PICKED, st.query_params.get(PICKED))
    return chosen if isinstance(chosen, str) else None


def take_point(chart_key: str, picked_as: str = PICKED) -> None:
    """Make the point that was clicked on a chart the picked run, or what the chart shows.

    The id comes from `customdata`: a point's place in its trace says nothing about its row.
    A click that takes a selection back leaves the strip where it is.
    """
    points = st.session_state[chart_key]["selection"]["points"]
    ids = [point["customdata"][0] for point in points if point.get("customdata")]
    if ids:
        st.session_state[picked_as] = ids[0]


def chart(
    figure: go.Figure, key: str, alt: str, *, pick: bool = False, picked_as: str = PICKED
) -> None:
    """A Plotly figure at full width in our own colours; with `pick`, points can be clicked.

    The name of the clicked point is then in the session as `picked_as`.
    """
    # Plotly fades what is not selected; we ring what is.
    figure.update_traces(unselected={"marker": {"opacity": 1}}, selector={"type": "scatter"})
    config = {"displayModeBar": False, "scrollZoom": False}
    if pick:
        st.plotly_chart(
            figure,
            key=key,
            alt=alt,
            theme=None,
            config=config,
            selection_mode="points",
            on_select=lambda: take_point(key, picked_as),
        )
    else:
        st.plotly_chart(figure, key=key, alt=alt, theme=None, config=config)


def text(value: str) -> str:
    """Text as HTML that shows it as it is."""
    return html.escape(value)


def facts(pairs: list[tuple[str, str]]) -> None:
    """A short list of names and values; the values are HTML that the caller escaped."""
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in pairs)
    st.html(f'<dl class="facts">{rows}</dl>')


def when(text: str) -> str:
    """A record's time as HTML: relative, the absolute one on hover."""
    return f'<span title="{text_format.absolute(text)}">{text_format.ago(text)}</span>'
