"""What the Tasks page reads and shows: the list, a task's facts and prompts, the way to a run."""

import dataclasses
import html
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from explorer.analysis import numbers
from explorer.errors import ExplorerError
from explorer.pages.run import form, run_spec
from explorer.pages.shared import answer_card, text_format, widgets
from explorer.specs import CapabilitySpec
from explorer.tasks import code_policy, dataset_cache, index, task_list, user_config
from explorer.tasks import preview as previews

STYLE = answer_card.STYLE
PREVIEW_KEPT_S = 600


@dataclasses.dataclass(frozen=True)
class Listed:
    """The tasks as they are listed now."""

    index: index.TaskIndex
    table: pd.DataFrame
    """Of `listing.table`."""


def folders() -> dict[str, Path]:
    """The task folders of the server's configuration by name; an address names no others."""
    return widgets.attempt(user_config.task_folders) or {}


def listed(folder: str | None) -> Listed | None:
    """The list; made first, with a bar, where it is not cached. None where it cannot be had."""
    try:
        if not index.is_current(folder):
            _make(folder)
        return _listed(index.stamp(folder), folder, held().key())
    except ExplorerError as error:
        st.error(text_format.md(str(error)), icon=":material/error:")
        return None


def problem(asked: CapabilitySpec) -> str | None:
    """Why these tasks cannot be asked here now; None where they can."""
    names = [name for name in asked.tasks if not run_spec.shipped(name)]
    found = listed(asked.include_path) if names else None
    if found is None:
        return None
    try:
        tasks = [row.name for name in names for row in found.index.leaves(name)]
        index.refuse_left_out([*names, *tasks], found.index.left_out, asked.include_path)
        dataset_cache.refuse_missing(names, found.index)
    except ExplorerError as error:
        return str(error)
    return None


def _make(folder: str | None) -> None:
    said = f"Reading the task files of lm-eval {index.version()}, once for each version…"
    bar = st.progress(0.0, said)

    def tell(done: int, total: int) -> None:
        bar.progress(done / max(1, total), said)

    index.build(folder, tell)
    bar.empty()


@st.cache_resource(show_spinner=False, max_entries=4)
def _listed(stamp: str, folder: str | None, data: str) -> Listed:
    """The stamp and the data are only parts of the key."""
    found = index.build(folder)
    return Listed(found, task_list.table(found, dataset_cache.held()))


@st.cache_data(show_spinner=False, ttl=20)
def held() -> dataset_cache.Held:
    """The data sets that are here, as of some seconds ago."""
    return dataset_cache.held()


def said(table: pd.DataFrame) -> str:
    """The page's finding: how much there is, and how much of it can be asked at once."""
    counts = table["kind"].value_counts()
    ready = int(table.loc[table["kind"] == "task", "here"].fillna(False).sum())
    return (
        f"{text_format.plural(int(counts.get('task', 0)), 'task')} in "
        f"{int(counts.get('group', 0)) + int(counts.get('tag', 0)):,} groups can be asked; "
        f"{ready:,} have their data on this machine."
    )


def take_rows(table_key: str, names: Sequence[str]) -> None:
    """Keep the tasks whose rows are selected; the last one is looked at."""
    rows = st.session_state[table_key]["selection"]["rows"]
    chosen = [names[row] for row in rows if row < len(names)]
    st.session_state["tasks_chosen"] = chosen
    if chosen:
        st.session_state["named"] = chosen[-1]


def picked(tasks: index.TaskIndex) -> list[str]:
    """The task that is looked at although the table does not show it now."""
    name = st.session_state.get("named", st.query_params.get("named"))
    return [name] if isinstance(name, str) and name in tasks.rows else []


def wanted(names: Sequence[str], name: str | None, kit: Sequence[str]) -> list[str]:
    """What goes to a run: the selected rows, else the task looked at, else the preset."""
    chosen = [one for one in st.session_state.get("tasks_chosen", []) if one in names]
    if len(chosen) > 1 or not name:
        return chosen or list(kit)
    return [name]


