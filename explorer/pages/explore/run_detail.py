"""Why a point should be believed: the strip under the chart, and the run in full."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from explorer import jobs
from explorer.analysis import interference, load_table, numbers
from explorer.analysis.cost import unit_cost
from explorer.analysis.stats import control_pairs, retention
from explorer.catalogue import api_prices
from explorer.catalogue.prices import Price
from explorer.charts import run_chart
from explorer.errors import ExplorerError
from explorer.pages.shared import downloads, glossary, removal, submitting, text_format, widgets
from explorer.records import Distillation, RunRecord
from explorer.records.rows import row_dicts
from explorer.specs import (
    BothStudent,
    CheckpointStudent,
    DepthStudent,
    DistillSpec,
    FreshStudent,
)
from explorer.store import disk, frames

CHOICES = {
    "block_influence": "chosen by importance",
    "uniform": "evenly spaced",
    "greedy": "chosen one by one by the KL",
}
WIDTHS = {
    "hidden": "hidden dimensions",
    "channels": "MLP channels",
    "heads": "query heads",
    "groups": "key-value heads",
}


def strip(root: Path, runs: pd.DataFrame, known_prices: dict[str, Price]) -> None:
    """The evidence behind the picked run, or how to pick one.

    Args:
        root: The store.
        runs: With the columns of `retention.add` and `cost.add`.
        known_prices: By device name.
    """
    rows = {row["run_id"]: row for row in row_dicts(runs)}
    with st.container(horizontal=True, vertical_alignment="bottom", key="strip_head"):
        run_id = st.selectbox(
            "Evidence for",
            sorted(rows, key=lambda one: -(rows[one]["num_parameters"] or 0)),
            index=None,
            placeholder="Click a point, or choose a run",
            key=widgets.PICKED,
            bind="query-params",
            width=440,
        )
        if run_id is None:
            return
        if st.button("Open the run", icon=":material/open_in_full:", key="explore_open"):
            opened(root, run_id)
        st.page_link(widgets.ANSWERS, label="Read its answers", query_params={"student": run_id})
        may = not widgets.read_only() and rows[run_id]["basis"] == "measured"
        was_busy = rows[run_id]["machine_busy"]
        label, icon, why = ("Run it again", "replay", None)
        if was_busy:
            label, icon, why = ("Time it again", "timer", glossary.TERMS["machine_busy"])
        if may and st.button(label, icon=f":material/{icon}:", key="explore_again", help=why):
            _again(root, run_id)
        removal.menu(root, run_id, place="strip")
    record = widgets.attempt(lambda: disk.load(root, run_id))
    if record is None:
        return
    left, middle, right = st.columns([4, 5, 4], gap="medium")
    with left:
        added = effect_of(root, run_id)
        asked = widgets.attempt(lambda: api_prices.spent(record, root))
        widgets.facts(
            [
                *_facts(record, rows[run_id], known_prices),
                *([("Teacher's part", widgets.text(added.in_words()))] if added else []),
                *([("Asked", widgets.text(asked))] if asked else []),
            ]
        )
    with middle:
        _per_task(root, record)
    with right:
        _timing(record)


def _facts(
    record: RunRecord, row: Mapping[Any, Any], known_prices: dict[str, Price]
) -> list[tuple[str, str]]:
    """Names and values in HTML: what it is, how it was made, what it costs, where and when."""
    model = record.model
    pairs = [
        (
            "Kept",
            _cell(
                numbers.percent(row["retention"], row["retention_low"], row["retention_high"]),
                row["excluded_tasks"],
            ),
        ),
        ("Raw ratio", numbers.percent(row["raw_ratio"], row["raw_low"], row["raw_high"])),
    ]
    if model:
        pairs += [
            ("Model", widgets.text(f"{model.architecture}, {model.num_layers} layers")),
            (
                "Parameters",
                f"{numbers.parameters(model.num_parameters)}, "
                f"{numbers.size(model.weight_bytes)} as {widgets.text(model.dtype)}",
            ),
        ]
    pairs.append(("Made", widgets.text(_made(record))))
    if row["machine_busy"]:
        pairs.append(
            (
                "Timing",
                f'<span class="worse">{interference.MARK}</span>: no conclusion uses the times, '
                "memory and cost below",
            )
        )
    pairs += [
        ("TPOT", numbers.milliseconds(row["tpot_ms"]) + _ratio(row["tpot_ratio"])),
        ("TTFT", numbers.milliseconds(row["ttft_ms"]) + _ratio(row["ttft_ratio"])),
        ("Memory", f"{numbers.size(row['peak_memory_bytes'])} at most"),
    ]
    price = known_prices.get(record.environment.device_name) if record.environment else None
    if price:
        source = html.escape(price.in_words(), quote=True)
        timed = unit_cost.lengths_text(row["prompt_tokens"], row["output_tokens"])
        costs = (
            f"{numbers.dollars(row['usd_per_mtok'])} per million output tokens "
            f"{unit_cost.utilisation_text(row['utilisation'])} ({timed}), "
            f"{numbers.dollars(row['usd_per_hour_at_load'])} per hour at the teacher's load"
        )
        rate = numbers.dollars(price.usd_per_hour)
        pairs.append(
            (
                "Cost",
                f'<span title="{source}">{costs}</span><br>'
                f'<span class="quiet">{rate} per hour: {source}</span>',
            )
        )
    else:
        pairs.append(("Cost", _cell(numbers.MISSING, "This device has no price yet.")))
    return [
        *pairs,
        (
            "Device",
            widgets.text(record.environment.device_name if record.environment else "unknown"),
        ),
        ("Date", widgets.when(record.finished_at)),
    ]


def _cell(value: str, why: str) -> str:
    """A value with its reason on hover."""
    return f'<span title="{html.escape(why, quote=True)}">{value}</span>' if why else value


def _ratio(ratio: float | None) -> str:
    return "" if numbers.missing(ratio) else f", {numbers.times(ratio)} the teacher's"


def _made(record: RunRecord) -> str:
    """How the model came to be, in one sentence."""
    student, taught = record.spec.student, record.distillation
    if record.imported:
        return f"Imported from lm-eval's results of {record.imported.model}"
    stored = "as it is"
    if record.spec.gguf:
        stored = f"as GGUF {record.spec.gguf}"
    if record.spec.torch_bits:
        stored = f"linear weights rounded to {record.spec.torch_bits} bits"
    if student is None:
        return f"The teacher {record.spec.teacher}, {stored}"
    cut = f"{_cut(record)}, {stored}" if record.spec.format else _cut(record)
    if taught is None:
        return f"{cut}; not taught"
    said = (
        f"{cut}; taught on {taught.scored_tokens:,} tokens of {taught.corpus.name}"
        f"{_shortcuts(record.spec.distill, taught)} in {numbers.duration(taught.seconds)}"
    )
    if taught.kl_before is None or taught.kl_after is None:
        return said
    before, after = (
        numbers.significant(taught.kl_before),
        numbers.significant(taught.kl_after),
    )
    return f"{said}; KL to the teacher {before} to {after} nats"


def _shortcuts(distill: DistillSpec | None, taught: Distillation) -> str:
    """In brackets, what makes a teaching faster: less of it, or less exact; mostly nothing."""
    parts = []
    if taught.num_untrained_layers:
        parts.append(f"the first {taught.num_untrained_layers} layers left as they were")
    if distill and distill.vocab_sample:
        parts.append(f"{distill.vocab_sample:,} tokens drawn")
    if distill and distill.precision == "bfloat16":
        parts.append("products in bfloat16")
    return f" ({', '.join(parts)})" if parts else ""


def _cut(record: RunRecord) -> str:
    """What became of the teacher, or where else the student comes from."""
    student, model = record.spec.student, record.model
    assert student is not None, "only a student was cut"
    if isinstance(student, CheckpointStudent):
        return f"{student.model}, as it was"
    if isinstance(student, FreshStudent):
        return f"The teacher's architecture with random weights, seed {student.seed}"
    if isinstance(student, DepthStudent):
        sizes = f"{student.num_layers} layers, {CHOICES[student.choice]}"
    else:
        sizes = student.label(model.num_parameters if model else None)
        widths = model.kept_widths if model and model.kept_widths else {}
        cut = [f"{kept} of {of} {WIDTHS[name]}" for name, (kept, of) in widths.items() if kept < of]
        if isinstance(student, BothStudent) and model:
            cut.insert(0, f"{model.num_layers} layers {CHOICES[student.choice]}")
        sizes += f": {', '.join(cut)}" if cut else ""
    step = f", from {student.start}" if student.start else ""
    return f"Cut to {sizes}{step}"


def _per_task(root: Path, record: RunRecord) -> None:
    st.markdown("**Score by task**", help=glossary.TERMS["chance"])
    if record.teacher_run_id is None:
        _own_scores(record)
        return
    with widgets.errors_shown():
        bars = run_chart.per_task_bars(
            tasks_of(root, record.run_id, record.teacher_run_id), template=widgets.template()
        )
        widgets.chart(bars, key="strip_tasks", alt="Scores of student and teacher by task")


def _own_scores(record: RunRecord) -> None:
    """A teacher has nobody to be compared with: its scores as they are."""
    frame = frames.scores([record])
    own = frame[frame["headline"]]
    if own.empty:
        st.caption("Nothing was tested.")
        return
    st.dataframe(
        own[["task", "score", "chance", "num_documents"]],
        hide_index=True,
        column_config={
            "task": "Task",
            "score": st.column_config.NumberColumn("Score", format="%.3f"),
            "chance": st.column_config.NumberColumn("Chance", format="%.3f"),
            "num_documents": "Documents",
        },
    )


def tasks_of(root: Path, run_id: str, teacher_run_id: str) -> pd.DataFrame:
    """`retention.per_task` of a run and its teacher's, computed once for their records."""
    versions = widgets.load(root).versions
    return _tasks_cached(
        root, run_id, teacher_run_id, versions.get(run_id, ""), versions.get(teacher_run_id, "")
    )


