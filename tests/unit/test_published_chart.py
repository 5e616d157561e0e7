"""The chart of published students."""

import pandas as pd
import pytest

from explorer.analysis.tables import run_table
from explorer.charts import published_chart as charts
from explorer.charts import published_overlay
from explorer.errors import BadInput
from tests import facts


@pytest.fixture(scope="module")
def found():
    return facts.found()


def points(figure):
    """Name to (x, y, symbol) of everything that can be clicked."""
    return {
        str(custom[0]): (x, y, symbol)
        for trace in figure.data
        if trace.customdata is not None
        for x, y, custom, symbol in zip(
            trace.x, trace.y, trace.customdata, trace.marker.symbol, strict=True
        )
    }


def texts(figure):
    notes = [annotation.text for annotation in figure.layout.annotations]
    names = [trace.text for trace in figure.data if getattr(trace, "mode", "") == "markers+text"]
    return [*notes, *(text for texts in names for text in texts)]


@pytest.mark.parametrize("x", ["api_usd_per_mtok_output", "usd_per_hour"])
@pytest.mark.parametrize("template", ["light", "dark"])
def test_every_row_with_both_values_can_be_clicked(found, x, template):
    """A point is at its row's numbers; the others are counted in the chart."""
    rows = found.rows
    shown = rows.dropna(subset=[x, "retention"])

    figure = charts.published_chart(rows, x, y="retention", template=template)

    at = points(figure)
    assert set(at) == set(shown.index)
    for name, row in shown.iterrows():
        assert at[name][:2] == pytest.approx((row[x], 100 * row["retention"]))
    assert any(text.startswith(f"{len(rows) - len(shown)} without") for text in texts(figure))


def test_models_without_a_published_size_stand_in_a_band_of_their_own(found):
    """Gemini and OpenAI are right of all sizes, at what they keep; nobody is left out."""
    rows = found.rows

    figure = charts.published_chart(rows)

    at = points(figure)
    assert set(at) == set(rows.index)
    largest = rows["teacher_params_b"].max()
    for name, row in rows.iterrows():
        x, y, _ = at[name]
        assert y == pytest.approx(100 * row["raw_ratio"])
        assert x == row["params_b"] if pd.notna(row["params_b"]) else x > largest
    assert "size not<br>published" in texts(figure)


def test_published_points_are_hollow_and_the_shape_says_more(found):
    """Diamonds: a cross where it is not distilled, a dot where the cost is estimated."""
    by_size = points(charts.published_chart(found.rows, "params_b"))
    by_rent = points(charts.published_chart(found.rows, "usd_per_hour"))

    assert by_size["DeepSeek-R1-Distill-Qwen-7B · deepseek-r1-readme"][2] == "diamond-open"
    assert by_size["Llama 3.1 8B · llama31-base"][2] == "diamond-cross-open"
    assert {symbol for _, _, symbol in by_rent.values()} == {"diamond-open-dot"}
    axis = charts.published_chart(found.rows, "usd_per_hour").layout.xaxis.title.text
    assert "Estimated" in axis


def test_few_points_are_named_in_the_chart_and_many_are_not(found):
    """Names stand beside the frontier's points, and only where they can be read."""
    rows = found.rows

    few = texts(charts.published_chart(rows[rows["family"] == "DeepSeek-R1"]))
    many = texts(charts.published_chart(rows))

    assert "DeepSeek-R1-Distill-Llama-70B" in few
    assert "DeepSeek-R1-Distill-Llama-70B" not in many


def test_the_chosen_point_is_ringed(found):
    """One ring, around that point."""
    name = "DeepSeek-R1-Distill-Qwen-7B · deepseek-r1-readme"

    figure = charts.published_chart(found.rows, selected=name)

    rings = [trace for trace in figure.data if trace.marker.symbol == "circle-open"]
    assert [list(ring.x) for ring in rings] == [[7.0]]


def test_the_name_of_the_selected_point_stands_outside_its_ring(found):
    """Plotly keeps a name as far away as the size of its mark says."""
    few = found.rows[found.rows["family"] == "DeepSeek-R1"]
    name = "DeepSeek-R1-Distill-Qwen-7B · deepseek-r1-readme"

    def kept_away(selected):
        figure = charts.published_chart(few, selected=selected)
        return {
            text: size
            for trace in figure.data
            if trace.mode == "markers+text"
            for text, size in zip(trace.text, trace.marker.size, strict=True)
        }

    student = few.loc[name, "student"]
    assert kept_away(name)[student] > kept_away(None)[student]


