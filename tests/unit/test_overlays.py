"""Published students and estimates over the chart; the axes they and the runs share."""

import numpy as np
import pandas as pd
import pytest

from explorer.analysis import overlays
from explorer.catalogue import load
from explorer.charts import chart_axes, retention_chart, run_points
from explorer.index import index_of
from explorer.pages.explore.axes import AXES
from tests import facts, records


@pytest.fixture
def runs(store_root):
    """The starter study's shape, with retention."""
    records.write_study(store_root)
    index = index_of(store_root)
    return index.with_retention(index.snapshot().runs).assign(
        usd_per_mtok=np.nan, usd_per_hour_at_load=np.nan, utilisation=0.5
    )


def estimates(runs, device="H100 SXM"):
    specs = load.load_table("hardware_specs")
    return overlays.estimated_points(
        runs,
        specs[specs["hardware"] == device],
        load.load_table("hardware"),
        utilisation=0.5,
    )


def marks_of(figure):
    """Run id to symbol of everything that can be clicked."""
    return {
        custom[0]: trace.marker.symbol
        for trace in figure.data
        if trace.customdata is not None
        for custom in trace.customdata
    }


def test_an_estimate_is_the_roofline_of_the_same_model(runs):
    """TPOT is at least the time to read the weights once at 16 bits; capability is measured."""
    points = estimates(runs).set_index("run_id")

    for row in runs.to_dict("records"):
        point = points.loc[f"estimated:{row['run_id']}"]
        assert point["tpot_ms"] == pytest.approx(2 * row["num_parameters"] / 3350e9 * 1e3)
        assert point["retention"] == row["retention"]
        assert point["basis"] == "estimated"
    assert "H100 SXM" in points["label"].iloc[0]


def test_estimates_are_multiples_of_the_teachers_estimate(runs):
    """On one device, half the parameters are half the time: no other machine enters."""
    points = estimates(runs).set_index("run_id")
    teacher = runs.loc[runs["role"] == "teacher"].iloc[0]

    for row in runs.to_dict("records"):
        share = row["num_parameters"] / teacher["num_parameters"]
        assert points.loc[f"estimated:{row['run_id']}", "tpot_ms_times"] == pytest.approx(share)


def test_measured_published_and_estimated_never_look_alike(runs):
    """Three symbols, three entries in the legend; nothing that was not measured joins a line."""
    published = overlays.published_points(facts.found().rows)
    both = pd.concat([runs, published, estimates(runs)], ignore_index=True)

    figure = retention_chart.retention_chart(both, "num_parameters", times=True)

    symbols = marks_of(figure)
    assert {symbols[run_id] for run_id in runs["run_id"]} <= {"circle", "star"}
    drawn = [run_id for run_id in symbols if run_id.startswith("published:")]
    assert drawn
    assert {symbols[run_id] for run_id in drawn} == {"diamond-open"}
    on_time = retention_chart.retention_chart(both, "tpot_ms", times=True)
    dotted = [run_id for run_id in marks_of(on_time) if run_id.startswith("estimated:")]
    assert len(dotted) == len(runs)
    assert {marks_of(on_time)[run_id] for run_id in dotted} == {"circle-open-dot"}
    entries = [trace.name for trace in figure.data if trace.showlegend is not False and trace.name]
    assert {"published", "frontier", "student, torch"} <= set(entries)


def test_overlays_move_neither_frontier_nor_colours(runs):
    """The steps through measured runs are the same with and without them, up to the axis' end."""
    plain = retention_chart.retention_chart(runs, "num_parameters", times=True)
    both = pd.concat([runs, overlays.published_points(facts.found().rows)], ignore_index=True)
    laid = retention_chart.retention_chart(both, "num_parameters", times=True)

    def steps(figure):
        (line,) = (trace for trace in figure.data if trace.name == "frontier")
        return line.x[:-2], line.y[:-2]

    assert steps(plain) == steps(laid)


def test_a_published_point_lies_at_its_share_of_the_larger_models_size():
    """Times the teacher compares each student with its own larger model."""
    rows = facts.found().rows.dropna(subset=["shrink"])
    points = overlays.published_points(rows)

    assert points["num_parameters_times"].to_numpy() == pytest.approx(1 / rows["shrink"].to_numpy())


def test_times_the_teacher_are_the_ratios_measured_in_turns(runs):
    """The axis has `tpot_ratio`, and the teacher stands at 1."""
    across = chart_axes.across(runs, "tpot_ms", times=True)

    students = runs["role"] == "student"
    assert across[students].to_numpy() == pytest.approx(runs.loc[students, "tpot_ratio"].to_numpy())
    assert across[~students].tolist() == [1.0]
    title = retention_chart.retention_chart(runs, times=True).layout.xaxis.title.text
    assert title == "TPOT, median (times the teacher's, less is better)"


