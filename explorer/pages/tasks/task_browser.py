"""The Tasks page's data and parts: the list, a task's facts and prompts, the button to Run."""

import dataclasses
import html
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from explorer.analysis import numbers
from explorer.consent import user_config
from explorer.errors import CodeNotAllowed, ExplorerError
from explorer.pages.run import evaluation_form
from explorer.pages.shared import answer_card, consent, text_format, widgets
from explorer.tasks import code_policy, dataset_cache, index, task_list
from explorer.tasks import preview as previews

PREVIEW_TTL_S = 600


@dataclasses.dataclass(frozen=True)
class TaskCatalogue:
    """The current list of tasks."""

    index: index.TaskIndex
    table: pd.DataFrame
    """From `task_list.task_table`."""


def folders() -> dict[str, Path]:
    """The configured task folders by name; an address can name no others."""
    return widgets.attempt(user_config.task_folders) or {}


def load_catalogue(folder: str | None) -> TaskCatalogue | None:
    """The list of tasks, built with a progress bar if not cached; None on an error, preview."""
    try:
        if not index.is_current(folder):
            _build(folder)
        return _catalogue(index.index_stamp(folder), folder, held().key())
    except ExplorerError as error:
        st.error(text_format.md(str(error)), icon=":material/error:")
        return None


def _build(folder: str | None) -> None:
    label = f"Reading the task files of lm-eval {index.lm_eval_version()}. Once per version…"
    bar = st.progress(0.0, label)

    def on_progress(done: int, total: int) -> None:
        bar.progress(done / max(1, total), label)

    index.build_index(folder, on_progress)
    bar.empty()


@st.cache_resource(show_spinner=False, max_entries=4)
def _catalogue(stamp: str, folder: str | None, data: str) -> TaskCatalogue:
    """Built once; `stamp` and `data` only make the cache key change with the files."""
    task_index = index.build_index(folder)
    return TaskCatalogue(
        task_index, task_list.task_table(task_index, dataset_cache.cached_datasets())
    )


@st.cache_data(show_spinner=False, ttl=20)
def held() -> dataset_cache.CachedDatasets:
    """The data sets on this machine, up to 20 seconds old."""
    return dataset_cache.cached_datasets()


def finding(table: pd.DataFrame) -> str:
    """The page's finding: how many tasks there are, and how many have their data here."""
    counts = table["kind"].value_counts()
    ready = int(table.loc[table["kind"] == "task", "here"].fillna(False).sum())
    return (
        f"{text_format.plural(int(counts.get('task', 0)), 'task')} in "
        f"{int(counts.get('group', 0)) + int(counts.get('tag', 0)):,} groups; {ready:,} have their "
        "data on this machine."
    )


def store_selected_rows(table_key: str, names: Sequence[str]) -> None:
    """Store the tasks of the selected rows in the session; the last one is shown in detail."""
    rows = st.session_state[table_key]["selection"]["rows"]
    chosen = [names[row] for row in rows if row < len(names)]
    st.session_state["tasks_chosen"] = chosen
    if chosen:
        st.session_state["named"] = chosen[-1]


def task_in_detail(tasks: index.TaskIndex) -> list[str]:
    """The task shown in detail, which the table may not contain; at most one."""
    name = st.session_state.get("named", st.query_params.get("named"))
    return [name] if isinstance(name, str) and name in tasks.rows else []


def tasks_for_a_run(names: Sequence[str], name: str | None, preset: Sequence[str]) -> list[str]:
    """Tasks to take to a run: the selected rows, else the task in detail, else the preset."""
    chosen = [task for task in st.session_state.get("tasks_chosen", []) if task in names]
    if len(chosen) > 1 or not name:
        return chosen or list(preset)
    return [name]


def use_button(tasks: Sequence[str], folder: str | None) -> None:
    """A button that opens the Run page with these tasks; absent if there are none.

    Args:
        tasks: Names of tasks.
        folder: Name of a configured task folder, if the tasks come from one.
    """
    if not tasks:
        return
    label = f"Use {tasks[0] if len(tasks) == 1 else f'{len(tasks)} tasks'} in a run"
    if st.button(
        text_format.md(label), key="tasks_use", type="primary", icon=":material/play_circle:"
    ):
        parameters = {
            evaluation_form.TASKS_PARAMETER: list(tasks),
            **({evaluation_form.FOLDER_PARAMETER: folder} if folder else {}),
        }
        st.switch_page(widgets.RUN, query_params=parameters)


