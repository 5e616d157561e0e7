import numpy as np
import pandas as pd
import pytest

from explorer.charts import labels, retention_chart, theme
from explorer.charts.thinning import MOST_POINTS
from explorer.errors import BadInput


def runs(**changes):
    """A teacher, three students on the frontier and one below it; a claim and an estimate."""
    columns = {
        "run_id": ["t", "s24", "s15", "s6", "slow", "claim", "guess"],
        "role": ["teacher", *["student"] * 6],
        "basis": [*["measured"] * 5, "published", "estimated"],
        "label": ["teacher", "24 layers", "15 layers", "6 layers", "uniform", "claim", "guess"],
        "teacher": "starter",
        "retention": [1.0, 0.9, 0.7, 0.3, 0.5, 0.97, 0.6],
        "retention_low": [np.nan, 0.84, 0.62, 0.2, 0.44, np.nan, np.nan],
        "retention_high": [np.nan, 0.96, 0.78, 0.4, 0.56, np.nan, np.nan],
        "raw_ratio": [1.0, 0.95, 0.85, 0.6, 0.7, 0.98, 0.8],
        "raw_low": np.nan,
        "raw_high": np.nan,
        "tpot_ms": [32.0, 27.0, 19.0, 11.0, 25.0, 15.0, 22.0],
        "ttft_ms": [215.0, 176.0, 122.0, 62.0, 170.0, 100.0, 140.0],
        "num_parameters": [134e6, 113e6, 81e6, 50e6, 81e6, 70e6, 90e6],
        "peak_memory_bytes": [750e6, 665e6, 537e6, 410e6, 540e6, 500e6, 560e6],
        "usd_per_mtok": [0.97, 0.8, 0.57, 0.31, 0.75, 0.5, 0.6],
        "output_tokens_per_usd": [1.03e6, 1.25e6, 1.75e6, 3.2e6, 1.33e6, 2e6, 1.67e6],
        "usd_per_hour_at_load": [0.05, 0.041, 0.03, 0.016, 0.039, 0.02, 0.03],
        "latency_ms": [2200.0, 1870, 1320, 760, 1740, 1050, 1530],
        "output_tokens_per_s": [29.0, 34, 48, 84, 37, 61, 42],
        "weight_bytes": [540e6, 450e6, 330e6, 200e6, 330e6, 280e6, 360e6],
        "joules_per_token": [2.0, 1.7, 1.2, 0.7, 1.6, 0.9, 1.3],
    }
    return pd.DataFrame(columns | changes)


def points(figure):
    """Run id to (x, y, symbol) of everything that can be clicked."""
    return {
        str(custom[0]): (x, y, trace.marker.symbol)
        for trace in figure.data
        if trace.customdata is not None
        for x, y, custom in zip(trace.x, trace.y, trace.customdata, strict=True)
    }


def frontier_steps(figure):
    """Each step of the frontier from left to right: where it begins, and its opacity."""
    return sorted(
        (x, y, float(trace.line.color.rstrip(")").rsplit(",", 1)[1]))
        for trace in figure.data
        if trace.name == "frontier"
        for before, x, y in zip((None, *trace.x), trace.x, trace.y, strict=False)
        if before is None and x is not None
    )


def names(figure):
    """Each name beside a point: its text, its place and its legend group."""
    return [
        (text, x, y, trace.legendgroup)
        for trace in figure.data
        if trace.mode == "markers+text"
        for text, x, y in zip(trace.text, trace.x, trace.y, strict=True)
    ]


def texts(figure):
    notes = [annotation.text for annotation in figure.layout.annotations]
    return [*notes, *(name[0] for name in names(figure))]


@pytest.mark.parametrize("x", list(retention_chart.AXES))
@pytest.mark.parametrize("y", list(retention_chart.HEIGHTS))
@pytest.mark.parametrize("template", ["light", "dark"])
def test_every_axis_shows_every_run_where_it_can_be_clicked(x, y, template):
    """A point is at its run's numbers and carries its run's id."""
    frame = runs()
    found = points(retention_chart.retention_chart(frame, x, y=y, template=template))

    assert set(found) == set(frame["run_id"])
    for row in frame.to_dict("records"):
        assert found[row["run_id"]][:2] == pytest.approx((row[x], 100 * row[y]))


