"""Charts of money."""

import pandas as pd

from explorer.analysis.planning import device_fit
from explorer.catalogue import load
from explorer.charts import cost_chart as charts

MONTHS = pd.DataFrame(
    {
        "name": ["teacher", "teacher", "15 layers", "15 layers", "API", "API"],
        "traffic_per_s": [0.5, 1.0] * 3,
        "usd_per_month": [40.0, 80.0, 20.0, 40.0, 30.0, 60.0],
        "replicas": [1, 2, 1, 1, None, None],
    }
)
SPENT = pd.DataFrame(
    {
        "name": ["teacher", "teacher", "15 layers", "15 layers"],
        "hours": [0.0, 2.0, 0.0, 2.0],
        "usd": [0.0, 4.0, 1.0, 3.0],
    }
)
PAID = pd.DataFrame(
    {
        "label": ["teacher", "15 layers"],
        "payback_hours": [None, 1.0],
        "bill_usd": [None, 1.0],
        "fleet_usd_per_hour": [2.0, 1.0],
    }
)


def texts(figure):
    return [annotation.text for annotation in figure.layout.annotations]


def test_candidates_are_staircases_and_the_api_a_dashed_line():
    """Traffic in requests a minute, the stated one marked."""
    figure = charts.break_even_chart(MONTHS, 0.75)

    lines = {trace.name: trace for trace in figure.data}
    assert list(lines["teacher"].x) == [30, 60]
    assert (lines["teacher"].line.shape, lines["teacher"].line.dash) == ("vh", "solid")
    assert lines["API"].line.dash == "dash"
    assert "your traffic" in texts(figure)


def test_a_payback_is_marked_where_the_lines_cross():
    """In the unit that suits: two hours are 120 minutes, and the crossing is at $2."""
    figure = charts.payback_chart(SPENT, PAID)

    mark = figure.data[-1]
    assert (list(mark.x), list(mark.y)) == ([1.0], [2.0])
    assert "(hours)" in figure.layout.xaxis.title.text


def test_rents_are_estimated_marks_with_their_dearest_offer():
    """Dotted hollow circles, a bar to the dearest offer, and the word estimated."""
    sized = device_fit.sized_models(load.load_table("models"), load.load_table("shapes"))
    fitted = device_fit.device_fit(
        device_fit.models_named(["DeepSeek-R1-Distill-Llama-70B", "7B"], sized),
        device_fit.devices_named(["RTX 4090", "H100 SXM"], load.load_table("hardware_specs")),
        load.load_table("hardware"),
    )

    figure = charts.rent_chart(fitted, template="dark")

    assert {trace.marker.symbol for trace in figure.data} == {"circle-open-dot"}
    assert "Estimated" in figure.layout.xaxis.title.text
    assert all("estimated" in text for trace in figure.data for text in trace.customdata)
    assert list(figure.layout.yaxis.ticktext)[0] == "RTX 4090, 16 bits"


def test_charts_without_figures_say_what_they_need():
    """Words in the middle, no empty axes."""
    assert "needs a price" in texts(charts.break_even_chart(MONTHS.iloc[:0], 1.0))[0]
    assert "needs a price" in texts(charts.payback_chart(SPENT.iloc[:0], PAID))[0]
    empty = pd.DataFrame(columns=device_fit.COLUMNS)
    assert "No device" in texts(charts.rent_chart(empty))[0]