def test_an_axis_that_nobody_has_says_what_it_needs(found):
    """Gemini has no published size, so there is nothing to draw."""
    rows = found.rows[found.rows["family"] == "Gemini"]

    assert any("needs a published size" in text for text in texts(charts.published_chart(rows)))
    with pytest.raises(BadInput, match="no axis 'speed'"):
        charts.published_chart(rows, "speed")


def test_bars_show_each_benchmark_that_counts(found):
    """The best on top, with both scores; what is left out has no bar."""
    detail = found.detail
    mine = detail[
        (detail["student"] == "DeepSeek-R1-Distill-Qwen-7B")
        & (detail["table_id"] == "deepseek-r1-readme")
    ]

    bars = charts.per_benchmark_bars(mine).data[0]

    assert list(bars.y) == ["GPQA Diamond", "AIME 2024", "MATH-500"]
    assert list(bars.text)[0] == "49.1 of 71.5"
    assert "No benchmark counts." in texts(charts.per_benchmark_bars(mine.iloc[:0]))


def test_the_table_has_a_source_in_every_row_and_a_dash_for_the_unknown(found):
    """Words and units; a size that is not published is an en dash."""
    words = run_table.published_table(found.rows)

    assert words["Source"].str.startswith("https://").all()
    assert words.loc["Gemini 1.5 Flash · deepmind-gemini15-page", "Parameters"] == "–"
    assert words.loc["Llama 3.1 8B · llama31-base", "Relation"] == "not distilled"
    assert isinstance(words, pd.DataFrame)


def test_on_a_telephone_the_legend_is_below_the_chart(found):
    """Above, it would leave nothing of the chart; half the ticks are enough."""
    wide, narrow = (charts.published_chart(found.rows, width=width) for width in (1300, 380))

    assert narrow.layout.legend.y < 0 < wide.layout.legend.y
    assert narrow.layout.height > wide.layout.height
    assert len(narrow.layout.xaxis.tickvals) < len(wide.layout.xaxis.tickvals)
    assert len(narrow.layout.xaxis.tickvals) == len(narrow.layout.xaxis.ticktext)


def own():
    """A student that keeps 80 %, one that keeps next to nothing, one in another number format."""
    rows = [(0.8, None), (0.1, None), (0.8, "q8_0")]
    return published_overlay.own_points(
        pd.DataFrame(
            {
                "label": ["24 layers", "6 layers", "24 layers q8_0"],
                "teacher": "starter",
                "role": "student",
                "method": "cached",
                "format": [number_format for _, number_format in rows],
                "num_parameters": 1e8,
                "retention": [share for share, _ in rows],
                "retention_low": [share - 0.05 for share, _ in rows],
                "retention_high": [share + 0.05 for share, _ in rows],
                "raw_ratio": [share for share, _ in rows],
                "raw_low": [share - 0.05 for share, _ in rows],
                "raw_high": [share + 0.05 for share, _ in rows],
            }
        )
    )


def test_own_runs_are_full_dots_with_intervals_against_size(found):
    """One per size, in the view; on another axis none, as its values are of other devices."""
    figure = charts.published_chart(found.rows, own=own())
    (trace,) = [trace for trace in figure.data if trace.name == "your runs"]

    assert list(trace.y) == [80.0]
    assert trace.marker.symbol == "circle"
    assert list(trace.error_y.array) == pytest.approx([5.0])
    priced = charts.published_chart(found.rows, "usd_per_hour", own=own())
    assert "your runs" not in {trace.name for trace in priced.data}


def test_a_student_is_linked_to_the_larger_model(found):
    """By a line for each of a few points; of many only for the chosen one."""
    many = charts.published_chart(found.rows)
    chosen = found.rows.dropna(subset=["params_b", "teacher_params_b"]).index[0]
    one = charts.published_chart(found.rows, selected=chosen)

    def lines(figure):
        return [trace for trace in figure.data if trace.name == "to the larger model"]

    assert not lines(many)
    (line,) = lines(one)
    row = found.rows.loc[chosen]
    assert list(line.x[:2]) == [row["params_b"], row["teacher_params_b"]]
    assert line.y[1] == 100.0
    assert lines(charts.published_chart(found.rows.loc[[chosen]]))