@st.cache_data(show_spinner=False, max_entries=500)
def _tasks_cached(
    root: Path, run_id: str, teacher_run_id: str, version: str, teacher_version: str
) -> pd.DataFrame:
    """The versions are only part of the key: another record is another table."""
    index = widgets.index(root)
    scores = index.shelf().scores
    return retention.per_task(
        scores[scores["run_id"] == run_id],
        scores[scores["run_id"] == teacher_run_id],
        index.answers(run_id),
        index.answers(teacher_run_id),
    )


def effect_of(root: Path, run_id: str) -> control_pairs.DistillationEffect | None:
    """What distillation added to a student, where its control arm is in the store."""
    shelf = widgets.load(root)
    ids = control_pairs.runs_compared(shelf.runs, run_id)
    return _effect_cached(root, run_id, {one: shelf.versions.get(one, "") for one in ids})


@st.cache_data(show_spinner=False, max_entries=500)
def _effect_cached(
    root: Path, run_id: str, versions: dict[str, str]
) -> control_pairs.DistillationEffect | None:
    """The versions are only part of the key, and name the runs that count."""
    index = widgets.index(root)
    shelf = index.shelf()
    scores = shelf.scores[shelf.scores["run_id"].isin(versions)]
    answers = {one: index.answers(one) for one in versions}
    return control_pairs.distillation_effect(shelf.runs, scores, answers, run_id)