def test_a_run_on_a_busy_machine_is_hollow_and_grey_and_not_on_the_frontier():
    """It can be clicked and hovered, and the line is as if it were not there."""
    frame = runs().assign(machine_busy=[False, False, False, True, False, False, False])

    figure = retention_chart.retention_chart(frame)

    at = points(figure)
    assert at["s6"][2] == "circle-open"
    assert at["s15"][2] == "circle"
    busy = next(trace for trace in figure.data if trace.name == "machine was busy")
    assert busy.showlegend
    assert busy.marker.color == theme.INKS["light"]["quiet"]
    assert "machine was busy: no conclusion uses these times" in busy.customdata[0][1]
    assert frontier_steps(figure)[0][0] == 19.0
    assert "6 layers" not in texts(figure), "names stand at the frontier's points"


def test_a_busy_teacher_is_a_hollow_grey_star():
    """One name in the legend stands for both shapes."""
    frame = runs().assign(machine_busy=[True, False, False, True, False, False, False])

    figure = retention_chart.retention_chart(frame)

    assert points(figure)["t"][2] == "star-open"
    named = [trace for trace in figure.data if trace.name == "machine was busy"]
    assert [trace.showlegend for trace in named].count(True) == 1


def test_busy_runs_of_several_teachers_share_one_grey():
    """Where colours stand for teachers, a busy run has none of them."""
    teachers = ["a", "a", "b", "a", "b", "a", "b"]
    busy = [False, True, True, False, False, False, False]

    figure = retention_chart.retention_chart(runs(teacher=teachers).assign(machine_busy=busy))

    named = [trace for trace in figure.data if trace.name == "machine was busy"]
    assert {trace.marker.color for trace in named} == {theme.INKS["light"]["quiet"]}
    assert [trace.showlegend for trace in named].count(True) == 1


def test_a_slow_moment_does_not_stretch_the_axis():
    """The range is that of the others; what lies beyond it is counted, and can be clicked."""
    slow = runs(tpot_ms=[32.0, 27.0, 19.0, 11.0, 400.0, 15.0, 22.0])
    busy = [False, False, False, False, True, False, False]
    range_of_others = retention_chart.retention_chart(slow.drop(index=4)).layout.xaxis

    figure = retention_chart.retention_chart(slow.assign(machine_busy=busy))

    assert figure.layout.xaxis.range == range_of_others.range
    assert figure.layout.xaxis.type == range_of_others.type == "linear"
    assert "1 run timed on a busy machine lies outside" in texts(figure)
    assert points(figure)["slow"][0] == 400.0


def test_a_busy_teacher_keeps_its_place_on_the_axis_of_sizes():
    """A number of parameters is right whatever else ran, so nothing is cut off there."""
    frame = runs().assign(machine_busy=[True, False, False, False, False, False, False])

    figure = retention_chart.retention_chart(frame, "num_parameters")

    of_all = retention_chart.retention_chart(runs(), "num_parameters").layout.xaxis
    assert figure.layout.xaxis.range == of_all.range
    assert points(figure)["t"][2] == "star-open"
    assert not [text for text in texts(figure) if "outside" in text]


def test_what_lies_outside_and_what_has_no_value_are_both_counted():
    """Nothing goes missing silently."""
    frame = runs(tpot_ms=[32.0, 27.0, np.nan, 300.0, 400.0, 15.0, 22.0])
    busy = [False, False, False, True, True, False, False]

    assert (
        "2 runs timed on a busy machine lie outside<br>1 run without these values not shown"
    ) in texts(retention_chart.retention_chart(frame.assign(machine_busy=busy)))


def test_where_all_runs_are_busy_they_are_all_shown():
    """A chart of nothing would help nobody; it has no frontier."""
    figure = retention_chart.retention_chart(runs().assign(machine_busy=True))

    low, high = figure.layout.xaxis.range
    assert all(low <= x <= high for x, _, _ in points(figure).values())
    assert not [trace for trace in figure.data if trace.name == "frontier"]
    assert not [text for text in texts(figure) if "outside" in text]


