"""A task's scores and answers, from what lm-eval says: a row a metric, a row a document.

task_scores.scores(task, "starter_facts", found, lines, seconds=3.2)
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from lm_eval.api.task import Task

from explorer.errors import BadInput
from explorer.lm_eval_io import results
from explorer.lm_eval_io.metrics import HEADLINES, first_of
from explorer.records import TaskScore
from explorer.tasks import task_loading


def _metric_name(metric: str, filter_name: str, filters: set[str]) -> str:
    """lm-eval's key without the filter, unless the task scores one metric by several."""
    return metric if len(filters) == 1 else f"{metric},{filter_name}"


def check_metadata_fields(task: Task, name: str) -> None:
    """Look, before anything is asked, at what the task's file says of its documents.

    Raises:
        BadInput: `metadata: cluster` or `stratum` names a field that they do not have.
    """
    first = task.eval_docs[0]
    for key in ("cluster", "stratum"):
        field = task_loading.metadata(task).get(key)
        if field is not None and field not in first:
            raise BadInput(
                f"The task {name} says metadata: {key}: {field}, but its documents have no such "
                f"field; they have {', '.join(map(str, first))}. Correct its task file."
            )


def answer_rows(task: Task, name: str, lines: list[dict[str, Any]]) -> pd.DataFrame:
    """A row a document and metric, as `harness.results.answers` has them.

    Args:
        task: For its settings.
        name: Its name.
        lines: Its samples, as they are written.
    """
    filters: dict[str, set[str]] = {}
    for line in lines:
        for metric in line["metrics"]:
            filters.setdefault(metric, set()).add(line["filter"])
    names = {
        f"{metric},{filter_name}": _metric_name(metric, filter_name, filters[metric])
        for metric in filters
        for filter_name in sorted(filters[metric])
    }
    return results.answers_frame(name, lines, names, task.dump_config())


def score_rows(
    task: Task, name: str, found: dict[str, Any], lines: list[dict[str, Any]], seconds: float
) -> list[TaskScore]:
    """A row a metric of one task; metrics whose value is no finite number are left out.

    Args:
        task: For its settings.
        name: Its name.
        found: What lm-eval returned.
        lines: The task's samples, as they are written.
        seconds: That it took.
    """
    values = found["results"][name]
    keys = [key.partition(",") for key in values if "," in key and "_stderr," not in key]
    filters: dict[str, set[str]] = {}
    for metric, _, filter_name in keys:
        filters.setdefault(metric, set()).add(filter_name)
    higher = found["higher_is_better"].get(name, {})
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
                chance=results.chance(task.dump_config(), metric, lines),
                higher_is_better=higher.get(metric) is not False,
                headline=False,
                num_documents=found["n-samples"][name]["effective"],
                num_documents_total=found["n-samples"][name]["original"],
                num_fewshot=found["n-shot"][name],
                task_version=str(task.VERSION),
                task_hash=found["task_hashes"][name],
                seconds=round(seconds, 3),
            )
        )
    headline = _headline(task, name, [row.metric for row in rows])
    return [row.model_copy(update={"headline": row.metric == headline}) for row in rows]


def _headline(task: Task, name: str, metrics: list[str]) -> str | None:
    """The metric that stands for a task: what its file says, else acc_norm, acc, the first."""
    said = task_loading.metadata(task).get("headline_metric")
    found = first_of([said] if said else HEADLINES, metrics)
    if said and found is None:
        raise BadInput(
            f"The task {name} names the headline_metric {said!r}, but its metrics are "
            f"{', '.join(metrics)}. Correct its task file."
        )
    return found or next(iter(metrics), None)
