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


def results_dir() -> Path:
    """The store that this dashboard shows."""
    return paths.store_root()


def read_only() -> bool:
    """Whether actions are hidden: `EXPLORER_READ_ONLY=1`."""
    return os.environ.get("EXPLORER_READ_ONLY") == "1"


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