def test_shape_says_how_a_point_is_known():
    """Teacher, measured, published and estimated cannot be taken for each other."""
    found = points(retention_chart.retention_chart(runs()))

    assert found["t"][2] == "star"
    assert found["s15"][2] == "circle"
    assert found["claim"][2] == "diamond-open"
    assert found["guess"][2] == "circle-open-dot"


def test_the_axes_say_unit_and_direction_and_pass_100_percent():
    """Better is up and to the left, and the chart says so."""
    layout = retention_chart.retention_chart(runs()).layout

    assert layout.xaxis.title.text == "TPOT, median (ms per token, less is better)"
    assert "% of the teacher" in layout.yaxis.title.text
    assert "more is better" in layout.yaxis.title.text
    assert layout.yaxis.range[1] > 100
    assert layout.xaxis.range[0] < layout.xaxis.range[1]
    assert layout.height >= 480
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"


def test_the_95_percent_line_is_named_on_the_line():
    """The reader needs no legend for it."""
    figure = retention_chart.retention_chart(runs())

    line = next(note for note in figure.layout.annotations if "95 %" in note.text)
    assert line.y == figure.layout.shapes[0].y0 == 95


def test_only_the_frontiers_points_have_names():
    """Labels name what matters; a dominated run, a claim and a guess are on hover."""
    shown = texts(retention_chart.retention_chart(runs()))

    assert {"starter", "24 layers", "15 layers", "6 layers"} <= set(shown)
    assert not {"uniform", "claim", "guess"} & set(shown)


def test_the_frontier_steps_through_measured_runs_only():
    """A claim never pushes a measurement off the line."""
    figure = retention_chart.retention_chart(runs())

    across, kept, _ = zip(*frontier_steps(figure), strict=True)
    assert across == (11.0, 19.0, 27.0, 32.0)
    assert kept == pytest.approx([30, 70, 90, 100])


def test_an_uncertain_step_of_the_frontier_fades():
    """A run that is on the frontier by luck has a fainter line."""
    frame = runs(frontier_share=[1.0, 0.2, 1.0, 1.0, 0.0, np.nan, np.nan])

    opacity = [share for *_, share in frontier_steps(retention_chart.retention_chart(frame))]
    assert opacity[2] < opacity[1] == opacity[0] == opacity[3]


def test_intervals_reach_from_low_to_high():
    """The bars are the interval's ends; a point without one has none."""
    figure = retention_chart.retention_chart(runs())

    trace = next(t for t in figure.data if t.marker.symbol == "circle" and t.customdata is not None)
    assert trace.error_y.array[0] == pytest.approx(6)
    assert trace.error_y.arrayminus[0] == pytest.approx(6)


def name_boxes(figure):
    """Left, right and middle height of each name, in pixels of the plot area."""
    (x0, x1), (y0, y1) = figure.layout.xaxis.range, figure.layout.yaxis.range
    boxes = []
    for trace in (trace for trace in figure.data if trace.mode == "markers+text"):
        names = zip(
            trace.x, trace.y, trace.textposition, trace.text, trace.marker.size, strict=True
        )
        for x, y, side, text, size in names:
            across, down = labels.SIDES[side]
            # Plotly keeps a name this far from a mark of this size.
            clearance = size / 1.6 + 1
            wide = 7 * len(text)
            # What is left of its point ends there, what is right of it begins there.
            left = (x - x0) / (x1 - x0) * 850 + across * clearance - wide * (1 - across) / 2
            boxes.append((left, left + wide, (y1 - y) / (y1 - y0) * 410 + down * (clearance + 8)))
    return boxes


def test_labels_do_not_cover_each_other():
    """Where two names would collide, one is left to the hover."""
    crowd = 40
    frame = (
        runs()
        .iloc[[1] * crowd]
        .assign(
            run_id=[f"s{i}" for i in range(crowd)],
            label=[f"{i} layers" for i in range(crowd)],
            tpot_ms=np.linspace(20, 21, crowd),
            retention=np.linspace(0.8, 0.82, crowd),
        )
    )

    figure = retention_chart.retention_chart(frame)

    boxes = name_boxes(figure)
    assert 0 < len(boxes) < crowd / 2
    for i, (left, right, middle) in enumerate(boxes):
        assert all(right <= a or b <= left or abs(middle - y) > 14 for a, b, y in boxes[:i])


