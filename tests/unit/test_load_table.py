"""Levels of load: a table, a chart and a sentence on what ran the model."""

import sys

import pytest

from explorer import cli
from explorer.analysis import load_table
from explorer.charts import run_chart
from tests import records


def test_every_level_is_a_row_and_what_is_not_known_is_missing():
    """Medians of the answered requests; no interval below six, nothing where all failed."""
    frame = load_table.load_table(records.with_levels(records.make_record()).latency.own)

    assert frame["level"].tolist() == [1, 4, 8, 0.5]
    assert frame["num_requests"].tolist() == [10, 4, 0, 10]
    assert frame["num_failed"].tolist() == [0, 1, 3, 0]
    assert frame["tpot_low_ms"].notna().tolist() == [True, False, False, True]
    assert frame["tpot_ms"].notna().tolist() == [True, True, False, True]
    assert load_table.load_table(records.make_record().latency.own).empty


def test_the_chart_counts_only_requests_at_once():
    """Arrivals at random have no place on its axis; without levels it says so."""
    figure = run_chart.load_curve(
        load_table.load_table(records.with_levels(records.make_record()).latency.own)
    )
    empty = run_chart.load_curve(load_table.load_table(records.make_record().latency.own))

    assert [list(trace.x) for trace in figure.data] == [[1, 4], [1, 4]]
    assert list(figure.data[0].y) == [20.0, 60.0]
    assert "No load level" in empty.layout.annotations[0].text


def test_a_sentence_says_what_ran_the_model():
    """Runtime, load time, bytes, energy or why not, and the failed requests."""
    said = load_table.runtime_sentence(records.with_levels(records.make_record()).latency.own)

    assert said.startswith("llama.cpp 0.3; loaded in ")
    assert "energy not known: There is no counter;" in said
    assert said.endswith("2 requests failed (2 refused).")
    assert load_table.runtime_sentence(records.make_record().latency.own) == (
        "The runtime was not recorded."
    )


def test_the_shell_shows_the_levels(store_root, monkeypatch, capsys):
    """`explorer show` prints them below the run, with why they ended."""
    record = records.with_levels(records.make_record())
    records.write_run(store_root, record)
    monkeypatch.setattr(sys, "argv", ["explorer", "show", record.run_id])

    with pytest.raises(SystemExit) as stopped:
        cli.main()

    said = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "4 clients" in said
    assert "0.5 requests/s" in said
    assert "The sweep ended at 8." in said
