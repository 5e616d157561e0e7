"""A task's scores and answers, from what lm-eval says: a row a metric, a row a document.

task_scores.scores(task, "starter_facts", results, samples, seconds=3.2)
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from lm_eval.api.task import Task

from explorer.errors import BadInput
from explorer.harness.metrics import CHOICE_METRICS, EXACT_METRICS, HEADLINES, first_of
from explorer.measure import task_sets
from explorer.records import TaskScore

ANSWER_COLUMNS = ["task", "metric", "doc_id", "doc_hash", "value"]


def _metric_name(metric: str, filter_name: str, filters: set[str]) -> str:
    """lm-eval's key without the filter, unless the task scores one metric by several."""
    return metric if len(filters) == 1 else f"{metric},{filter_name}"


def answers(task: str, samples: list[dict[str, Any]]) -> pd.DataFrame:
    """A row a document and metric, for metrics that have a number for a document."""
    filters: dict[str, set[str]] = {}
    for sample in samples:
        for metric in sample["metrics"]:
            filters.setdefault(metric, set()).add(sample["filter"])
    rows = [
        (
            task,
            _metric_name(metric, sample["filter"], filters[metric]),
            int(sample["doc_id"]),
            sample["doc_hash"],
            float(sample[metric]),
        )
        for sample in samples
        for metric in sample["metrics"]
        if isinstance(sample[metric], int | float | np.number)
    ]
    return pd.DataFrame(rows, columns=ANSWER_COLUMNS)


def scores(
    task: Task, name: str, results: dict[str, Any], samples: list[dict[str, Any]], seconds: float
) -> list[TaskScore]:
    """A row a metric of one task; metrics whose value is no finite number are left out."""
    values = results["results"][name]
    keys = [key.partition(",") for key in values if "," in key and "_stderr," not in key]
    filters: dict[str, set[str]] = {}
    for metric, _, filter_name in keys:
        filters.setdefault(metric, set()).add(filter_name)
    higher = results["higher_is_better"].get(name, {})
    rows = []
    for metric, _, filter_name in keys:
        value = values[f"{metric},{filter_name}"]
        if not isinstance(value, int | float | np.number) or not math.isfinite(value):
            continue
        stderr = values.get(f"{metric}_stderr,{filter_name}")
        known = isinstance(stderr, int | float | np.number) and math.isfinite(stderr)
        rows.append(
            TaskScore(
                task=name,
                metric=_metric_name(metric, filter_name, filters[metric]),
                score=float(value),
                stderr=float(stderr) if known else None,
                chance=chance_level(task, metric, samples),
                higher_is_better=higher.get(metric) is not False,
                headline=False,
                num_documents=results["n-samples"][name]["effective"],
                num_documents_total=results["n-samples"][name]["original"],
                num_fewshot=int(results["n-shot"].get(name) or 0),
                task_version=str(task.VERSION),
                task_hash=results["task_hashes"][name],
                seconds=round(seconds, 3),
            )
        )
    headline = _headline(task, name, [row.metric for row in rows])
    return [row.model_copy(update={"headline": row.metric == headline}) for row in rows]


def _headline(task: Task, name: str, metrics: list[str]) -> str | None:
    """The metric that stands for a task: what its file says, else acc_norm, acc, the first."""
    said = task_sets.metadata(task).get("headline_metric")
    found = first_of([said] if said else HEADLINES, metrics)
    if said and found is None:
        raise BadInput(
            f"The task {name} names the headline_metric {said!r}, but its metrics are "
            f"{', '.join(metrics)}. Correct its task file."
        )
    return found or next(iter(metrics), None)


def chance_level(task: Task, metric: str, samples: list[dict[str, Any]]) -> float | None:
    """Score of somebody who guesses, or None where that is not known.

    What the task's file says (`metadata: chance`, a number or one for each metric) goes
    first. Multiple choice: mean over the documents of correct choices by choices. Greedy
    continuations and exact matches of free text: 0.
    """
    said = task_sets.metadata(task).get("chance")
    if isinstance(said, dict):
        said = said.get(metric)
    kind = task.OUTPUT_TYPE
    if metric not in CHOICE_METRICS | EXACT_METRICS:
        return None
    if said is not None:
        return float(said)
    if callable(task.config.process_results):
        # The task scores by its own rules, which we do not know.
        return None
    if kind == "multiple_choice" and metric in CHOICE_METRICS:
        asked_twice = 2 if "acc_mutual_info" in samples[0]["metrics"] else 1
        shares = [
            (len(sample["target"]) if isinstance(sample["target"], list) else 1)
            / (len(sample["arguments"]) / asked_twice)
            for sample in samples
        ]
        return math.fsum(shares) / len(shares)
    return 0.0 if metric in EXACT_METRICS else None
