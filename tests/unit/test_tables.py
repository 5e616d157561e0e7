import numpy as np
import pandas as pd
import pytest

from explorer.analysis import numbers
from explorer.analysis.tables import run_table


def runs():
    """A teacher between two students, with gaps."""
    return pd.DataFrame(
        {
            "run_id": ["s6", "t", "s15", "failed"],
            "role": ["student", "teacher", "student", "student"],
            "label": ["6 layers", "teacher", "15 layers", "10 layers"],
            "teacher": "starter",
            "num_layers": [6, 30, 15, np.nan],
            "num_parameters": [49_552_704, 134_515_008, 81_413_568, np.nan],
            "weight_bytes": [198e6, 538e6, 326e6, np.nan],
            "retention": [0.1, 1.0, 0.834, np.nan],
            "retention_low": [-0.03, np.nan, 0.791, np.nan],
            "retention_high": [0.21, np.nan, 0.8719, np.nan],
            "raw_ratio": [0.5, 1.0, 0.9, np.nan],
            "tpot_ms": [10.66, 32.53, 19.0, np.nan],
            "tpot_ratio": [0.332, np.nan, 0.521, np.nan],
            "usd_per_mtok": [0.316, 0.976, np.nan, np.nan],
            "kept_layers": [[0, 1, 29], None, [0, 2], None],
        },
        index=[7, 3, 5, 9],
    )


def test_the_teacher_is_on_top_and_students_follow_by_what_they_keep():
    """The reader starts at what is to be kept; what is not known comes last."""
    table = run_table.comparison_table(runs())

    assert table["Model"].tolist() == ["starter (teacher)", "15 layers", "6 layers", "10 layers"]
    assert table.index.tolist() == [3, 5, 7, 9]


def test_cells_have_three_digits_units_and_intervals():
    """A cell can be read alone."""
    row = run_table.comparison_table(runs()).loc[5]

    assert row["Retention [95 %]"] == "83.4 % [79.1, 87.2]"
    assert row["Raw ratio [95 %]"] == "90.0 %"
    assert row["Parameters"] == "81.4 M"
    assert row["TPOT (ms)"] == "19.0"
    assert row["Latency vs teacher"] == "0.521×"
    assert row["Weights"] == "326 MB"


def test_a_missing_value_is_an_en_dash():
    """Never a zero, never `nan`."""
    table = run_table.comparison_table(runs())

    assert table.loc[5, "$/1M output tokens at 50 % busy"] == numbers.MISSING
    assert set(table.loc[9].drop("Model")) == {numbers.MISSING}
    assert not table.map(lambda cell: "nan" in cell.lower()).any().any()


def test_a_frame_without_analysis_still_makes_a_table():
    """Runs fresh from the store have no retention and no cost yet."""
    bare = runs().drop(columns=["retention", "retention_low", "retention_high", "usd_per_mtok"])

    assert len(run_table.comparison_table(bare)) == 4


def test_raw_has_numbers_in_the_same_order():
    """The table for programs is the table for people without the rounding."""
    raw = run_table.raw_table(runs())

    assert raw["run_id"].tolist() == ["t", "s15", "s6", "failed"]
    assert raw["retention"].iloc[1] == 0.834
    assert raw["kept_layers"].tolist()[1:3] == ["0 2", "0 1 29"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (numbers.significant(0.05), "0.0500"),
        (numbers.significant(0), "0"),
        (numbers.significant(99.96), "100"),
        (numbers.significant(1234.5), "1,230"),
        (numbers.significant(-2.678), "-2.68"),
        (numbers.significant(None), "–"),
        (numbers.percent(0.834, 0.791, 0.872, digits=2), "83 % [79, 87]"),
        (numbers.percent(1.0, 0.735, 1.412, digits=2), "100 % [74, 141]"),
        (numbers.percent(0.979, 0.956, 0.999, digits=2), "98 % [96, 100]"),
        (numbers.percent(1.0), "100 %"),
        (numbers.percent(0.5, np.nan, 0.6), "50.0 %"),
        (numbers.dollars(0.0496), "$0.0496"),
        (numbers.dollars(-3), "-$3.00"),
        (numbers.milliseconds(45.23), "45.2 ms"),
        (numbers.parameters(134_515_008), "135 M"),
        (numbers.parameters(999_700_000), "1.00 B"),
        (numbers.parameters(12), "12"),
        (numbers.size(1.2e9), "1.20 GB"),
        (numbers.size(12), "12 B"),
        (numbers.duration(45), "45 s"),
        (numbers.duration(720), "12 min"),
        (numbers.duration(7200), "2.0 h"),
    ],
)
def test_numbers_are_written_as_promised(written, expected):
    """Three significant digits, a unit, an en dash for what is missing."""
    assert written == expected