@pytest.mark.parametrize("picked", ["s24", "s15", "s6", "t", "slow"])
def test_no_name_touches_the_ring_around_the_pick(picked):
    """Its own name stands further away, the others avoid it."""
    figure = retention_chart.retention_chart(runs(), picked=picked, selected="s15")

    rings = [trace for trace in figure.data if trace.marker.symbol == "circle-open"]
    assert len(rings) == len({picked, "s15"})
    view = labels.View(figure.layout.xaxis.range, figure.layout.yaxis.range, False, 850, 410)
    for ring in rings:
        at_x, at_y = view.pixel(ring.x[0], ring.y[0])
        outside = (ring.marker.size + ring.marker.line.width) / 2
        for left, right, middle in name_boxes(figure):
            top, bottom = middle - 8, middle + 8
            assert (
                right <= at_x - outside
                or left >= at_x + outside
                or (top >= at_y + outside or bottom <= at_y - outside)
            )


def test_the_pick_is_named_on_a_telephone():
    """Where neither side has room, its name may rise a little above the plot."""
    steep = runs(
        retention=[1.0, 0.99, 0.7, 0.3, 0.5, 0.97, 0.6],
        tpot_ms=[57.0, 7.8, 6.0, 2.5, 30.0, 57.0, 57.0],
        label=["teacher", "24 layers q8_0", *"abcde"],
    )

    figure = retention_chart.retention_chart(steep, picked="s24", scale="log", width=320)

    assert "24 layers q8_0" in texts(figure)


def test_runs_of_one_size_are_named_once():
    """Of two frontier points with one name the better one carries it."""
    twice = runs().iloc[[1, 1]].assign(run_id=["a", "b"], tpot_ms=[20, 60], retention=[0.5, 0.8])

    figure = retention_chart.retention_chart(twice)

    assert [y for text, _, y, _ in names(figure) if text == "24 layers"] == [80]


def test_several_teachers_get_a_colour_and_a_frontier_each():
    """A share of one teacher is not compared with a share of another."""
    other = runs(run_id=[f"o{i}" for i in range(7)], teacher="org/big").assign(
        tpot_ms=lambda r: 3 * r["tpot_ms"]
    )

    figure = retention_chart.retention_chart(pd.concat([runs(), other]))

    stars = [
        trace for trace in figure.data if trace.name in {"starter", "org/big"} and trace.showlegend
    ]
    assert len({trace.marker.color for trace in stars}) == 2
    steps = [trace for trace in figure.data if trace.name == "frontier"]
    assert len({step.line.color for step in steps}) == 2
    assert sum(bool(step.showlegend) for step in steps) == 1


def test_sizes_over_several_orders_get_a_logarithmic_axis():
    """A 70 B teacher and a 135 M student fit one chart."""
    figure = retention_chart.retention_chart(
        runs(num_parameters=np.geomspace(70e9, 135e6, 7)), "num_parameters"
    )

    assert figure.layout.xaxis.type == "log"
    assert "10 B" in figure.layout.xaxis.ticktext


@pytest.mark.parametrize("width", [300, 380, 960, 1300])
@pytest.mark.parametrize(("low", "high"), [(1.1e6, 900e9), (30e6, 40e9), (1.3e9, 7e9)])
def test_texts_of_ticks_never_touch(low, high, width):
    """On a telephone there are fewer; of a logarithmic axis the powers of ten stay."""
    axis = retention_chart.retention_chart(
        runs(num_parameters=np.geomspace(high, low, 7)),
        "num_parameters",
        scale="log",
        width=width,
    ).layout.xaxis

    plot_width = max(200, width - 110)
    ticks = np.log10(np.array(axis.tickvals)) - axis.range[0]
    centres = ticks / (axis.range[1] - axis.range[0]) * plot_width
    wide = 6.5 * np.array([len(text) for text in axis.ticktext])
    assert len(wide) >= 2
    assert ((centres - wide / 2)[1:] > (centres + wide / 2)[:-1]).all()


