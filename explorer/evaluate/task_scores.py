"""A task's scores, one row per metric, and answers, one row per document, from lm-eval's output.

task_scores.score_rows(task, "starter_facts", output, lines, seconds=3.2)
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from lm_eval.api.task import Task

from explorer.errors import BadInput
from explorer.lm_eval_io import metrics, results
from explorer.records import TaskScore
from explorer.tasks import task_loading


def check_metadata_fields(task: Task, name: str) -> None:
    """Refuse a task file whose metadata does not match its documents, before the evaluation.

    Raises:
        BadInput: `metadata: cluster` or `stratum` names a field that the documents do not have.
    """
    first = task.eval_docs[0]
    for key in ("cluster", "stratum"):
        field = task_loading.task_metadata(task).get(key)
        if field is not None and field not in first:
            raise BadInput(
                f"The task {name} says metadata: {key}: {field}, but its documents have no such "
                f"field; they have {', '.join(map(str, first))}. Correct its task file."
            )


def answer_rows(task: Task, name: str, lines: list[dict[str, Any]]) -> pd.DataFrame:
    """One row per document and metric, in the columns of `lm_eval_io.results.answers_frame`.

    Args:
        task: The task; its settings are read.
        name: Its name.
        lines: Its samples, as lm-eval writes them.
    """
    filters: dict[str, set[str]] = {}
    for line in lines:
        for metric in line["metrics"]:
            filters.setdefault(metric, set()).add(line["filter"])
    names = metrics.short_names(
        f"{metric},{filter_name}" for metric in filters for filter_name in sorted(filters[metric])
    )
    return results.answers_frame(name, lines, names, task.dump_config())


def score_rows(
    task: Task, name: str, output: dict[str, Any], lines: list[dict[str, Any]], seconds: float
) -> list[TaskScore]:
    """One row per metric of a task; metrics without a finite value are left out.

    Args:
        task: The task; its settings are read.
        name: Its name.
        output: What lm-eval's `evaluate` returned.
        lines: The task's samples, as lm-eval writes them.
        seconds: How long the evaluation took.
    """
    values, config = output["results"][name], task.dump_config()
    keys = [key for key in values if "," in key and "_stderr," not in key]
    names = metrics.short_names(keys)
    higher = output["higher_is_better"].get(name, {})
    rows = []
    for key in keys:
        metric, _, filter_name = key.partition(",")
        value = values[key]
        if not isinstance(value, int | float | np.number) or not math.isfinite(value):
            continue
        stderr = values.get(f"{metric}_stderr,{filter_name}")
        known = isinstance(stderr, int | float | np.number) and math.isfinite(stderr)
        rows.append(
            TaskScore(
                task=name,
                metric=names[key],
                filter=filter_name,
                score=float(value),
                stderr=float(stderr) if known else None,
                chance=metrics.mean_chance(config, metric, lines),
                higher_is_better=higher.get(metric) is not False,
                headline=False,
                num_documents=output["n-samples"][name]["effective"],
                num_documents_total=output["n-samples"][name]["original"],
                num_fewshot=output["n-shot"][name],
                task_version=str(task.VERSION),
                task_hash=output["task_hashes"][name],
                seconds=round(seconds, 3),
            )
        )
    scored = [row.metric for row in rows]
    metrics.check_headline(name, config, scored)
    headline = metrics.headline_metric(config, scored)
    return [row.model_copy(update={"headline": row.metric == headline}) for row in rows]
