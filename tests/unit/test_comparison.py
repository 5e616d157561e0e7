"""The order, the best values and the sentences of a comparison."""

import pandas as pd
import pytest

from explorer.analysis.tables import comparison, run_table


def runs():
    """A teacher, a large and a small student, and one that was timed on a busy machine."""
    return pd.DataFrame(
        {
            "run_id": ["t", "large", "small", "busy"],
            "role": ["teacher", "student", "student", "student"],
            "label": ["teacher", "24 layers", "10 layers", "6 layers"],
            "teacher": "starter",
            "device_name": "CPU",
            "num_layers": [30, 24, 10, 6],
            "num_parameters": [135e6, 113e6, 64e6, 50e6],
            "weight_bytes": [540e6, 450e6, 255e6, 200e6],
            "retention": [1.0, 0.84, 0.46, 0.28],
            "retention_low": [1.0, 0.78, 0.39, 0.21],
            "retention_high": [1.0, 0.9, 0.54, 0.36],
            "raw_ratio": [1.0, 0.9, 0.67, 0.57],
            "raw_low": [1.0, 0.87, 0.63, 0.53],
            "raw_high": [1.0, 0.93, 0.7, 0.61],
            "kl_after": [None, 0.33, 1.04, 1.44],
            "ttft_ms": [240.0, 220.0, 125.0, 1.0],
            "tpot_ms": [60.0, 48.0, 33.0, 1.0],
            "tpot_ratio": [None, 0.8, 0.55, 0.01],
            "peak_memory_bytes": [6e8, 5e8, 3e8, 1e8],
            "machine_busy": [False, False, False, True],
            "usd_per_mtok": [1.6, 1.5, 0.9, 0.1],
            "utilisation": 0.5,
            "prompt_tokens": 128.0,
            "output_tokens": 64.0,
        }
    )


@pytest.mark.parametrize(
    ("order", "reverse", "expected"),
    [
        ("Retention [95 %]", False, ["t", "large", "small", "busy"]),
        ("Weights", False, ["t", "busy", "small", "large"]),
        ("Weights", True, ["t", "large", "small", "busy"]),
        ("KL (nats)", False, ["t", "large", "small", "busy"]),
        ("Model", False, ["t", "small", "large", "busy"]),
    ],
)
def test_a_column_sorts_the_students_under_their_teacher(order, reverse, expected):
    """What is better comes first, and last the other way round."""
    assert list(comparison.sort_runs(runs(), order, reverse=reverse)["run_id"]) == expected


def test_the_best_of_a_column_is_a_quiet_run_and_no_teacher_by_definition():
    """A teacher's 100 % is not a result; a time of a busy machine counts for nothing."""
    rows = runs()
    cells = run_table.comparison_table(rows).loc[rows.index]

    best = comparison.best_cells(cells, rows).set_axis(rows["run_id"])

    def winners(heading):
        return list(best.index[best[heading]])

    assert winners("Retention [95 %]") == ["large"]
    assert winners("TPOT (ms)") == ["small"]
    assert winners("Weights") == ["busy"]
    assert winners("Layers") == []
    (per_token,) = [name for name in cells if name.startswith("$/1M")]
    assert winners(per_token) == ["small"]


def test_the_best_of_one_is_not_the_best():
    """With nothing to compare with, nothing is bold."""
    rows = runs().iloc[:2]

    best = comparison.best_cells(run_table.comparison_table(rows).loc[rows.index], rows)

    assert not best["Retention [95 %]"].any()


@pytest.mark.parametrize(
    ("run", "verdict", "expected"),
    [
        (
            "large",
            "worse",
            "24 layers against starter (teacher): 16 points of retention lost, 20 % faster, 17 % "
            "smaller.",
        ),
        (
            "busy",
            "inconclusive",
            "6 layers against starter (teacher): their scores can't be told apart, 63 % smaller.",
        ),
        (
            "small",
            None,
            "10 layers against starter (teacher): their scores can't be compared, 45 % faster, "
            "53 % smaller.",
        ),
    ],
)
def test_a_pair_is_one_sentence(run, verdict, expected):
    """What is lost only where it is shown, and no time of a busy machine."""
    rows = runs().set_index("run_id", drop=False)

    assert comparison.pair_sentence(rows.loc[run], rows.loc["t"], verdict) == expected


def test_several_runs_are_counted_by_their_verdicts():
    """Better, worse, not told apart, and refused."""
    verdicts = ["better", "worse", "worse", "inconclusive", None]

    assert comparison.table_sentence(verdicts, "the teacher") == (
        "Of 5 runs, 1 scores better than the teacher, 2 score worse than the teacher, 1 can't be "
        "told apart from it and 1 can't be compared."
    )