def use(tasks: Sequence[str], folder: str | None) -> None:
    """The button that takes tasks to the Run page, in its address; none where none is chosen.

    Args:
        tasks: Their names.
        folder: The name of a configured folder.
    """
    if not tasks:
        return
    label = f"Use {tasks[0] if len(tasks) == 1 else f'{len(tasks)} tasks'} in a run"
    if st.button(
        text_format.md(label), key="tasks_use", type="primary", icon=":material/play_circle:"
    ):
        asked = {form.ASKED_TASKS: list(tasks), **({form.ASKED_FOLDER: folder} if folder else {})}
        st.switch_page(widgets.RUN, query_params=asked)


def detail(found: Listed, name: str, folder: str | None) -> None:
    """One task: its facts on the left, its first prompts on the right."""
    row = found.index.rows.get(name)
    if row is None:
        st.info(f"There is no task {text_format.md(name)} in the list.")
        return
    is_here = held().has_all(found.index.leaves(name))
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.subheader(text_format.md(name), anchor=False)
        if row.description:
            st.markdown(text_format.md(row.description))
        widgets.facts(_facts(found.index, row, is_here))
    with right:
        st.subheader("What a model is asked", anchor=False)
        _prompts(found.index, row, is_here, folder)


def _facts(tasks: index.TaskIndex, row: index.Row, is_here: bool | None) -> list[tuple[str, str]]:
    members = ", ".join(row.members[:12]) + (" …" if len(row.members) > 12 else "")
    data = {True: "on this machine", False: "not on this machine", None: "not known if here"}
    where = " ".join(
        part for part in (row.dataset_path, row.dataset_name, *(row.files or ())) if part
    )
    facts = [
        ("Kind", f"{row.kind} of {len(tasks.leaves(row.name)):,} tasks" if members else row.kind),
        ("Holds", members),
        ("Groups", ", ".join(tasks.groups.get(row.name, []))),
        ("Answers", (row.output_type or "").replace("_", " ")),
        ("Shots", "" if row.num_fewshot is None else str(row.num_fewshot)),
        ("Chance", "" if row.chance is None else numbers.percent(row.chance)),
        ("Metric", row.metric or ""),
        ("Data", f"{where} ({data[is_here]})".strip()),
        ("Not run", row.refused or ""),
        ("File", row.source),
    ]
    return [(name, html.escape(value)) for name, value in facts if value]


def _prompts(
    tasks: index.TaskIndex, row: index.Row, is_here: bool | None, folder: str | None
) -> None:
    """The first prompts; where data would have to be fetched, only when somebody asks.

    A read-only dashboard renders the templates of tasks that ship, and of no others, and fetches
    nothing.
    """
    if row.refused:
        st.info(text_format.md(row.refused))
        return
    sources = tasks.sources(row.name)
    if widgets.read_only() and not all(code_policy.shipped(source) for source in sources):
        st.info(
            "A read-only dashboard shows the prompts only of tasks that ship with Distill "
            "Explorer or lm-eval.",
            icon=":material/lock:",
        )
        return
    try:
        for source in sources:
            code_policy.refuse(source)
    except ExplorerError as error:
        st.info(text_format.md(str(error)), icon=":material/shield:")
        return
    if is_here is False and dataset_cache.offline():
        st.info(
            text_format.md(
                "Its data is not on this machine, which may not fetch it now. With a connection: "
                f"env -u {dataset_cache.offline()} explorer tasks fetch {row.name}"
            ),
            icon=":material/cloud_off:",
        )
        return
    if widgets.read_only() and not is_here:
        st.info("A read-only dashboard fetches no data.", icon=":material/lock:")
        return
    if not is_here and not st.toggle("Fetch its data and show", key=f"prompts_{row.name}"):
        return
    with st.spinner("Making the prompts…"):
        shown = widgets.attempt(lambda: _preview(row.name, folder, index.stamp(folder)))
    if shown is None:
        return
    st.caption(
        f"{text_format.md(shown.task)}: {text_format.plural(shown.num_documents, 'document')}, "
        f"{text_format.plural(shown.num_fewshot, 'shot')}; the first "
        f"{len(shown.questions)}. ✓ right."
    )
    st.html("".join(answer_card.question(one) for one in shown.questions))


@st.cache_data(show_spinner=False, ttl=PREVIEW_KEPT_S, max_entries=50)
def _preview(name: str, folder: str | None, stamp: str) -> previews.Preview:
    """The stamp is only part of the key."""
    return previews.preview(name, folder)
