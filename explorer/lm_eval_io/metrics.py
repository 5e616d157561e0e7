"""Decided here once: a metric's chance level, a task's headline metric, a metric's short name.

The list of tasks, an evaluation and an import all ask these functions. A task file may state both
under `metadata`: `chance` (a number, or one per metric) and `headline_metric`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from explorer.errors import BadInput
from explorer.lm_eval_io import samples

CHOICE_METRICS = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info"})
"""Metrics of multiple choice: guessing is right once in the number of choices."""
EXACT_METRICS = frozenset({"acc", "exact_match", "em"})
"""Metrics of free text: guessing is never right."""
HEADLINES = ("acc_norm", "acc")
"""The headline metric of a task that states none: the first of these that it has."""


def chance_level(
    config: Mapping[str, Any], metric: str, num_choices: int | None, num_right: int = 1
) -> float | None:
    """Expected score of random guessing on one document; None if unknown.

    A level that the task states comes first. Multiple choice: right choices / choices. Greedy
    continuations and exact matches of free text: 0.

    Args:
        config: The task's settings, as its file or lm-eval's results file has them.
        metric: Without its filter.
        num_choices: Choices of the document; None if unknown.
        num_right: How many of them are right.
    """
    if metric not in CHOICE_METRICS | EXACT_METRICS:
        return None
    stated = _metadata(config).get("chance")
    stated = stated.get(metric) if isinstance(stated, dict) else stated
    if isinstance(stated, int | float) and math.isfinite(stated):
        return float(stated)
    if config.get("process_results"):
        return None  # the task scores by rules of its own, which we do not know
    if config.get("output_type") == "multiple_choice" and metric in CHOICE_METRICS:
        return num_right / num_choices if num_choices else None
    return 0.0 if metric in EXACT_METRICS and config.get("output_type") else None


def chance_of_document(
    config: Mapping[str, Any], metric: str, line: samples.SampleLine
) -> float | None:
    """`chance_level` for the document of a sample."""
    choices = samples.parse_answer(line, metric).choices if line else ()
    # If the target cannot be told from the choices, one of them is right.
    num_right = max(1, sum(choice.right for choice in choices))
    return chance_level(config, metric, len(choices) or None, num_right)


def mean_chance(
    config: Mapping[str, Any], metric: str, lines: Sequence[samples.SampleLine]
) -> float | None:
    """The mean of `chance_of_document` over a task's samples; None if any is unknown."""
    levels = [chance_of_document(config, metric, line) for line in lines]
    levels = levels or [chance_of_document(config, metric, {})]
    known = [level for level in levels if level is not None]
    return math.fsum(known) / len(known) if len(known) == len(levels) else None


def headline_metric(config: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The metric that stands for a task: the one it states, else acc_norm, acc, the first.

    Args:
        config: The task's settings.
        names: Its metrics, with or without their filters.

    Returns:
        One of `names`; None if there are none.
    """
    stated = _metadata(config).get("headline_metric")
    preferred = _first_of((stated, *HEADLINES), names)
    return preferred or next(iter(names), None)


def check_headline(task: str, config: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse a task that states a headline metric that it does not have.

    Raises:
        BadInput: It does; the message lists its metrics.
    """
    stated = _metadata(config).get("headline_metric")
    if stated and names and _first_of([stated], names) is None:
        raise BadInput(
            f"The task {task} names the headline_metric {stated!r}, but its metrics are "
            f"{', '.join(names)}. Correct its task file."
        )


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """lm-eval's `metric,filter` to our name: the filter is a part of it unless it is `none`.

    Args:
        keys: As lm-eval's results have them, each once.
    """
    return {key: key.removesuffix(",none") for key in keys}


def _first_of(wanted: Iterable[str | None], names: Sequence[str]) -> str | None:
    """The first wanted metric that is among the names, whatever its filter."""
    for metric in wanted:
        for name in names:
            if name.partition(",")[0] == metric:
                return name
    return None


def _metadata(config: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = config.get("metadata")
    return metadata if isinstance(metadata, dict) else {}
