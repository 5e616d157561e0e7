"""Answers: which documents a student lost and gained, one by one, and by what margin."""

import streamlit as st

from explorer.analysis.stats import answer_flips
from explorer.pages.answers import paired_answers
from explorer.pages.shared import (
    answer_card,
    glossary,
    run_list,
    study_summary,
    text_format,
    widgets,
)
from explorer.records.rows import row_dicts

LOST = answer_flips.LOST
PAGE_SIZE = 10
"""Documents on one page."""

root = widgets.results_dir()
snapshot = widgets.load(root)
visible = widgets.visible_runs(snapshot)
finished = visible[visible["status"] == "finished"]
evaluated = finished[finished["run_id"].isin(snapshot.scores["run_id"])]

if evaluated.empty:
    widgets.empty_page("No answers yet: finish a run that evaluates tasks first.")
    widgets.unreadable_folders(root, snapshot.problems)
    st.stop()

widgets.expand_run_ids(evaluated["run_id"], "student", "reference")
sentence = st.container(key="answers_sentence")
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="answers_runs"):
    students = paired_answers.newest_students_first(evaluated)
    ids = students["run_id"].tolist()
    widgets.follow_pick("student", ids)
    run_id = run_list.run_list(
        "Run",
        students,
        "student",
        default=paired_answers.first_of(study_summary.followed_runs(), ids),
        help=glossary.TERMS["student"],
        width=290,
    )
    assert run_id is not None  # the list has a default
    if "student" in st.query_params:
        widgets.remember_pick(run_id)
    others = evaluated[evaluated["run_id"] != run_id]
    if others.empty:
        with sentence:
            widgets.finding("Only one run has answers. Finish a second run to compare it with.")
        st.stop()
    against = run_list.run_list(
        "Against",
        others,
        "reference",
        default=paired_answers.default_reference(evaluated, run_id),
        help=glossary.TERMS["reference"],
        width=290,
    )
    assert against is not None
    tasks = paired_answers.shared_tasks(snapshot.scores, run_id, against)
    if not tasks:
        with sentence:
            widgets.finding("These two runs share no task and metric. Choose another run.")
        st.stop()
    task = st.selectbox(
        "Task",
        list(tasks),
        key="on_task",
        bind="query-params",
        help=glossary.TERMS["task"],
        width=210,
    )

index = widgets.index(root)
documents = answer_flips.answer_flips(
    index.answers(run_id), index.answers(against), task, tasks[task]
)
names = paired_answers.names(evaluated, run_id, against)
counts = documents["outcome"].value_counts()
finding = paired_answers.finding(task, counts, names)
with sentence:
    widgets.finding(finding)

with st.container(
    horizontal=True, vertical_alignment="bottom", gap="medium", key="answers_filters"
):
    wanted = st.segmented_control(
        "Answers",
        [outcome for outcome in answer_flips.OUTCOMES if outcome in counts],
        # A search that somebody sent looks at all answers.
        default=LOST if LOST in counts and not st.query_params.get("search") else None,
        format_func=str.capitalize,
        key="outcome",
        wrap=True,
        bind="query-params",
        help=glossary.TERMS["outcome"],
    )
    query = st.text_input(
        "Search",
        key="search",
        bind="query-params",
        placeholder="In questions and answers",
        icon=":material/search:",
        width=290,
    )

shown = documents[documents["outcome"] == wanted] if wanted else documents
samples = paired_answers.samples_of(root, run_id, against, task, tasks[task])
for missing in samples.missing():
    st.info(text_format.md(missing), icon=":material/draft:")
if query:
    shown = shown[shown["doc_id"].isin(samples.matching(query))]
if wanted in (LOST, answer_flips.GAINED):
    by_change = samples.largest_change_first(shown["doc_id"].tolist())
    shown = shown.set_index("doc_id", drop=False).loc[by_change].reset_index(drop=True)
if shown.empty:
    st.info(
        "No document matches. Clear the search or choose other answers."
        if len(documents)
        else "The two runs did not answer the same documents of this task."
    )
    st.stop()

num_pages = -(-len(shown) // PAGE_SIZE)
if st.session_state.get("page", 1) > num_pages:
    st.session_state["page"] = num_pages
order = "The margin that moved farthest is first. " if wanted in (LOST, answer_flips.GAINED) else ""
# Above the documents, with the count that belongs to it.
with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="answers_pages"):
    page = st.pagination(num_pages, key="page", bind="query-params")
    st.caption(
        f"{text_format.plural(len(shown), 'document')} of {len(documents):,}, metric "
        f"{text_format.md(tasks[task])}. {order}Log-likelihoods in nats; ● chosen, ✓ correct."
    )
rows = row_dicts(shown.iloc[(page - 1) * PAGE_SIZE : page * PAGE_SIZE])
st.html(
    "".join(
        answer_card.document_card(row, *pair, names)
        for row, pair in zip(rows, samples.read(rows), strict=True)
    )
)
widgets.unreadable_folders(root, snapshot.index.problems())
