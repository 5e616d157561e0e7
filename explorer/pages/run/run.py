"""Run: the study form, what the study will take, tournaments and the queue."""

import streamlit as st

from explorer.errors import ExplorerError
from explorer.pages.run import (
    disk_panel,
    endpoint_form,
    form,
    preview,
    queue_panel,
    run_spec,
    search_form,
    search_panel,
    yaml_form,
)
from explorer.pages.shared import findings, submitting, text_format, widgets
from explorer.specs import outside_torch

root = widgets.results_dir()
snapshot = widgets.load(root)

widgets.finding("Runs and their queue" if widgets.read_only() else "New study")
if widgets.read_only():
    st.info("This dashboard is read-only: it can't start runs.", icon=":material/lock:")
else:
    left, right = st.columns([5, 3], gap="large")
    problem = None
    specs = []
    with left:
        try:
            study = form.study_form(root, snapshot)
            specs = run_spec.runs_of(study)
            yaml_form.yaml_expander(study)
            search_form.tournament_form(specs, root)
        except ExplorerError as error:
            problem = str(error)
    with right:
        new = run_spec.not_finished(specs, snapshot.runs)
        checked = findings.check(new, root)
        if problem:
            st.error(text_format.md(problem), icon=":material/error:")
        else:
            preview.study_preview(
                specs, new, snapshot, root, memory_bytes=checked.memory_bytes if checked else None
            )
            findings.show(checked)
            # The last run is a student if there is one, and includes the teacher's targets.
            last = new[-1] if new else None
            if (
                last
                and (last.capability or last.student)
                and outside_torch(last.teacher) == "endpoint"
            ):
                endpoint_form.cost_estimate(last, root)
        runs = text_format.plural(len(new), "run")
        label = f"Start {runs}" if new or problem else "Nothing to run: all results exist"
        submitting.start_button(
            root,
            new,
            label,
            ready=bool(new) and not problem and not (checked and checked.has_errors),
        )

tournament_active = search_panel.tournament_panel(root)
queue_panel.queue_panel(root, more_to_come=tournament_active)
disk_panel.disk_panel(root)
widgets.unreadable_folders(root, snapshot.index.problems())