def test_where_more_is_better_the_axis_runs_to_the_left(runs):
    """Better is always up and to the left, for throughput too, and the frontier follows."""
    figure = retention_chart.retention_chart(runs, "output_tokens_per_s")

    start, end = figure.layout.xaxis.range
    assert start > end
    (line,) = (trace.x for trace in figure.data if trace.name == "frontier")
    across = [x for x in line if x is not None]
    assert across == sorted(across, reverse=True)
    limited = retention_chart.retention_chart(runs, "output_tokens_per_s", x_limit=30.0)
    assert any("at least 30.0 tokens/s" in note.text for note in limited.layout.annotations)


def test_a_limit_is_drawn_where_it_lies_among_multiples(runs):
    """10 ms is a third of a teacher that takes 30 ms; its label keeps the milliseconds."""
    teacher = runs.loc[runs["role"] == "teacher", "tpot_ms"].iloc[0]
    limit = 0.7 * teacher

    figure = retention_chart.retention_chart(runs, x_limit=limit, times=True, scale="linear")

    note = next(note for note in figure.layout.annotations if note.text.startswith("at most"))
    assert note.x == pytest.approx(0.7)
    assert note.text.endswith(" ms")
    alone = runs[runs["role"] == "student"]
    without = retention_chart.retention_chart(alone, x_limit=limit, times=True)
    assert not [note for note in without.layout.annotations if note.text.startswith("at most")]


@pytest.mark.parametrize(("scale", "kind"), [("linear", "linear"), ("log", "log")])
def test_the_scale_is_as_asked(runs, scale, kind):
    """Linear or logarithmic, whatever the values span."""
    assert retention_chart.retention_chart(runs, scale=scale).layout.xaxis.type == kind


def test_a_logarithmic_axis_shows_1_2_5(runs):
    """Ticks that people read, not powers of ten alone."""
    axis = retention_chart.retention_chart(runs, scale="log").layout.xaxis

    assert {text.strip("0.") for text in axis.ticktext} <= {"1", "2", "5"}
    assert len(axis.ticktext) >= 2


def test_ticks_on_a_logarithmic_axis_have_their_sign(runs):
    """As on a linear one, where Plotly adds it."""
    times = retention_chart.retention_chart(runs, scale="log", times=True).layout.xaxis
    priced = runs.assign(usd_per_mtok=runs["tpot_ms"] / 50)
    dollars = retention_chart.retention_chart(priced, "usd_per_mtok", scale="log").layout.xaxis

    assert all(text.endswith("×") for text in times.ticktext)
    assert all(text.startswith("$") for text in dollars.ticktext)


def test_published_students_lie_where_something_is_published():
    """By size and by API price, as multiples of the larger model's where one seller has both."""
    rows = facts.found().rows

    points = overlays.published_points(rows).set_axis(rows.index)

    priced = rows["api_usd_per_mtok_output"].notna()
    assert priced.any()
    assert points["usd_per_mtok"].notna().equals(priced)
    product = (points["usd_per_mtok"] * points["output_tokens_per_usd"])[priced]
    assert product.to_numpy() == pytest.approx(1e6)
    assert points["usd_per_mtok_times"].equals(rows["price_share"].astype(float))
    assert "tpot_ms" not in points


def test_the_legend_is_not_pale_where_every_point_is(runs):
    """Limits that exclude everything leave marks that can be read; points and intervals recede."""
    whole = retention_chart.retention_chart(runs)
    figure = retention_chart.retention_chart(runs, excluded=runs["run_id"].tolist())

    def entries(chart):
        shown = [trace for trace in chart.data if trace.showlegend is not False]
        return {trace.name: trace.marker.opacity for trace in shown if trace.mode == "markers"}

    assert entries(figure).keys() == entries(whole).keys()
    assert set(entries(figure).values()) == {None}
    points = [trace for trace in figure.data if trace.customdata is not None]
    assert {value for trace in points for value in trace.marker.opacity} == {run_points.PALE}
    bright = {t.error_y.color for t in whole.data if t.customdata is not None}
    assert not bright & {t.error_y.color for t in points}


def test_hiding_an_entry_of_the_legend_hides_its_names_and_rings(runs):
    """Every name, ring and joining line is in the group of the entry that shows its points."""
    figure = retention_chart.retention_chart(
        runs, selected=runs["run_id"].iloc[1], picked=runs["run_id"].iloc[2]
    )
    entries = {trace.legendgroup for trace in figure.data if trace.showlegend is not False}

    for trace in figure.data:
        if trace.showlegend is False:
            assert trace.legendgroup in entries
    assert not [note for note in figure.layout.annotations if note.text in set(runs["label"])]


def test_what_a_limit_removed_stands_out(runs):
    """The highlighted runs and the pick are solid and named, all others pale."""
    run_ids = runs["run_id"].tolist()
    figure = retention_chart.retention_chart(
        runs, excluded=run_ids[3:], highlighted=[run_ids[4]], picked=run_ids[1]
    )

    opacity = {
        custom[0]: trace.marker.opacity[place]
        for trace in figure.data
        if trace.customdata is not None
        for place, custom in enumerate(trace.customdata)
    }
    assert {run_id for run_id, value in opacity.items() if value == 1} == {run_ids[4], run_ids[1]}


def test_every_axis_of_the_page_is_one_of_the_chart():
    """The page offers what the chart can draw, all of it."""
    assert set(AXES) == set(chart_axes.AXES)
