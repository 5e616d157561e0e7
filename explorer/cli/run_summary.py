"""What `explorer show` prints: a run's result as a summary, or its progress."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from explorer.analysis import interference, load_table, numbers
from explorer.analysis.cost import unit_cost
from explorer.analysis.stats import intervals
from explorer.cli.common import console
from explorer.cli.progress_bar import note
from explorer.cli.tables import (
    GAP,
    analysed_runs,
    open_index,
    print_effects,
    print_facts,
    print_table,
)
from explorer.records import RunRecord, TaskScore, Timing
from explorer.records.rows import row_dicts

NAME_WIDTH = len("output_tokens_per_s") + GAP
"""Width of the names of facts; a line of the summary then fits 80 columns."""


def print_run(root: Path, record: RunRecord, *, wide: bool) -> None:
    """Print a finished or failed run: a summary, or with `wide` every column of the export.

    Scores, load levels and notes follow.
    """
    from explorer import jobs

    run = row_dicts(analysed_runs(root, [record.run_id], unit_cost.UTILISATION))[0]
    print_facts(_every_fact(run) if wide else _summary(record, run), width=NAME_WIDTH)
    if (row := jobs.status_row(root, record.run_id)) and row["state"] != record.status:
        why = row["error"] or row["note"] or ""
        console.print(f"Now: {row['state']}. {why}".rstrip(), markup=False)
    elif row and record.status == "finished" and row["error"]:
        console.print(row["error"], markup=False)
    if record.capability:
        _print_scores(record, wide)
    _print_notes(root, record, wide)
    if not wide:
        console.print("Every figure of the record: --wide, or --json.", markup=False)


def _summary(record: RunRecord, run: Mapping[str, Any]) -> dict[str, str]:
    """What a person asks first, one line each; what is unknown has no line."""
    is_student = run["role"] == "student"
    weights, memory = (numbers.size(run[name]) for name in ("weight_bytes", "peak_memory_bytes"))
    ttft = numbers.milliseconds(run["ttft_ms"])
    facts = {
        "run_id": record.run_id,
        "model": f"{run['label']} of {run['teacher']}" if is_student else run["model"],
        "state": _state(record, run),
        "device": run["device_name"],
        "retention": _retention(run),
        "time": _time(run),
        "first token": "" if ttft == numbers.MISSING else f"after {ttft}",
        "cost": _cost(run),
        "size": _size(run),
        "memory": "" if memory == numbers.MISSING else f"{memory} while timed",
        "weights": "" if weights == numbers.MISSING else weights,
        "training": _training(run),
        "kl": _kl(run),
        "runtime": _runtime(run),
        "timed with": _lengths(run),
        "licence": run["teacher_licence"],
        "error": run["error"],
    }
    return {name: str(text) for name, text in facts.items() if not numbers.missing(text) and text}


def _state(record: RunRecord, run: Mapping[str, Any]) -> str:
    parts: list[str] = [record.status]
    if run["finished_at"]:
        ended = datetime.fromisoformat(run["finished_at"]).astimezone(UTC)
        parts.append(f"{ended:%Y-%m-%d %H:%M} UTC")
    basis = ", imported" if run["basis"] == "imported" else ""
    return f"{' '.join(parts)}{basis}"


def _retention(run: Mapping[str, Any]) -> str:
    if run["role"] == "teacher":
        return "100 %: it is the teacher"
    if numbers.missing(run["retention"]):
        return f"unknown: {run['excluded_tasks']}" if run["excluded_tasks"] else ""
    share = numbers.percent(run["retention"], run["retention_low"], run["retention_high"])
    num_tasks = int(run["num_tasks"])
    tasks = "1 task" if num_tasks == 1 else f"{num_tasks} tasks"
    return f"{share} of the teacher's capability, {tasks}"


def _time(run: Mapping[str, Any]) -> str:
    if numbers.missing(run["tpot_ms"]):
        return ""
    ratio = "" if numbers.missing(run["tpot_ratio"]) else numbers.times(run["tpot_ratio"])
    compared = f", {ratio} the teacher's" if ratio else ""
    busy = f"; {interference.MARK}, not used" if run["machine_busy"] else ""
    return f"{numbers.milliseconds(run['tpot_ms'])} per token{compared}{busy}"


def _cost(run: Mapping[str, Any]) -> str:
    if numbers.missing(run["usd_per_mtok"]):
        return "" if numbers.missing(run["tpot_ms"]) else f"unknown: {run['price_note']}"
    return (
        f"{numbers.dollars(run['usd_per_mtok'])} per 1M output tokens "
        f"{unit_cost.utilisation_text(run['utilisation'])}, "
        f"{numbers.dollars(run['usd_per_hour'])} per hour"
    )


def _training(run: Mapping[str, Any]) -> str:
    if numbers.missing(run["scored_tokens"]):
        return ""
    text = f"{run['scored_tokens']:,.0f} tokens of {run['corpus']} ({run['method']})"
    if not numbers.missing(run["train_seconds"]):
        text += f" in {numbers.duration(run['train_seconds'])}"
    return text


def _kl(run: Mapping[str, Any]) -> str:
    if numbers.missing(run["kl_after"]):
        return ""
    before, after = (numbers.significant(run[name]) for name in ("kl_before", "kl_after"))
    return f"{before} before training, {after} after (nats per token)"


def _runtime(run: Mapping[str, Any]) -> str:
    parts = [run["runtime"], run["dtype"]]
    if not numbers.missing(run["lm_eval_version"]):
        parts.append(f"lm-eval {run['lm_eval_version']}")
    return ", ".join(str(part) for part in parts if not numbers.missing(part))


def _lengths(run: Mapping[str, Any]) -> str:
    if numbers.missing(run["prompt_tokens"]):
        return ""
    return unit_cost.lengths_text(run["prompt_tokens"], run["output_tokens"])


def _size(run: Mapping[str, Any]) -> str:
    if numbers.missing(run["num_parameters"]):
        return ""
    layers = "" if numbers.missing(run["num_layers"]) else f"{run['num_layers']:.0f} layers, "
    return f"{layers}{numbers.parameters(run['num_parameters'])} parameters"


def _every_fact(run: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: f"{value:.4g}" if isinstance(value, float) else str(value)
        for name, value in run.items()
        if not numbers.missing(value) and value != ""
    }


def _print_scores(record: RunRecord, wide: bool) -> None:
    assert record.capability is not None, "only called for an evaluated run"
    scores = [
        {
            "Task": score.task,
            "Metric": score.metric,
            "Score [95 %]": _score(score),
            "Std. error": numbers.MISSING if score.stderr is None else f"{score.stderr:.3f}",
            "Chance": numbers.MISSING if score.chance is None else f"{score.chance:.3f}",
            "Documents": str(score.num_documents),
        }
        for score in record.capability.scores
        if score.headline
    ]
    if scores:
        print_table(
            pd.DataFrame(scores),
            identifying=["Task"],
            wide=wide,
            importance=["Score [95 %]", "Documents", "Chance", "Metric"],
        )


def _score(score: TaskScore) -> str:
    """A score, with Wilson's interval if it is a share of right answers."""
    right = score.score * score.num_documents
    if score.chance is None or abs(right - round(right)) > 1e-6:
        return f"{score.score:.3f}"
    low, high = intervals.wilson(right, score.num_documents)
    return f"{score.score:.3f} [{low:.3f}, {high:.3f}]"


