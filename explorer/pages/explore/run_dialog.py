"""Everything that a run left behind, in a dialog over the page."""

from pathlib import Path

import pandas as pd
import streamlit as st

from explorer import jobs
from explorer.analysis import load_table, numbers
from explorer.charts import run_chart
from explorer.errors import ExplorerError
from explorer.pages.explore.how_made import WIDTHS
from explorer.pages.shared import chart_element, downloads, text_format, widgets
from explorer.records import RunRecord
from explorer.store import disk


@st.dialog("The run", width="large")
def run_dialog(root: Path, run_id: str) -> None:
    """Spec, environment, load test, training curve, layers and log of a run."""
    st.markdown(f"**{text_format.md(run_id)}**")
    try:
        record = disk.load(root, run_id)
    except ExplorerError as error:
        st.error(text_format.md(str(error)))
        return
    if record.error:
        st.error(text_format.md(f"{record.error.stage}: {record.error.message}"))
    if record.capability and record.capability.scores:
        downloads.run_buttons(root, run_id)
    names = ["Spec", "Environment", "Load", "Training", "Layers", "Log"]
    spec, environment, load, training, layers, log = st.tabs(names)
    with spec:
        st.code(record.spec.to_yaml(), language="yaml", height=420)
        if not record.imported:
            st.caption(f"To run it again: explorer run {run_id} --again")
    with environment:
        _environment(record)
    with load:
        _load(record)
    with training:
        if record.distillation is None:
            st.caption("This model was not trained.")
        else:
            points = pd.DataFrame([point.model_dump() for point in record.distillation.curve])
            chart_element.draw(
                run_chart.training_curve(points, template=widgets.template()),
                key="dialog_curve",
                alt="Training loss and held-out KL over tokens",
            )
    with layers:
        _layers(record)
    with log:
        text = widgets.attempt(lambda: jobs.log_tail(root, run_id, 400))
        st.code(text or "The log is empty.", language=None, height=420, wrap_lines=True)
        if record.error and record.error.traceback:
            st.code(record.error.traceback, language="python", height=240)


def _load(record: RunRecord) -> None:
    """The runtime, and the throughput and latency under concurrent requests."""
    if record.latency is None:
        st.caption("Not timed.")
        return
    own = record.latency.own
    st.caption(text_format.md(load_table.runtime_sentence(own)))
    if record.latency.warning:
        st.caption(f":orange[{text_format.md(record.latency.warning)}]")
    levels = load_table.load_table(own)
    if levels.empty:
        st.caption(
            "No load test. To run one, set Load levels on the Run page, or `latency.concurrency` "
            "in the spec."
        )
        return
    chart_element.draw(
        run_chart.load_curve(levels, template=widgets.template()),
        key="dialog_load",
        alt="Output tokens per second and time per output token by number of concurrent requests",
    )
    st.dataframe(
        levels.assign(kind=levels["kind"].map(load_table.KINDS)),
        hide_index=True,
        key="dialog_levels",
    )
    if own.curve_note:
        st.caption(text_format.md(own.curve_note))


def _environment(record: RunRecord) -> None:
    env = record.environment
    if env is None:
        _provenance(record)
        return
    pairs = [
        ("Device", env.device_name),
        ("Processors", f"{env.num_cpus}, {env.threads} threads used"),
        ("Memory", numbers.size(env.memory_bytes)),
        ("Driver", env.driver or numbers.MISSING),
        ("System", env.platform),
        ("Python", env.python),
        *sorted(env.versions.items()),
        ("Commit", env.commit or numbers.MISSING),
    ]
    if record.model:
        pairs.append(("Fingerprint", record.model.fingerprint))
    pairs += [(f"Stage {stage}", numbers.duration(s)) for stage, s in record.stage_seconds.items()]
    widgets.facts_list([(widgets.escape(name), widgets.escape(value)) for name, value in pairs])


def _provenance(record: RunRecord) -> None:
    """Origin of an imported run's scores."""
    if record.imported is None:
        st.caption("No provenance recorded.")
        return
    files = [(name, f"SHA-256 {digest[:16]}") for name, digest in record.imported.files.items()]
    pairs = [
        ("Folder", record.imported.folder),
        ("Model", record.imported.model),
        ("lm-eval's commit", record.imported.git_hash or numbers.MISSING),
        *files,
    ]
    if timing := record.imported.timing:
        pairs += [
            ("Timed by", timing.tool),
            ("Timed as", timing.model),
            ("Device", timing.device_name),
            ("Load", timing.load),
            *((name, f"SHA-256 {digest[:16]}") for name, digest in timing.files.items()),
        ]
    widgets.facts_list([(widgets.escape(name), widgets.escape(value)) for name, value in pairs])
    for problem in record.imported.problems:
        st.caption(text_format.md(problem))


def _layers(record: RunRecord) -> None:
    """The teacher's layers as a row of cells; those the student keeps are filled."""
    if record.model is None or record.model.kept_layers is None:
        st.caption("This model was not cut.")
        return
    kept_layers = set(record.model.kept_layers)
    cells = "".join(
        f'<span class="layer{" kept" if layer in kept_layers else ""}" '
        f'title="Layer {layer}: {"kept" if layer in kept_layers else "removed"}">{layer}</span>'
        for layer in range(max(kept_layers) + 1)
    )
    st.html(f'<div class="layers">{cells}</div>')
    st.caption(
        f"The student keeps {len(kept_layers)} of the teacher's layers (filled), counted from 0."
    )
    for name, (number, of) in (record.model.kept_widths or {}).items():
        st.caption(f"{number:,} of {of:,} {WIDTHS[name]} are kept.")