def test_the_name_of_the_line_avoids_the_ring():
    """Where both ends of a narrow chart have a point, the one without the ring is roomier."""
    ends = runs().iloc[[0, 1]].assign(retention=[0.94, 0.94], tpot_ms=[30.0, 3.0])

    def end(picked):
        figure = retention_chart.retention_chart(ends, picked=picked, width=380)
        return next(n.xanchor for n in figure.layout.annotations if "of the teacher" in n.text)

    assert end("s24") == "right"
    assert end("t") == "left"


def test_runs_that_cannot_be_drawn_are_counted():
    """Nothing goes missing silently."""
    tpot_ms = runs()["tpot_ms"].copy()
    tpot_ms[[1, 2]] = np.nan

    assert "2 runs without these values not shown" in texts(
        retention_chart.retention_chart(runs(tpot_ms=tpot_ms))
    )


@pytest.mark.parametrize(
    "frame", [runs().iloc[:0], runs(usd_per_mtok=np.nan), runs().drop(columns="usd_per_mtok")]
)
def test_an_empty_chart_says_what_it_needs(frame):
    """Without a price the cost axis asks for one."""
    assert any(
        "needs a price" in t for t in texts(retention_chart.retention_chart(frame, "usd_per_mtok"))
    )


def test_the_chosen_run_is_ringed():
    """The reader sees which point the strip below speaks of."""
    figure = retention_chart.retention_chart(runs(), selected="s15")

    ring = figure.data[-1]
    assert (ring.x[0], ring.y[0], ring.marker.symbol) == (19.0, pytest.approx(70), "circle-open")


def test_a_name_with_tags_stays_text():
    """A run's name cannot bring markup into the chart."""
    frame = runs(label=["<b>x</b>"] * 7, teacher="<a href='x'>")

    figure = retention_chart.retention_chart(frame)

    hover = [str(c[1]) for t in figure.data if t.customdata is not None for c in t.customdata]
    assert all("<a" not in text and "<b>x" not in text for text in [*hover, *texts(figure)])


def test_an_unknown_axis_is_refused_with_those_there_are():
    """The sentence lists what can be chosen."""
    with pytest.raises(BadInput, match="tpot_ms, ttft_ms"):
        retention_chart.retention_chart(runs(), "weight")
    with pytest.raises(BadInput, match="retention, raw_ratio"):
        retention_chart.retention_chart(runs(), y="score")


@pytest.mark.parametrize("template", ["light", "dark"])
def test_ten_thousand_runs_make_a_chart(template):
    """As many points as can be read, small, and the chart says how many of how many."""
    many = (
        runs()
        .iloc[[1]]
        .loc[[1] * 10_000]
        .assign(run_id=[f"r{i}" for i in range(10_000)], tpot_ms=np.linspace(5, 40, 10_000))
    )

    figure = retention_chart.retention_chart(many, template=template, selected="r5000")

    assert len(points(figure)) == MOST_POINTS
    assert {"r0", "r5000"} <= points(figure).keys()
    drawn = [trace for trace in figure.data if trace.customdata is not None]
    assert max(trace.marker.size for trace in drawn) < 10
    assert any("300 of 10,000 runs drawn" in text for text in texts(figure))


def test_a_frontier_of_many_steps_is_a_few_lines():
    """However many runs are on it: a line for each quarter of certainty."""
    count = 200
    rising = (
        runs()
        .iloc[[1] * count]
        .assign(
            run_id=[f"r{i}" for i in range(count)],
            tpot_ms=np.linspace(5, 40, count),
            retention=np.linspace(0.2, 0.9, count),
            frontier_share=np.linspace(0, 1, count),
        )
    )

    figure = retention_chart.retention_chart(rising)

    lines = [trace for trace in figure.data if trace.name == "frontier"]
    assert len(lines) == 5
    assert len(frontier_steps(figure)) == count
    assert sum(value is not None for trace in lines for value in trace.x) == 3 * count
    assert [trace.showlegend for trace in lines].count(True) == 1


def test_a_teacher_that_is_not_on_the_frontier_has_its_name_too():
    """A teacher is what all others are held against, wherever it stands."""
    frame = runs()
    frame.loc[frame["role"] == "teacher", "retention"] = 0.5

    assert frame.loc[frame["role"] == "teacher", "teacher"].iloc[0] in texts(
        retention_chart.retention_chart(frame)
    )
