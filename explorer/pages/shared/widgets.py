"""What all pages share: the store, errors, read-only mode, charts and small HTML parts."""

import html
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from explorer import paths
from explorer.charts import theme
from explorer.errors import ExplorerError
from explorer.index import Snapshot, StoreIndex, index_of
from explorer.pages.dashboard import navigation
from explorer.pages.shared import text_format

T = TypeVar("T")

PICKED = "run"
"""The picked run: its key in the session and its query parameter."""
EXPLORE, RUN, COMPARE, ANSWERS, TASKS = (
    str(navigation.script(name)) for name in ("explore", "run", "compare", "answers", "tasks")
)

STYLE = """<style>
.stMainBlockContainer {padding-top: 4.2rem; padding-bottom: 3rem; max-width: 1600px;}
.finding {font-size: 1.35rem; line-height: 1.35; font-weight: 600; margin: 0; max-width: 74rem;
  text-wrap: pretty;}
.st-key-explore_needs [data-testid^="stNumberInputStep"] {display: none;}
.st-key-explore_needs [data-testid="stWidgetLabel"] p {font-size: .84rem;}
.st-key-ruler {position: absolute;}
.quiet {opacity: .68; font-size: .84rem;}
.facts {display: grid; grid-template-columns: max-content 1fr; gap: .2rem .9rem;
  margin: 0 !important; padding: 0 !important; font-size: .92rem;}
.facts dt {opacity: .68; font-weight: 400;}
.facts dd {margin: 0; overflow-wrap: anywhere;}
.plan {font-size: 1.02rem; line-height: 1.6; margin: 0 0 .6rem;}
.plan b {font-size: 1.35rem; font-weight: 600;}
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
  [data-testid="stColumn"]:has(.st-key-explore_needs) {order: 3;}
  .finding {font-size: 1.15rem;}
  .stMainBlockContainer {padding-left: 1rem; padding-right: 1rem;}
  .results {font-size: .82rem;}
  .results th, .results td {padding: .34rem .35rem;}
  .results td:first-child {white-space: normal; min-width: 5.5rem;}
}
</style>"""


def results_dir() -> Path:
    """The store that this dashboard shows."""
    return paths.store_root()


def read_only() -> bool:
    """Whether actions are hidden: `EXPLORER_READ_ONLY=1`."""
    return os.environ.get("EXPLORER_READ_ONLY") == "1"


def style() -> None:
    """Add the CSS rules that Streamlit's theme has no setting for."""
    st.html(STYLE)


def index(root: Path) -> StoreIndex:
    """The index of a store, shared by all sessions."""
    return index_of(root)


def load(root: Path) -> Snapshot:
    """What the store holds now, or held a second ago."""
    return index(root).snapshot()


def visible_runs(snapshot: Snapshot) -> pd.DataFrame:
    """The runs that pages offer: all except hidden ones, unless the page's address names them."""
    named = {value for key in st.query_params for value in st.query_params.get_all(key)}
    return snapshot.runs[~snapshot.runs["run_id"].isin(snapshot.hidden - named)]


def expand_run_ids(run_ids: Iterable[str], *keys: str) -> None:
    """Let the page's address name a run by the start of its id, if no other id starts so.

    Call it before the widgets that are bound to these query parameters.

    Args:
        run_ids: Ids of the runs that the page offers.
        keys: Query parameters that hold run ids.
    """
    known = set(run_ids)
    for key in keys:
        texts = st.query_params.get_all(key)
        expanded = [_expanded(text, known) for text in texts]
        if expanded != texts and key not in st.session_state:
            st.query_params[key] = expanded
            st.rerun()


def _expanded(text: str, known: Collection[str]) -> str:
    """The only id that `text` starts, else `text`, which the widget ignores if it is unknown."""
    if not text or text in known:
        return text
    matches = [run_id for run_id in known if run_id.startswith(text)]
    return matches[0] if len(matches) == 1 else text


def load_runs(root: Path) -> pd.DataFrame:
    """One row per run, as in `frames.runs`."""
    return load(root).runs


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show an `ExplorerError` as one red line; anything else is a bug and keeps its traceback."""
    try:
        yield
    except ExplorerError as error:
        st.error(text_format.md(str(error)), icon=":material/error:")


def attempt(action: Callable[[], T]) -> T | None:
    """The action's result; on an `ExplorerError` show its message and return None."""
    try:
        return action()
    except ExplorerError as error:
        st.error(text_format.md(str(error)), icon=":material/error:")
        return None


def unreadable_folders(problems: list[str]) -> None:
    """A closed expander with the folders of the store that could not be read."""
    if not problems:
        return
    with st.expander(
        f"{text_format.plural(len(problems), 'folder')} in the results could not be read",
        icon=":material/folder_off:",
    ):
        st.caption("Nothing was changed in them. Repair or remove them by hand.")
        for problem in problems[:50]:
            st.markdown(f"- {text_format.md(problem)}")
        if len(problems) > 50:
            st.caption(f"and {len(problems) - 50:,} more.")


def empty_page(sentence: str) -> None:
    """An empty page: one sentence and a button to the Run page."""
    st.html(f'<p class="finding">{escape(sentence)}</p>')
    if st.button("Go to the Run page", type="primary", icon=":material/play_circle:"):
        st.switch_page(RUN)


def template() -> theme.Template:
    """The figures' colour template, following the browser's theme."""
    return "dark" if st.context.theme.type == "dark" else "light"


def picked_run() -> str | None:
    """Id of the run picked on the chart, in the list or by the page's address."""
    run_id = st.session_state.get(PICKED, st.query_params.get(PICKED))
    return run_id if isinstance(run_id, str) else None


def store_clicked_point(chart_key: str, picked_as: str = PICKED) -> None:
    """Store the id of the clicked point in the session, under `picked_as`.

    The id comes from `customdata`, because a point's position in its trace is not its row.
    A click that clears the selection changes nothing.
    """
    points = st.session_state[chart_key]["selection"]["points"]
    ids = [point["customdata"][0] for point in points if point.get("customdata")]
    if ids:
        st.session_state[picked_as] = ids[0]


def chart(
    figure: go.Figure, key: str, alt: str, *, pick: bool = False, picked_as: str = PICKED
) -> None:
    """A Plotly figure at full width in our own colours.

    Args:
        figure: The figure.
        key: Key of the widget.
        alt: Text for screen readers.
        pick: Whether points can be clicked.
        picked_as: Session key that receives the id of the clicked point.
    """
    # Plotly fades unselected points; our charts draw a ring around the selected one.
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
            on_select=lambda: store_clicked_point(key, picked_as),
        )
    else:
        st.plotly_chart(figure, key=key, alt=alt, theme=None, config=config)


def escape(value: str) -> str:
    """Text as HTML that shows it unchanged."""
    return html.escape(value)


def facts_list(pairs: list[tuple[str, str]]) -> None:
    """A list of names and values. The values are HTML; the caller escapes them."""
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in pairs)
    st.html(f'<dl class="facts">{rows}</dl>')


def relative_time(text: str) -> str:
    """A record's time as HTML: relative, with the absolute time on hover."""
    return f'<span title="{text_format.absolute(text)}">{text_format.ago(text)}</span>'
