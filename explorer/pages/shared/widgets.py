"""What all pages share: the store, errors, read-only mode and small HTML parts."""

import html
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pandas as pd
import streamlit as st

from explorer import paths
from explorer.charts import theme
from explorer.errors import ExplorerError
from explorer.index import Snapshot, StoreIndex, index_of
from explorer.pages.dashboard import navigation
from explorer.pages.shared import text_format

T = TypeVar("T")

PICKED = "run"
"""The picked run: its query parameter."""
LAST_PICKED = "last_picked_run"
"""Session key of the run that was picked last."""
EXPLORE, RUN, COMPARE, ANSWERS, TASKS, PUBLISHED = (
    str(navigation.script(name))
    for name in ("explore", "run", "compare", "answers", "tasks", "published")
)

STYLE = """<style>
.stMainBlockContainer {padding-top: 4.2rem; padding-bottom: 3rem; max-width: 1600px;}
.finding {font-size: 1.35rem; line-height: 1.35; font-weight: 600; margin: 0; padding: 0;
  max-width: 86rem;
  text-wrap: pretty;}
.st-key-explore_needs [data-testid^="stNumberInputStep"] {display: none;}
.st-key-explore_needs [data-testid="stWidgetLabel"] p {font-size: .84rem;}
[data-testid="stCaptionContainer"] {opacity: .74;}
[data-testid="stBaseButton-primary"] {color: light-dark(#fff, #0c1116);}
[data-tag-index] span {color: light-dark(#fff, #0c1116);}
[data-tag-index] svg {fill: light-dark(#fff, #0c1116);}
.st-key-explore_removed {row-gap: 0; align-items: center;}
.st-key-explore_removed button {min-height: 1.7rem; padding: 0 .5rem;}
.st-key-explore_removed button p {font-size: .84rem; text-decoration: underline dotted;}
.st-key-ruler, .st-key-back_button {position: absolute;}
.quiet {opacity: .68; font-size: .84rem;}
.facts {display: grid; grid-template-columns: max-content 1fr; gap: .2rem .9rem;
  margin: 0 !important; padding: 0 !important; font-size: .92rem;}
.facts dt {opacity: .68; font-weight: 400;}
.facts dd {margin: 0; overflow-wrap: anywhere;}
.step {font-weight: 600; margin: .4rem 0 -.4rem;}
.step b {display: inline-block; min-width: 1.1rem; opacity: .68;}
.st-key-run_yaml textarea {font-family: "Source Code Pro", ui-monospace, monospace;
  font-size: .85rem;}
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
.results th:first-child, .results td:first-child {position: sticky; left: 0; z-index: 1;
  background: light-dark(#fff, #12171c); background-clip: padding-box;}
.results thead th {font-weight: 500; opacity: .72; vertical-align: bottom;}
.results thead tr:last-child th {white-space: normal; text-wrap: balance;}
.results thead th .long {display: inline-block; min-width: 8.5em;}
.results thead tr.groups th {text-align: left; font-weight: 600; opacity: 1; border-bottom: none;
  padding-top: .2rem;}
.results .first {border-left: 1px solid color-mix(in srgb, currentColor 14%, transparent);}
.results tr.teacher td {background: color-mix(in srgb, currentColor 6%, transparent);
  font-weight: 500;}
.results tr.teacher td:first-child {
  background: color-mix(in srgb, currentColor 6%, light-dark(#fff, #12171c));}
.results small {opacity: .62; font-size: .78rem; font-weight: 400;}
.results .better, .better {color: light-dark(#00734f, #2fc79d);}
.results .worse, .worse {color: light-dark(#b34700, #f0904f);}
.results .inconclusive {opacity: .68;}
.results .busy {color: color-mix(in srgb, currentColor 58%, transparent); font-style: italic;}
.results td.best {font-weight: 700;}
.results tr.unticked td:not(:first-child) {opacity: .75;}
.results tr.unticked td:first-child {color: color-mix(in srgb, currentColor 75%, transparent);}
.results thead tr:last-child th:first-child {opacity: 1;}
.results input[type=checkbox] {margin: 0 .35rem 0 0; vertical-align: -1px; width: 1rem;
  height: 1rem; accent-color: #0072B2;}
.results button.sort {all: unset; cursor: pointer;}
.results button.sort:hover {text-decoration: underline;}
.results button.sort:focus-visible, .results input:focus-visible {
  outline: 2px solid currentColor; outline-offset: 2px;}
.results td:has(.range) {text-align: left;}
.range {position: relative; display: inline-block; width: 5.5rem; height: .8rem;
  margin-right: .6rem; vertical-align: -1px;}
.range::before {content: ""; position: absolute; left: 0; right: 0; top: 50%; height: 1px;
  background: color-mix(in srgb, currentColor 18%, transparent);}
.range i {position: absolute; top: calc(50% - 1px); height: 3px; border-radius: 2px;
  background: color-mix(in srgb, currentColor 45%, transparent);}
.range b {position: absolute; top: calc(50% - 3.5px); width: 8px; height: 8px; margin-left: -4px;
  border-radius: 50%; background: currentColor; box-sizing: border-box;}
.range b.open {background: none; border: 1.5px solid currentColor;}
.range u {position: absolute; top: 0; bottom: 0; width: 1px;
  background: color-mix(in srgb, currentColor 40%, transparent);}
.layers {display: flex; flex-wrap: wrap; gap: 3px;}
.layer {width: 2rem; height: 2rem; line-height: 2rem; text-align: center; font-size: .75rem;
  border-radius: 4px; opacity: .6;
  border: 1px solid color-mix(in srgb, currentColor 25%, transparent);}
.layer.kept {background: #0072B2; border-color: #0072B2; color: #fff; opacity: 1;}
.st-key-strip_head [data-testid="stPageLink"] a {min-height: 2.5rem; margin: -.125rem 0 .375rem;}
.bars > div {display: grid; grid-template-columns: minmax(0, 1fr) 5rem 3rem; gap: .5rem;
  align-items: center; font-size: .8rem;}
.bars > div > span:first-child {overflow: hidden; text-overflow: ellipsis; white-space: nowrap;}
.bars > div > span:last-child {text-align: right; font-variant-numeric: tabular-nums;}
.bar {position: relative; height: .6rem;
  background: color-mix(in srgb, currentColor 10%, transparent);}
.bar i {position: absolute; left: 0; top: 0; bottom: 0; background: #0072B2;}
.bar u {position: absolute; top: -2px; bottom: -2px; width: 2px; background: currentColor;}
.spark {display: block; width: 100%; height: 34px;}
@media (min-width: 641px) {
  [data-testid="stColumn"]:has(.st-key-run_preview) {position: sticky; top: 4rem;
    align-self: flex-start;}
}
@media (min-width: 641px) and (max-width: 1200px) {
  .stMainBlockContainer {padding-left: 2rem; padding-right: 2rem;}
  [data-testid="stColumn"]:has(.st-key-explore_needs) {min-width: 170px;}
}
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


def unreadable_folders(root: Path, problems: list[str]) -> None:
    """A closed expander with the folders of the store that could not be read.

    Args:
        root: The store.
        problems: A sentence per folder, as `index.problems` has them. Answers are read as pages
            need them, so a page that needs them asks at its end.
    """
    if not problems:
        return
    with st.expander(
        f"{text_format.plural(len(problems), 'folder')} in the results could not be read",
        icon=":material/folder_off:",
    ):
        where = text_format.md(str(root))
        st.caption(f"In {where}. Nothing was changed in them. Repair or remove them by hand.")
        for problem in problems[:50]:
            st.markdown(f"- {text_format.md(problem.replace(f'{root}/', ''))}")
        if len(problems) > 50:
            st.caption(f"and {len(problems) - 50:,} more.")


def finding(sentence: str) -> None:
    """The page's heading: what its data say."""
    st.html(f'<h1 class="finding">{escape(sentence)}</h1>')


