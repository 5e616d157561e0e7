"""What is known of lm-eval's metrics: which a guesser can get right, which stands for a task."""

from collections.abc import Iterable, Sequence

CHOICE_METRICS = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info"})
"""Metrics of a multiple-choice task that a guesser gets right once in the number of choices."""
EXACT_METRICS = frozenset({"acc", "exact_match", "em"})
"""Metrics of free text that a guesser never gets right."""
HEADLINES = ("acc_norm", "acc")
"""What stands for a task whose file says nothing, the first that it has."""


def first_of(wanted: Iterable[str | None], names: Sequence[str]) -> str | None:
    """The first wanted metric that a task has, whatever its filter; None where it has none."""
    for metric in wanted:
        for name in names:
            if name.partition(",")[0] == metric:
                return name
    return None
