"""The ranking, the retention by task and the parts of a request's time, and their charts."""

import json

import numpy as np
import pandas as pd
import pytest

from explorer import cli
from explorer.analysis import ranking, request_time, task_retention
from explorer.charts import ranking_chart, task_heat_map, time_chart
from tests import records

DRAWS = 2000


def models(retention, spread=0.02, **changes):
    """A teacher and students of one study, with draws that share most of their noise."""
    ids = ["t", *(f"s{number}" for number in range(1, len(retention)))]
    runs = pd.DataFrame(
        {
            "run_id": ids,
            "status": "finished",
            "role": ["teacher", *["student"] * (len(ids) - 1)],
            "basis": "measured",
            "method": None,
            "format": None,
            "kind": [None, *["depth"] * (len(ids) - 1)],
            "label": ["teacher", *(f"{number} layers" for number in range(1, len(ids)))],
            "teacher": "starter",
            "teacher_run_id": [None, *["t"] * (len(ids) - 1)],
            "retention": retention,
            "retention_low": [np.nan, *(value - 2 * spread for value in retention[1:])],
            "retention_high": [np.nan, *(value + 2 * spread for value in retention[1:])],
            "num_parameters": np.arange(len(ids), 0, -1) * 1e6,
            "num_tasks": 4,
            "num_documents": 1000,
            "machine_busy": False,
            "device_name": "cpu",
            "prompt_tokens": 128,
            "output_tokens": 64,
            "ttft_ms": np.linspace(200, 100, len(ids)),
            "tpot_ms": np.linspace(30, 10, len(ids)),
        }
        | changes
    )
    rng = np.random.default_rng(0)
    noise = rng.normal(0, spread, (DRAWS, len(ids)))
    noise[:, 0] = 0
    draws = pd.DataFrame(np.asarray(retention) + noise, columns=ids)
    return runs, draws


def test_models_within_chance_of_each_other_form_a_group():
    """Two neighbours of one group differ in fewer than 97.5 % of the draws; others in more."""
    runs, draws = models([1.0, 0.90, 0.89, 0.50])

    ranked = ranking.rank(runs, draws)

    assert ranked.groups == [["s1", "s2"]]
    assert ranked.rows["run_id"].tolist() == ["t", "s1", "s2", "s3"]
    told = (draws["s2"] < draws["s1"]).mean()
    assert told < 0.975 <= (draws["s3"] < draws["s2"]).mean()


def test_groups_overlap_where_only_the_ends_differ():
    """A is no better than B, B no better than C, but A is better than C: two groups."""
    runs, draws = models([1.0, 0.90, 0.86, 0.82], spread=0.021)

    assert ranking.rank(runs, draws).groups == [["s1", "s2"], ["s2", "s3"]]


def test_the_sentence_forbids_to_call_one_of_the_first_group_the_best():
    """The best group is named with its size and its members."""
    runs, draws = models([0.97, 0.96, 0.955, 0.5])
    said = ranking.sentences(ranking.rank(runs, draws))

    assert said[0] == (
        "These three, teacher, 1 layers and 2 layers, can't be told apart. "
        "Do not call any of them the best."
    )


def test_a_clear_winner_is_named():
    """Where the first is told apart from all others, the sentence says so."""
    runs, draws = models([1.0, 0.7, 0.4])

    assert ranking.sentences(ranking.rank(runs, draws))[0] == (
        "Teacher keeps more than every other model here, and not by chance."
    )


def test_documents_that_would_tell_the_best_two_apart_follow_the_root():
    """Four times the documents halve the spread: the suggestion is the normal formula."""
    runs, draws = models([0.97, 0.95, 0.5], spread=0.02)
    ranked = ranking.rank(runs, draws)

    spread = (draws["t"] - draws["s1"]).std(ddof=0)
    expected = 1000 * (1.959964 * spread / 0.02) ** 2 - 1000
    assert ranked.settling.num_documents == pytest.approx(expected, abs=100)
    assert "more documents would likely tell teacher and 1 layers apart" in " ".join(
        ranking.sentences(ranked)
    )


