"""Tasks: everything that a run can ask, searched, looked at, and taken to the Run page."""

import zlib

import streamlit as st

from explorer import paths
from explorer.analysis.tables import task_table as tables
from explorer.pages.shared import glossary, text_format, widgets
from explorer.pages.tasks import custom_task, task_browser
from explorer.tasks import presets, task_list

WAYS = {
    "multiple_choice": "Choices",
    "generate_until": "Written",
    "loglikelihood": "Continuation",
    "loglikelihood_rolling": "Perplexity",
}
KINDS = {"task": "Tasks", "group": "Groups", "tag": "Tags"}
SHOWN = 300
"""Rows of the table; a search narrows better than a scroll bar."""

widgets.style()
st.html(task_browser.STYLE)
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
                f"To list more tasks here, name their folder under task_folders in "
                f"{paths.config_file()}."
            )
        )
folder = str(folders[folder_name]) if folder_name else None

found = task_browser.listed(folder)
if found is None:
    st.stop()
st.html(f'<p class="finding">{widgets.text(task_browser.said(found.table))}</p>')

if not widgets.read_only():
    custom_task.show(found.index.rows)

kits = presets.presets()
with st.container(key="tasks_presets"):
    kit = st.pills(
        "For what",
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
        placeholder="In names, groups, data, descriptions",
        icon=":material/search:",
        width=320,
    )
    way = st.segmented_control(
        "Answers are",
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
        "Data here", key="data_here", bind="query-params", help=glossary.TERMS["data_here"]
    )

if kit:
    st.caption(text_format.md(kits[kit].says))
shown = task_list.chosen(
    found.table,
    words=query,
    names=kits[kit].tasks if kit else None,
    output_type=way,
    kind=kind,
    here_only=here_only,
)
if shown.empty:
    st.info("No task fits. Use fewer words or take a filter away.")
    st.stop()

head = shown.head(SHOWN)
names = head["task"].to_list()
# Rows are selected by their place, so other rows are another table.
table_key = f"tasks_table_{zlib.crc32(' '.join(names).encode())}"
st.dataframe(
    tables.task_table(head),
    hide_index=True,
    height=min(36 * len(head) + 40, 420),
    key=table_key,
    selection_mode="multi-row",
    on_select=lambda: task_browser.take_rows(table_key, names),
    column_config={
        "Task": st.column_config.TextColumn(pinned=True, width=210),
        "Description": st.column_config.TextColumn(width=420),
        "Groups": st.column_config.TextColumn(width=160),
        "Data": st.column_config.TextColumn(width=220),
    },
)
if len(shown) > len(head):
    st.caption(f"The first {len(head)} of {len(shown):,}; a search finds the others.")

with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="tasks_pick"):
    name = st.selectbox(
        "Look at",
        list(dict.fromkeys([*task_browser.picked(found.index), *names])),
        index=None,
        placeholder="Choose rows above, or a task here",
        key="named",
        bind="query-params",
        width=320,
    )
    if not widgets.read_only():
        task_browser.use(
            task_browser.wanted(names, name, kits[kit].tasks if kit else ()), folder_name
        )

if name is not None:
    task_browser.detail(found, name, folder)
if found.index.problems:
    with st.expander(f"{text_format.plural(len(found.index.problems), 'file')} left out"):
        for problem in found.index.problems[:50]:
            st.markdown(f"- {text_format.md(problem)}")
