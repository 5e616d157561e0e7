"""Tasks: search the tasks of lm-evaluation-harness, inspect one, take some to the Run page."""

import zlib

import streamlit as st

from explorer import paths
from explorer.analysis.tables import task_table as tables
from explorer.pages.shared import glossary, paging, text_format, widgets
from explorer.pages.tasks import custom_task, task_browser
from explorer.tasks import presets, task_list

WAYS = {
    "multiple_choice": "Choices",
    "generate_until": "Written",
    "loglikelihood": "Continuation",
    "loglikelihood_rolling": "Perplexity",
}
KINDS = {"task": "Tasks", "group": "Groups", "tag": "Tags"}

folders = task_browser.folders()
folder_name = None
if folders:
    with st.sidebar:
        folder_name = st.selectbox(
            "Folder with more tasks",
            list(folders),
            index=None,
            key="tasks_folder",
            bind="query-params",
            placeholder="None",
            help=glossary.TERMS["task_folder"],
        )
elif not widgets.read_only():
    with st.sidebar:
        st.caption(
            text_format.md(
                f"To list more tasks here, add their folder to task_folders in "
                f"{paths.config_file()}."
            )
        )
folder = str(folders[folder_name]) if folder_name else None

catalogue = task_browser.load_catalogue(folder)
if catalogue is None:
    st.stop()
widgets.finding(task_browser.finding(catalogue.table))

if not widgets.read_only():
    custom_task.custom_task_form(catalogue.index.rows)

kits = presets.presets()
with st.container(key="tasks_presets"):
    kit = st.pills(
        "Preset",
        list(kits),
        format_func=lambda key: kits[key].title,
        key="kit",
        bind="query-params",
        help="Sets of tasks by purpose.",
    )
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="tasks_filters"):
    query = st.text_input(
        "Search",
        key="find",
        bind="query-params",
        placeholder="Names, groups, data, descriptions",
        icon=":material/search:",
        width=320,
    )
    way = st.segmented_control(
        "Answers",
        list(WAYS),
        format_func=lambda key: WAYS[key],
        key="way",
        wrap=True,
        bind="query-params",
        help=glossary.TERMS["output_type"],
    )
    kind = st.segmented_control(
        "Kind",
        list(KINDS),
        format_func=lambda key: KINDS[key],
        key="of_kind",
        bind="query-params",
        help=glossary.TERMS["task_kind"],
    )
    here_only = st.toggle(
        "Data on this machine",
        key="data_here",
        bind="query-params",
        help=glossary.TERMS["data_here"],
    )

if kit:
    st.caption(text_format.md(kits[kit].says))
shown = task_list.filter_tasks(
    catalogue.table,
    words=query,
    names=kits[kit].tasks if kit else None,
    output_type=way,
    kind=kind,
    here_only=here_only,
)
if shown.empty:
    st.info("No task matches. Use fewer words or remove a filter.")
    st.stop()

rows = shown.iloc[paging.page_rows(len(shown), "tasks_page")]
names = rows["task"].to_list()
# Rows are selected by position, so other rows need another key.
table_key = f"tasks_table_{zlib.crc32(' '.join(names).encode())}"
st.dataframe(
    tables.task_table(rows),
    hide_index=True,
    height=min(36 * len(rows) + 40, 420),
    key=table_key,
    selection_mode="multi-row",
    on_select=lambda: task_browser.store_selected_rows(table_key, names),
    column_config={
        "Task": st.column_config.TextColumn(pinned=True, width=210),
        "Description": st.column_config.TextColumn(width=420),
        "Groups": st.column_config.TextColumn(width=160),
        "Data": st.column_config.TextColumn(width=220),
    },
)
paging.pager(
    len(shown), "tasks_page", "row", "best match" if query else "name, shipped tasks first"
)

with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="tasks_pick"):
    name = st.selectbox(
        "Show details of",
        list(dict.fromkeys([*task_browser.task_in_detail(catalogue.index), *names])),
        index=None,
        placeholder="Select rows above, or a task here",
        key="named",
        bind="query-params",
        width=320,
    )
    if not widgets.read_only():
        task_browser.use_button(
            task_browser.tasks_for_a_run(names, name, kits[kit].tasks if kit else ()), folder_name
        )

if name is not None:
    task_browser.task_detail(catalogue, name, folder)
problems = catalogue.index.problems
if problems:
    with st.expander(f"{text_format.plural(len(problems), 'task file')} could not be read"):
        for problem in problems[:50]:
            st.markdown(f"- {text_format.md(problem)}")