def test_what_has_no_place_is_counted_with_its_reason():
    """No interval, other documents, another teacher, not finished: none enters silently."""
    runs, draws = models([1.0, 0.9, 0.8, 0.7, 0.6, 0.5])
    runs.loc[1, "status"] = "failed"
    runs.loc[2, "teacher_run_id"] = "other"
    runs.loc[3, "num_documents"] = 10
    ranked = ranking.rank(runs, draws.drop(columns="s4"))

    assert ranked.left_out == {
        "failed": ["s1"],
        "other_teacher": ["s2"],
        "no_retention": ["s4"],
        "other_documents": ["s3"],
    }
    assert ranked.rows["run_id"].tolist() == ["t", "s5"]
    assert "1 run without retention or its interval" in ranking.left_out_lines(ranked)


def test_runs_of_one_label_have_their_ids_beside_it():
    """A sentence never names two models alike."""
    runs, draws = models([1.0, 0.9, 0.89], label=["teacher", "24 layers", "24 layers"])

    assert set(ranking.rank(runs, draws).rows["name"]) == {
        "teacher",
        "24 layers (s1)",
        "24 layers (s2)",
    }


@pytest.mark.parametrize("number", [0, 1])
def test_nothing_and_one_model_are_said_in_words(number):
    """A ranking of none or one is no ranking."""
    runs, draws = models([1.0, 0.9])
    ranked = ranking.rank(runs.iloc[:number], draws)

    assert len(ranking.sentences(ranked)) == 1
    assert len(ranking.table(ranked)) == number
    assert ranking_chart.ranking_chart(ranked).layout.height > 100


def test_a_long_ranking_shows_the_first_and_counts_the_rest():
    """Ten thousand models keep the chart readable and the sentence honest."""
    runs, draws = models(np.linspace(1, 0.1, 60))
    ranked = ranking.rank(runs, draws[ranking.best_of(runs)["run_id"]])

    assert len(ranked.rows) == ranking.MOST_MODELS
    assert "the 20 that keep least, of 60 models" in ranking.left_out_lines(ranked)


@pytest.mark.parametrize("template", ["light", "dark"])
def test_the_ranking_chart_has_a_point_per_model_and_a_bracket_per_group(template):
    """The pick is ringed, overlapping brackets stand beside each other."""
    runs, draws = models([1.0, 0.90, 0.86, 0.82], spread=0.021)
    ranked = ranking.rank(runs, draws)

    figure = ranking_chart.ranking_chart(ranked, template=template, target=0.8, picked="s1")

    ids = {
        custom[0]
        for trace in figure.data
        if trace.customdata is not None
        for custom in trace.customdata
    }
    assert ids == set(runs["run_id"])
    paths = [shape.path for shape in figure.layout.shapes if shape.type == "path"]
    assert len(paths) == 2
    assert len({path.split(" ")[1] for path in paths}) == 2
    assert figure.data[-1].marker.symbol == "circle-open"


def cells():
    """Two models on three tasks; on one the teacher only guesses."""
    return pd.DataFrame(
        [
            ("s1", "grammar", 0.9, 0.8, 1.0, ""),
            ("s1", "facts", 0.5, 0.4, 0.6, ""),
            ("s1", "odd", np.nan, np.nan, np.nan, "the teacher is not clearly above chance"),
            ("s2", "grammar", 0.7, 0.6, 0.8, ""),
            ("s2", "facts", 0.3, 0.2, 0.4, ""),
            ("s2", "odd", np.nan, np.nan, np.nan, "the teacher is not clearly above chance"),
        ],
        columns=task_retention.COLUMNS,
    )


NAMES = pd.Series({"s1": "20 layers", "s2": "10 layers"})


def test_tasks_on_which_the_teacher_guesses_are_named():
    """They have no cell, and the sentence gives the reason."""
    said = task_retention.sentences(cells(), {"s1", "s2"})

    assert said == [
        "facts suffers first: the median model keeps 40 %. grammar holds best: 80 %.",
        "odd does not count: the teacher is not clearly above chance.",
    ]
    figure = task_heat_map.task_heat_map(cells(), NAMES)
    assert "does not count" in figure.layout.xaxis.ticktext[2]
    assert "keeps 90.0 % [80.0, 100]" in figure.data[0].customdata[0][0]
    assert "not clearly above chance" in figure.data[0].customdata[1][2]


@pytest.mark.parametrize("template", ["light", "dark"])
def test_the_heat_map_says_its_numbers(template):
    """Colour alone says nothing: each cell has its percentage."""
    figure = task_heat_map.task_heat_map(cells(), NAMES, template=template)

    assert list(figure.data[0].text[0]) == ["90 %", "50 %", "–"]
    assert task_retention.table(cells(), NAMES)["grammar"].tolist() == [
        "90 % [80, 100]",
        "70 % [60, 80]",
    ]