def empty_page(sentence: str) -> None:
    """An empty page: one sentence and a button to the Run page."""
    finding(sentence)
    if st.button("Go to the Run page", type="primary", icon=":material/play_circle:"):
        st.switch_page(RUN)


def template() -> theme.Template:
    """The figures' colour template, following the browser's theme."""
    return "dark" if st.context.theme.type == "dark" else "light"


def picked_run() -> str | None:
    """Id of the run picked on the chart or in the list; the page's address has it."""
    return st.query_params.get(PICKED)


def pick_run(run_id: str | None, key: str = PICKED) -> None:
    """Write the picked run into the page's address; None picks none."""
    if run_id is not None:
        st.query_params[key] = run_id
    elif key in st.query_params:
        del st.query_params[key]


def last_picked_run() -> str | None:
    """Id of the run that was picked last, on any page."""
    run_id: str | None = st.session_state.get(LAST_PICKED)
    return run_id


def remember_pick(run_id: str | None) -> None:
    """Note which run a page shows, for the next page."""
    st.session_state[LAST_PICKED] = run_id


def follow_pick(key: str, run_ids: Iterable[str]) -> None:
    """When a page opens, before its list: take over the run that was picked last, on any page.

    A run that the address names stays.

    Args:
        key: The list's query parameter and key.
        run_ids: What the list offers.
    """
    run_id = last_picked_run()
    opens = key not in st.session_state
    if opens and run_id in set(run_ids) and not st.query_params.get_all(key):
        pick_run(run_id, key)


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