def task_detail(catalogue: TaskCatalogue, name: str, folder: str | None) -> None:
    """One task: its facts on the left, its first prompts on the right."""
    row = catalogue.index.rows.get(name)
    if row is None:
        st.info(f"The list has no task {text_format.md(name)}.")
        return
    is_here = held().has_all(catalogue.index.leaves(name))
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.subheader(text_format.md(name), anchor=False)
        if row.description:
            st.markdown(text_format.md(row.description))
        widgets.facts_list(_facts(catalogue.index, row, is_here))
    with right:
        st.subheader("Example prompts", anchor=False)
        _prompts(catalogue.index, row, is_here, folder)


def _facts(
    tasks: index.TaskIndex, row: index.TaskRow, is_here: bool | None
) -> list[tuple[str, str]]:
    members = ", ".join(row.members[:12]) + (" …" if len(row.members) > 12 else "")
    data = {True: "on this machine", False: "not on this machine", None: "unknown"}
    where = " ".join(
        part for part in (row.dataset_path, row.dataset_name, *(row.files or ())) if part
    )
    facts = [
        ("Kind", f"{row.kind} of {len(tasks.leaves(row.name)):,} tasks" if members else row.kind),
        ("Contains", members),
        ("Groups", ", ".join(tasks.groups.get(row.name, []))),
        ("Answers", (row.output_type or "").replace("_", " ")),
        ("Shots", "" if row.num_fewshot is None else str(row.num_fewshot)),
        ("Chance", "" if row.chance is None else numbers.percent(row.chance)),
        ("Metric", row.metric or ""),
        ("Data", f"{where} ({data[is_here]})".strip()),
        ("Not supported", row.refused or ""),
        ("File", row.source),
    ]
    return [(name, html.escape(value)) for name, value in facts if value]


def _prompts(
    tasks: index.TaskIndex, row: index.TaskRow, is_here: bool | None, folder: str | None
) -> None:
    """The first prompts; data is downloaded only on request.

    A read-only dashboard downloads nothing and renders only the templates of shipped tasks.
    """
    if row.refused:
        st.info(text_format.md(row.refused))
        return
    sources = tasks.sources(row.name)
    if widgets.read_only() and not all(code_policy.is_shipped(source) for source in sources):
        st.info(
            "A read-only dashboard shows prompts only for tasks that ship with Distill Explorer or "
            "lm-eval.",
            icon=":material/lock:",
        )
        return
    try:
        for source in sources:
            code_policy.refuse_code(source)
    except CodeNotAllowed as error:
        st.info(text_format.md(str(error)), icon=":material/shield:")
        consent.offer(error.source, "tasks_code")
        return
    except ExplorerError as error:
        st.info(text_format.md(str(error)), icon=":material/error:")
        return
    if is_here is False and dataset_cache.offline_variable():
        st.info(
            text_format.md(
                "Its data is not on this machine, and downloads are turned off. To download it: "
                f"env -u {dataset_cache.offline_variable()} explorer tasks fetch {row.name}"
            ),
            icon=":material/cloud_off:",
        )
        return
    if widgets.read_only() and not is_here:
        st.info("A read-only dashboard downloads no data.", icon=":material/lock:")
        return
    if not is_here and not st.toggle("Download its data to see prompts", key=f"prompts_{row.name}"):
        return
    with st.spinner("Building the prompts…"):
        preview = widgets.attempt(lambda: _preview(row.name, folder, index.index_stamp(folder)))
    if preview is None:
        return
    st.caption(
        f"{text_format.md(preview.task)}: {text_format.plural(preview.num_documents, 'document')}, "
        f"{text_format.plural(preview.num_fewshot, 'shot')}; the first "
        f"{len(preview.questions)}. ✓ correct."
    )
    st.html("".join(answer_card.question_card(question) for question in preview.questions))


@st.cache_data(show_spinner=False, ttl=PREVIEW_TTL_S, max_entries=50)
def _preview(name: str, folder: str | None, stamp: str) -> previews.TaskPreview:
    """Built once; `stamp` only makes the cache key change with the task files."""
    return previews.preview_in_subprocess(name, folder)