def _timing(record: RunRecord) -> None:
    st.markdown("**Time per output token**", help=glossary.TERMS["tpot"])
    if record.latency is None:
        st.caption("Nothing was timed.")
        return
    theirs = record.latency.teacher
    widgets.chart(
        run_chart.latency_histogram(
            frames.turns(record.latency.own),
            frames.turns(theirs) if theirs else None,
            was_busy=record.latency.was_busy,
            template=widgets.template(),
        ),
        key="strip_timing",
        alt="Histogram of the time per output token of all timed answers",
    )
    own = record.latency.own
    answers = text_format.plural(len(own.turns), "answer") + (" each" if theirs else "")
    prompt = "" if own.prompt_tokens is None else f", prompt {own.prompt_tokens} tokens"
    order = "; student and teacher in turns" if theirs else ""
    st.caption(f"{answers}, batch {own.batch_size}{prompt}{order}.")
    if record.latency.warning:
        st.caption(f":orange[{text_format.md(record.latency.warning)}]")


def _load(record: RunRecord) -> None:
    """What ran the model, and how it did with more requests at once."""
    if record.latency is None:
        st.caption("Nothing was timed.")
        return
    own = record.latency.own
    st.caption(text_format.md(load_table.runtime_sentence(own)))
    if record.latency.warning:
        st.caption(f":orange[{text_format.md(record.latency.warning)}]")
    measured = load_table.load_table(own)
    if measured.empty:
        st.caption(
            "No level of load was measured: `latency.concurrency` in the spec, or Levels of load "
            "on the Run page, asks for some."
        )
        return
    widgets.chart(
        run_chart.load_curve(measured, template=widgets.template()),
        key="dialog_load",
        alt="Output tokens per second and time per output token over the requests at once",
    )
    st.dataframe(
        measured.assign(kind=measured["kind"].map(load_table.KINDS)),
        hide_index=True,
        key="dialog_levels",
    )
    if own.curve_note:
        st.caption(text_format.md(own.curve_note))


