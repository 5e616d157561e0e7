"""Answers: document by document, what a student lost, what it gained, and how narrowly."""

import streamlit as st

from explorer.analysis.stats import answer_flips
from explorer.pages.answers import paired_answers
from explorer.pages.shared import answer_card, glossary, text_format, widgets
from explorer.records.rows import row_dicts

AT_ONCE = 10
"""Documents on a page."""

widgets.style()
st.html(answer_card.STYLE)
root = widgets.results_dir()
shelf = widgets.load(root)
listed = widgets.listed(shelf)
finished = listed[listed["status"] == "finished"]
known = finished[finished["run_id"].isin(shelf.scores["run_id"])]

if known.empty:
    widgets.nothing_yet("No answers to read yet: finish a run with tasks first.")
    widgets.problems_shown(shelf.problems)
    st.stop()

sentence = st.container(key="answers_sentence")
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="answers_who"):
    run_id = st.selectbox(
        "Run",
        paired_answers.newest_students_first(known),
        key="student",
        bind="query-params",
        help=glossary.TERMS["student"],
        width=290,
    )
    others = [one for one in known["run_id"] if one != run_id]
    if not others:
        st.info("One run has answers. With a second one there is something to hold it against.")
        st.stop()
    against = st.selectbox(
        "Against",
        others,
        index=paired_answers.place_of_teacher(known, run_id, others),
        key="reference",
        bind="query-params",
        help=glossary.TERMS["reference"],
        width=290,
    )
    tasks = paired_answers.tasks_of_both(shelf.scores, run_id, against)
    if not tasks:
        st.info("These two runs have no task and metric in common. Choose another run.")
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
found = answer_flips.answer_flips(index.answers(run_id), index.answers(against), task, tasks[task])
names = paired_answers.names(known, run_id, against)
counts = found["outcome"].value_counts()
sentence.html(f'<p class="finding">{widgets.text(paired_answers.said(task, counts, names))}</p>')

with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="answers_which"):
    wanted = st.segmented_control(
        "Answers",
        [one for one in answer_flips.OUTCOMES if one in counts],
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

shown = found[found["outcome"] == wanted] if wanted else found
kept = paired_answers.kept(root, run_id, against, task, tasks[task])
for missing in kept.missing():
    st.info(text_format.md(missing), icon=":material/draft:")
if query:
    shown = shown[shown["doc_id"].isin(kept.matching(query))]
if shown.empty:
    st.info(
        "No document fits. Clear the search or choose other answers."
        if len(found)
        else "The two runs did not answer the same documents of this task."
    )
    st.stop()

num_pages = -(-len(shown) // AT_ONCE)
if st.session_state.get("page", 1) > num_pages:
    st.session_state["page"] = num_pages
# Its place is above the documents, as is that of what it says.
with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="answers_pages"):
    page = st.pagination(num_pages, key="page", bind="query-params")
    st.caption(
        f"{text_format.plural(len(shown), 'document')} of {len(found):,}, metric "
        f"{text_format.md(tasks[task])}. Log-likelihoods in nats; ● chosen, ✓ right."
    )
rows = row_dicts(shown.iloc[(page - 1) * AT_ONCE : page * AT_ONCE])
st.html(
    "".join(
        answer_card.card(row, *both, names) for row, both in zip(rows, kept.read(rows), strict=True)
    )
)
widgets.problems_shown(shelf.problems)