def test_a_request_is_prefill_and_decode():
    """TTFT plus TPOT for every further token; the fastest model first."""
    runs, _ = models([1.0, 0.9, 0.8])
    times = request_time.request_times(runs)

    slowest = times.rows.iloc[-1]
    assert slowest["total_ms"] == pytest.approx(200 + 63 * 30)
    assert times.rows["run_id"].tolist() == ["s2", "s1", "t"]
    assert request_time.sentences(times) == [
        "Decoding takes 86 to 90 % of a request's time (128-token prompts, 64-token answers).",
        "The fastest, 2 layers, takes 0.50 times the teacher's prefill and 0.33 times its "
        "decoding.",
    ]


def test_times_of_other_devices_and_lengths_are_left_out_and_counted():
    """A bar beside another may be compared with it."""
    runs, _ = models([1.0, 0.9, 0.8, 0.7, 0.6])
    runs["device_name"] = ["cpu", "cpu", "cpu", "cpu", "gpu"]
    runs["output_tokens"] = [64, 64, 64, 512, 64]
    runs["tpot_ms"] = [30, np.nan, 20, 10, 10]

    times = request_time.request_times(runs)

    assert set(times.rows["run_id"]) == {"t", "s2"}
    assert request_time.left_out_lines(times) == [
        "1 run not timed",
        "1 run timed on another device",
        "1 run timed with other lengths of prompt and answer",
    ]


def test_bars_of_a_busy_machine_are_hollow_and_in_no_sentence():
    """They are marked with a word as well as by their look."""
    runs, _ = models([1.0, 0.9], machine_busy=[False, True])
    times = request_time.request_times(runs)

    figure = time_chart.time_chart(times, limit_ms=1000)

    assert figure.data[0].marker.color[0] == "rgba(0,0,0,0)"
    assert any("machine was busy" in note.text for note in figure.layout.annotations)
    assert not any("fastest" in text for text in request_time.sentences(times))
    all_busy = request_time.request_times(runs.assign(machine_busy=True))
    assert "busy machine" in request_time.sentences(all_busy)[0]


def test_nothing_timed_is_said_in_words():
    """No chart of nothing."""
    runs, _ = models([1.0, 0.9], tpot_ms=np.nan)
    times = request_time.request_times(runs)

    assert request_time.sentences(times) == [
        "No run has both TTFT and TPOT, so there is nothing to split."
    ]
    assert "no run was timed" in time_chart.time_chart(times).layout.annotations[0].text


def _call(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["explorer", "rank", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, capsys.readouterr()


def test_the_shell_ranks_as_the_page_does(store_root, monkeypatch, capsys):
    """`explorer rank` prints the table, the sentence and what is left out; --json the same."""
    ids = records.write_study(store_root)

    code, printed = _call(monkeypatch, capsys)
    assert code == 0
    assert "can't be told apart" in printed.out
    facts = json.loads(_call(monkeypatch, capsys, "--json")[1].out)
    assert {model["run_id"] for model in facts["models"]} == set(ids)
    assert facts["sentences"][0] in printed.out

    by_task = json.loads(_call(monkeypatch, capsys, "--by", "task", "--json")[1].out)
    assert {cell["task"] for cell in by_task["cells"]} == set(records.TASKS)
    times = json.loads(_call(monkeypatch, capsys, "--by", "time", "--json")[1].out)
    assert len(times["models"]) == len(ids)
    assert "prefill_ms" in times["models"][0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(("--by", "size"), "--by must be one of"), (("--task", "ghost"), "was evaluated on 'ghost'")],
)
def test_a_wrong_view_or_task_is_refused(store_root, monkeypatch, capsys, arguments, sentence):
    """One line that says what there is."""
    records.write_study(store_root, layers=(15,))

    code, printed = _call(monkeypatch, capsys, *arguments)

    assert code == 2
    assert sentence in printed.err


def test_an_empty_store_ranks_nothing(store_root, monkeypatch, capsys):
    """Words, and no traceback."""
    code, printed = _call(monkeypatch, capsys)

    assert code == 0
    assert "nothing to rank" in printed.out
