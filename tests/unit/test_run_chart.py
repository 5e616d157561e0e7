import numpy as np
import pandas as pd

from explorer.charts import run_chart


def texts(figure):
    return [annotation.text for annotation in figure.layout.annotations]


def test_bars_show_both_scores_and_the_level_of_guessing():
    """A score is read against what a guesser gets."""
    table = pd.DataFrame(
        {
            "task": ["a", "b", "c"],
            "student": [0.6, 0.4, np.nan],
            "teacher": [0.8, 0.5, 0.4],
            "chance": [0.5, 0.0, 0.25],
        }
    )

    figure = run_chart.per_task_bars(table)

    by_name = {trace.name: trace for trace in figure.data}
    assert list(by_name["student"].x) == [0.4, 0.6]
    assert list(by_name["teacher"].x) == [0.5, 0.8]
    assert list(by_name["chance"].x) == [0.0, 0.5]
    assert "No task" in texts(run_chart.per_task_bars(table.iloc[2:]))[0]


def test_the_histogram_holds_every_turn_and_names_the_medians():
    """All samples are seen; a teacher's own run has one side only."""
    own, teacher = (
        pd.DataFrame({"tpot_ms": values}) for values in ([10.0, 11.0, 12.0], [20.0, 21.0, 25.0])
    )

    both = run_chart.latency_histogram(own, teacher)

    assert [len(trace.x) for trace in both.data] == [3, 3]
    assert [trace.name for trace in both.data] == [
        "this model, median 11.0 ms",
        "its teacher, median 21.0 ms",
    ]
    assert len(run_chart.latency_histogram(own).data) == 1
    assert texts(run_chart.latency_histogram(own.iloc[:0])) == ["Nothing was timed."]


def test_the_histogram_says_when_the_machine_was_busy():
    """The picture says it by itself, also where it is taken away without its caption."""
    turns = pd.DataFrame({"tpot_ms": [10.0, 11.0, 12.0]})

    busy = run_chart.latency_histogram(turns, was_busy=True)

    assert busy.layout.xaxis.title.text.endswith("machine was busy")
    assert "busy" not in run_chart.latency_histogram(turns).layout.xaxis.title.text


def test_the_training_curve_shows_what_was_measured():
    """Loss at every point, held-out numbers where there are some, a sentence before the first."""
    points_ = pd.DataFrame(
        {
            "step": [1, 2, 3],
            "scored_tokens": [10, 20, 30],
            "loss": [3.0, 2.0, 1.5],
            "heldout_kl": [np.nan, 2.1, np.nan],
            "heldout_top1": [np.nan, 0.5, np.nan],
        }
    )

    by_name = {trace.name: trace for trace in run_chart.training_curve(points_).data}

    assert list(by_name["training loss"].y) == [3.0, 2.0, 1.5]
    assert list(by_name["held-out KL"].y) == [2.1]
    assert list(by_name["top-1 agreement"].y) == [50.0]
    assert "No training step" in texts(run_chart.training_curve(points_.iloc[:0]))[0]