def _again(root: Path, run_id: str) -> None:
    """Hand the run to the queue again and go where it can be watched."""
    submitting.begin_again(root, run_id)
    # Without an address of its own, Streamlit refuses to leave a page whose widgets have one.
    st.switch_page(widgets.RUN, query_params={})


@st.dialog("The run", width="large")
def opened(root: Path, run_id: str) -> None:
    """All that a run left, in a window over the page."""
    st.markdown(f"**{text_format.md(run_id)}**")
    try:
        record = disk.load(root, run_id)
    except ExplorerError as error:
        st.error(text_format.md(str(error)))
        return
    if record.error:
        st.error(text_format.md(f"{record.error.stage}: {record.error.message}"))
    if record.capability and record.capability.scores:
        downloads.of_run(root, run_id)
    names = ["Spec", "Environment", "Load", "Learning", "Layers", "Log"]
    spec, environment, load, learning, layers, log = st.tabs(names)
    with spec:
        st.code(record.spec.to_yaml(), language="yaml", height=420)
        if not record.imported:
            st.caption(f"Runs again with: explorer run {root}/{run_id}/{disk.SPEC}")
    with environment:
        _environment(record)
    with load:
        _load(record)
    with learning:
        if record.distillation is None:
            st.caption("This model was not taught.")
        else:
            points = pd.DataFrame([point.model_dump() for point in record.distillation.curve])
            widgets.chart(
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
    widgets.facts([(widgets.text(name), widgets.text(value)) for name, value in pairs])


def _provenance(record: RunRecord) -> None:
    """Where an imported run's scores come from."""
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
    widgets.facts([(widgets.text(name), widgets.text(value)) for name, value in pairs])
    for problem in record.imported.problems:
        st.caption(text_format.md(problem))


def _layers(record: RunRecord) -> None:
    """The teacher's layers as a row of cells, the kept ones filled."""
    if record.model is None or record.model.kept_layers is None:
        st.caption("Nothing of this model was cut.")
        return
    kept = set(record.model.kept_layers)
    cells = "".join(
        f'<span class="layer{" kept" if layer in kept else ""}" '
        f'title="Layer {layer}: {"kept" if layer in kept else "left out"}">{layer}</span>'
        for layer in range(max(kept) + 1)
    )
    st.html(f'<div class="layers">{cells}</div>')
    st.caption(f"{len(kept)} of the teacher's layers are kept (filled), counted from 0.")
    for name, (number, of) in (record.model.kept_widths or {}).items():
        st.caption(f"{number:,} of {of:,} {WIDTHS[name]} are kept.")


def failures(root: Path, runs: pd.DataFrame) -> None:
    """Runs that failed or were stopped, with the reason and a way on."""
    failed = runs[runs["status"] != "finished"]
    if failed.empty:
        return
    title = f"{text_format.plural(len(failed), 'run')} did not finish"
    with st.expander(title, icon=":material/warning:"):
        newest = failed.sort_values("finished_at", ascending=False)
        for row in row_dicts(newest.head(20)):
            text, resume, more = st.columns([8, 2, 1], vertical_alignment="center")
            why = row["error"] or "No reason was recorded."
            text.markdown(
                f"**{text_format.md(row['run_id'])}** {row['status']} "
                f"{text_format.ago(row['finished_at'])}  \n"
                f"{text_format.md(why)}"
            )
            with more:
                removal.menu(root, row["run_id"], place="failed")
            if not widgets.read_only() and resume.button(
                "Resume", key=f"explore_resume_{row['run_id']}", icon=":material/replay:"
            ):
                _again(root, row["run_id"])
        if len(failed) > 20:
            st.caption(f"and {len(failed) - 20:,} earlier ones.")