def _print_notes(root: Path, record: RunRecord, wide: bool) -> None:
    """Print what belongs to the run beside its figures: API usage, load, problems, effects."""
    from explorer.catalogue import api_prices

    if usage := api_prices.run_usage_message(record, root):
        console.print(f"API usage: {usage}", markup=False)
    for sentence in record.endpoint_notes:
        console.print(sentence, markup=False, soft_wrap=True)
    if record.latency and record.latency.own.curve:
        _print_load_levels(record.latency.own, wide)
    if record.latency and record.latency.warning:
        console.print(record.latency.warning, markup=False)
    if record.latency and record.latency.was_busy:
        advice = interference.retiming_advice([record.run_id])
        console.print(advice, markup=False, soft_wrap=True)
    if record.imported:
        if source := record.imported.timing:
            text = f"Timed by {source.tool} on {source.device_name}, {source.load}; imported."
            console.print(text, markup=False, soft_wrap=True)
        for problem in record.imported.problems:
            console.print(problem, markup=False, soft_wrap=True)
    print_effects(open_index(root), [record.run_id])


def _print_load_levels(timing: Timing, wide: bool) -> None:
    """Print the levels of the load test, and why it stopped."""
    cells = [
        {
            "Load": f"{row['level']:g} {load_table.KINDS[row['kind']]}",
            "Answered": str(row["num_requests"]),
            "Failed": str(row["num_failed"]),
            "Tokens/s": numbers.significant(row["output_tokens_per_s"]),
            "TTFT (ms)": numbers.significant(row["ttft_ms"]),
            "TPOT (ms)": numbers.significant(row["tpot_ms"]),
        }
        for row in row_dicts(load_table.load_table(timing))
    ]
    print_table(
        pd.DataFrame(cells),
        identifying=["Load"],
        wide=wide,
        importance=["Tokens/s", "TPOT (ms)", "TTFT (ms)", "Failed"],
    )
    if timing.curve_note:
        console.print(timing.curve_note, markup=False)


def print_progress(run_id: str, row: Mapping[str, Any] | None) -> None:
    """Print the state of a run that has no record yet, and what to do next."""
    if row is None:
        console.print(
            f"{run_id} has not started. Start it: explorer run {run_id}",
            markup=False,
            soft_wrap=True,
        )
        return
    facts = {"run_id": run_id, "state": row["state"]}
    if row["stage"]:
        facts["stage"] = row["stage"]
    if progress := note(row):
        facts["progress"] = progress
    if row["device"] and row["state"] == "running":
        facts["device"] = row["device"]
    if row["error"]:
        facts["reason"] = row["error"]
    if row["note"]:
        facts["note"] = row["note"]
    verb = "cancel" if row["state"] in ("queued", "running") else "resume"
    facts["next"] = f"explorer {verb} {run_id}"
    print_facts(facts)
