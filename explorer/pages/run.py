"""Run: an order form, beside it what the order will take, below it tournaments and the queue."""

import streamlit as st

from explorer.errors import ExplorerError
from explorer.models import sizes
from explorer.pages import (
    api,
    form,
    order,
    preview,
    queued,
    submitting,
    tasklist,
    tournaments,
    variants,
    widgets,
    words,
)

widgets.style()
root = widgets.results_dir()
shelf = widgets.load(root)

if widgets.read_only():
    st.info("This dashboard is read-only: it shows runs and starts none.", icon=":material/lock:")
else:
    st.subheader("Order a study", anchor=False)
    left, right = st.columns([5, 3], gap="large")
    problem = None
    specs = []
    with left:
        try:
            asked = form.ask(root, shelf)
            specs = order.runs_of(asked)
            form.shown(asked)
            sizes.check_students(specs, root)
            variants.ask(specs, root)
        except ExplorerError as error:
            problem = str(error)
    with right:
        new = order.not_finished(specs, shelf.runs)
        if problem is None and new and new[0].capability:
            problem = tasklist.problem(new[0].capability)
        if problem:
            st.error(words.md(problem), icon=":material/error:")
        else:
            preview.show(specs, new, shelf, root)
            # The last is a student where there is one: its teacher's targets cost as well.
            last = new[-1] if new else None
            if (
                last
                and (last.capability or last.student)
                and order.runs_elsewhere(last.teacher) == "endpoint"
            ):
                api.cost(last, root)
        runs = words.plural(len(new), "run")
        label = f"Start {runs}" if new or problem else "Nothing to run: all results exist"
        submitting.start_button(root, new, label, ready=bool(new) and not problem)

under_way = tournaments.show(root)
queued.show(root, more_to_come=under_way)
widgets.problems_shown(shelf.problems)
