"""The pick: a model under limits, with its reasons, recomputed from exported files."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

from explorer import cli
from explorer.analysis.pick import candidates, decide, sentences, use
from explorer.analysis.pick.limits import Limits
from explorer.catalogue import prices
from explorer.errors import BadInput
from tests import records

DRAWS = 2000


def study(**columns):
    """A teacher and three students as a frame of runs; a keyword replaces a column."""
    frame = {
        "run_id": ["t", "big", "mid", "small"],
        "label": ["teacher", "24 layers", "20 layers", "10 layers"],
        "status": "finished",
        "basis": "measured",
        "role": ["teacher", "student", "student", "student"],
        "kind": [None, "depth", "depth", "depth"],
        "method": [None, "cached", "cached", "cached"],
        "teacher": "starter",
        "teacher_run_id": [None, "t", "t", "t"],
        "retention": [1.0, 0.9, 0.8, 0.4],
        "retention_low": [np.nan, 0.85, 0.75, 0.35],
        "retention_high": [np.nan, 0.95, 0.85, 0.45],
        "num_tasks": 2,
        "num_documents": 400,
        "excluded_tasks": "",
        "tpot_ms": [50.0, 40.0, 30.0, 15.0],
        "ttft_ms": [200.0, 160.0, 120.0, 60.0],
        "latency_ms": [3000.0, 2500.0, 2000.0, 1000.0],
        "output_tokens_per_s": [20.0, 25.0, 33.0, 66.0],
        "prompt_tokens": 128,
        "output_tokens": 64,
        "usd_per_hour_at_load": [0.1, 0.08, 0.06, 0.03],
        "usd_per_mtok": [2.0, 1.6, 1.2, 0.6],
        "utilisation": 0.5,
        "price_note": "a price list",
        "weight_bytes": [500e6, 400e6, 300e6, 150e6],
        "peak_memory_bytes": [600e6, 500e6, 400e6, 200e6],
        "num_layers": [30, 24, 20, 10],
        "num_parameters": [135e6, 113e6, 99e6, 64e6],
        "runtime": "transformers",
        "format": None,
        "device_name": "CPU",
        "machine_busy": False,
        "fingerprint": "abc",
    }
    return pd.DataFrame(frame | columns)


def drawn(runs, spread=0.02):
    """Draws around each run's retention that share the documents' luck; a teacher keeps all."""
    luck = np.random.default_rng(0).normal(size=DRAWS)
    return pd.DataFrame(
        {
            run["run_id"]: run["retention"] + spread * luck * (run["role"] != "teacher")
            for run in runs.to_dict("records")
            if run["retention"] == run["retention"]
        }
    )


def pick(runs, limits=None, **options):
    return decide.pick(runs, drawn(runs), limits or Limits(min_retention=0.7), **options)


def test_the_cheapest_that_keeps_enough_is_picked():
    """With its reason, its runner-up, and the share of draws that pick it again."""
    decision = pick(study())

    assert decision.pick["run_id"] == "mid"
    assert decision.fitting == ["mid", "big", "t"]
    assert decision.runner_up["run_id"] == "big"
    assert decision.reason.startswith(
        "20 layers is the cheapest of 3 models that meet every limit: $1.20 per 1M output tokens "
        "at 50 % busy. It keeps 80 % [75, 85] of the teacher's capability: at least 70 % with over "
        "99 % confidence."
    )
    assert "costs 33 % more; it keeps 10 points more [10, 10]" in decision.runner_up_text
    assert decision.confidence > 0.99
    assert decision.removed == {"min_retention": ["small"]}


@pytest.mark.parametrize(
    ("objective", "run_id"),
    [("cheapest", "mid"), ("fastest", "mid"), ("smallest", "mid"), ("capable", "t")],
)
def test_an_objective_orders_what_fits(objective, run_id):
    """Cost, time and size prefer the smallest student that fits, capability the teacher."""
    assert pick(study(), objective=objective).pick["run_id"] == run_id


def test_of_models_that_cannot_be_told_apart_the_cheapest_is_the_most_capable():
    """The objective decides between equals, not a rounded percentage."""
    runs = study(retention=[1.0, 0.9, 0.899, 0.4])
    runs = runs[runs["run_id"] != "t"]
    noise = np.random.default_rng(1)
    draws = pd.DataFrame(
        {row.run_id: row.retention + noise.normal(0, 0.02, DRAWS) for row in runs.itertuples()}
    )

    decision = decide.pick(runs, draws, Limits(min_retention=0.5), objective="capable")

    assert decision.pick["run_id"] == "mid"
    assert decision.runner_up["run_id"] == "big"


@pytest.mark.parametrize(
    ("limit", "bound", "fitting"),
    [
        ("max_tpot_ms", 35.0, ["mid"]),
        ("max_ttft_ms", 160.0, ["mid", "big"]),
        ("max_latency_ms", 2100.0, ["mid"]),
        ("min_output_tokens_per_s", 24.0, ["mid", "big"]),
        ("max_usd_per_hour", 0.08, ["mid", "big"]),
        ("max_usd_per_mtok", 1.5, ["mid"]),
        ("max_weight_bytes", 450e6, ["mid", "big"]),
        ("max_peak_memory_bytes", 450e6, ["mid"]),
    ],
)
def test_each_limit_removes_what_breaks_it_and_counts_it(limit, bound, fitting):
    """A value equal to the limit meets it; the removed runs are named under the limit."""
    decision = pick(study(), Limits(min_retention=0.7, **{limit: bound}))

    assert decision.fitting == fitting
    outside = {"t", "big", "mid", "small"} - set(fitting) - {"small"}
    assert set(decision.removed[limit]) - {"small"} == outside
    assert sentences.limit_text(limit, decision.limits).startswith(
        tuple("abcdefghijklmnopqrstuvwxyz")
    )


@pytest.mark.parametrize("name", ["runtime", "format"])
def test_a_model_must_run_where_it_is_asked_to(name):
    """A runtime and a number format are limits like any other; unconverted models are torch."""
    runs = study(
        runtime=["transformers", "transformers", "llama.cpp", "llama.cpp"],
        format=[None, None, "q8_0", "q8_0"],
    )
    wanted = {"runtime": "transformers", "format": "torch"}[name]

    decision = pick(runs, Limits(min_retention=0.7, **{name: wanted}))

    assert decision.fitting == ["big", "t"]
    assert decision.removed[name] == ["small", "mid"]


def test_the_statement_on_retention_is_one_sided_and_needs_its_confidence():
    """84 % sure is enough at a confidence of 80 %, and too little at 90 %."""
    runs = study(retention=[1.0, 0.9, 0.82, 0.4])

    sure = decide.pick(runs, drawn(runs), Limits(0.8, 0.8))
    unsure = decide.pick(runs, drawn(runs), Limits(0.8, 0.9))

    share = (drawn(runs)["mid"] >= 0.8).mean()
    assert 0.8 < share < 0.9
    assert sure.pick["run_id"] == "mid"
    assert sure.pick["sure"] == pytest.approx(share)
    assert unsure.pick["run_id"] == "big"
    (miss, *_) = unsure.near_misses
    assert miss.text == f"20 layers: keeps 82 % but is only {100 * share:.0f} % sure to keep 80 %."
    assert unsure.next_measurement.kind == "documents"
    assert 0 < unsure.next_measurement.num_documents < 400


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": ["finished", "finished", "failed", "finished"]}, "failed"),
        ({"teacher_run_id": [None, "t", "other", "t"]}, "other_teacher"),
        ({"method": [None, "cached", "labels", "cached"]}, "control"),
        ({"retention": [1.0, 0.9, np.nan, 0.4]}, "no_retention"),
        ({"num_documents": [400, 400, 100, 400]}, "other_documents"),
        ({"device_name": ["CPU", "CPU", "GPU", "CPU"]}, "other_device"),
        ({"batch_size": [1.0, 1.0, 32.0, 1.0]}, "other_load"),
        ({"machine_busy": [False, False, True, False]}, "busy"),
        ({"usd_per_mtok": [2.0, 1.6, np.nan, 0.6]}, "no_objective"),
    ],
)
def test_what_may_not_be_picked_is_removed_with_its_reason(changes, reason):
    """Failed runs, other teachers, control arms, other documents, devices and busy machines."""
    decision = pick(study(**changes))

    assert decision.removed[reason] == ["mid"]
    assert decision.pick["run_id"] == "big"


def test_a_busy_timing_that_could_win_is_the_next_measurement():
    """Time it again: it keeps enough, and only its timing is missing."""
    decision = pick(study(machine_busy=[False, False, True, False]))

    assert decision.next_measurement.kind == "timing"
    assert "explorer run mid --again" in decision.next_measurement.text


def test_a_size_between_is_suggested_where_nothing_else_would_tell():
    """Between the pick and the next smaller model, which keeps too little."""
    suggestion = pick(study()).next_measurement

    assert (suggestion.kind, suggestion.num_layers) == ("size", 15)


def test_where_nothing_fits_the_nearest_is_named_with_all_it_breaks():
    """And by how much to loosen each limit; a cost alone says at which utilisation it fits."""
    decision = pick(study(), Limits(min_retention=0.85, max_usd_per_mtok=1.5))

    assert decision.pick is None
    assert decision.confidence is None
    nearest = decision.near_misses[0]
    assert nearest.run["run_id"] == "big"
    assert nearest.fits_at_utilisation == pytest.approx(0.5 * 1.6 / 1.5)
    assert "It fits at 53 % utilisation." in nearest.text
    assert "None of 4 models meets every limit. The nearest is 24 layers:" in decision.reason
    assert "It fits if you allow $1.61." in decision.reason


def test_a_limit_that_no_model_meets_is_named():
    """Contradictory limits are said to be so, with the best value there is."""
    reason = pick(study(), Limits(min_retention=0.7, max_tpot_ms=1.0)).reason

    assert "Time per token: the lowest is 15.0 ms, the limit 1.00 ms." in reason


def test_without_prices_the_cheapest_is_unknown_and_the_fastest_is_not():
    """What is missing is said; nothing is taken as free."""
    runs = study(usd_per_mtok=np.nan, usd_per_hour_at_load=np.nan)

    assert "4 without the figure that the objective compares. Set a price" in pick(runs).reason
    assert pick(runs, objective="fastest").pick["run_id"] == "mid"
    unpriced = pick(runs, Limits(0.7, max_usd_per_hour=1.0), objective="fastest")
    assert unpriced.pick is None
    assert "Cost per hour at load was not measured for any of them." in unpriced.reason


def test_an_empty_store_and_one_without_a_teacher_have_their_words():
    """No traceback where there is nothing to decide."""
    runs = study()
    alone = runs[runs["run_id"] == "mid"].assign(teacher_run_id=None, retention=np.nan)

    assert "explorer demo" in decide.pick(runs[:0], pd.DataFrame(), Limits()).reason
    assert decide.pick(alone, pd.DataFrame(), Limits()).reason.startswith("No run can be picked")
    only_teacher = runs[:1]
    assert decide.pick(only_teacher, drawn(only_teacher), Limits()).pick["run_id"] == "t"


@pytest.mark.parametrize(
    "fields",
    [
        {"min_retention": 80},
        {"min_retention": -0.1},
        {"confidence": 1.0},
        {"confidence": 0.2},
        {"max_tpot_ms": 0.0},
        {"max_usd_per_mtok": -1.0},
        {"max_weight_bytes": float("nan")},
    ],
)
def test_an_impossible_limit_is_refused(fields):
    """With what to write instead."""
    with pytest.raises(BadInput, match="must be"):
        Limits(**fields)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": "best"}, "objective must be one of cheapest"),
        ({"device": "TPU"}, "No run has the device 'TPU'. Choose CPU"),
        ({"teacher": "u"}, "No run has the teacher 'u'. Choose t"),
    ],
)
def test_an_unknown_name_is_refused_with_those_there_are(options, words):
    """An objective, a device, a teacher."""
    with pytest.raises(BadInput, match=words):
        pick(study(), **options)


def test_quantising_that_beats_distilling_is_said():
    """The teacher in another format competes; the reason compares it with the best student."""
    runs = study(
        kind=[None, None, "depth", "depth"],
        format=[None, "q8_0", None, None],
        usd_per_mtok=[2.0, 0.5, 1.2, 0.6],
    )

    assert "Quantising beats distilling here: the best student, 20 layers, has" in pick(runs).reason


def test_how_to_use_the_pick_depends_on_its_format_and_on_whether_it_is_here(tmp_path):
    """A GGUF is written and served by llama.cpp, a folder by vLLM; what is not here is trained."""
    student = study().to_dict("records")[2]
    converted = student | {"runtime": "llama.cpp", "format": "q4_k_m", "label": "20 layers q4_k_m"}

    assert use.use(student, tmp_path)["Serve it"] == f"vllm serve {tmp_path}"
    assert use.use(student, None)["Train it on this machine"] == "explorer run mid"
    steps = use.use(converted, tmp_path)
    assert steps["Write its file"] == "explorer convert run:mid 20-layers-q4_k_m.gguf --to q4_k_m"
    assert steps["Serve it"] == "llama-server -m 20-layers-q4_k_m.gguf"


@pytest.fixture
def priced_study(store_root):
    """A made-up study with a price, as the product writes it."""
    records.write_study(store_root)
    prices.write_override(
        store_root / prices.OVERRIDES,
        records.DEVICE_NAME,
        prices.typed_price("0.05", "the price"),
    )
    return store_root


@pytest.mark.parametrize(
    "limits",
    [
        {"min_retention": 0.8, "confidence": 0.9},
        {"min_retention": 0.5, "confidence": 0.8},
        {"min_retention": 0.7, "confidence": 0.6, "max_tpot_ms": 40.0},
        {"min_retention": 0.99, "confidence": 0.95, "max_usd_per_mtok": 0.01},
    ],
)
def test_the_rule_can_be_repeated_from_the_exported_files(
    priced_study, tmp_path, monkeypatch, capsys, limits
):
    """Pick, runner-up, confidence and removed counts, by pandas from two CSV files."""

    def explorer(*arguments):
        monkeypatch.setattr(sys, "argv", ["explorer", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 0
        return capsys.readouterr().out

    explorer("export", "--out", str(tmp_path / "r.csv"), "--draws", str(tmp_path / "d.csv"))
    options = [
        part
        for name, value in limits.items()
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    said = json.loads(explorer("pick", *options, "--json"))

    runs = pd.read_csv(tmp_path / "r.csv").set_index("run_id", drop=False).rename_axis(None)
    draws = pd.read_csv(tmp_path / "d.csv").pivot(
        index="draw", columns="run_id", values="retention"
    )
    teacher = runs["teacher_run_id"].mode()[0]
    device = runs["device_name"].mode()[0]
    able = runs[
        (runs["status"] == "finished")
        & ((runs["run_id"] == teacher) | (runs["teacher_run_id"] == teacher))
        & (runs["method"] != "labels")
        & runs["retention"].notna()
        & (runs["device_name"] == device)
        & (runs["machine_busy"] != True)  # noqa: E712 missing is not busy
        & runs["usd_per_mtok"].notna()
    ].sort_values(["usd_per_mtok", "retention", "run_id"], ascending=[True, False, True])
    floor, sure = limits["min_retention"], limits["confidence"]
    breaks = {"min_retention": (draws[able.index] >= floor).mean() < sure}
    for name, column in (("max_tpot_ms", "tpot_ms"), ("max_usd_per_mtok", "usd_per_mtok")):
        if name in limits:
            breaks[name] = able[column] > limits[name]
    broken = pd.DataFrame(breaks)
    fitting = able.index[~broken.loc[able.index].any(axis=1)]
    rest = able.index[~broken.drop(columns="min_retention").reindex(able.index).any(axis=1)]

    assert said["fitting"] == list(fitting)
    assert (said["pick"] or {}).get("run_id") == (fitting[0] if len(fitting) else None)
    second = fitting[1] if len(fitting) > 1 else None
    assert (said["runner_up"] or {}).get("run_id") == second
    for name, column in breaks.items():
        assert said["removed"].get(name, {"num_runs": 0})["num_runs"] == column.sum()
    if len(fitting):
        distance = able.loc[rest, "retention"] - draws[rest].quantile(1 - sure)
        meets = draws[rest] - distance >= floor
        first = meets.idxmax(axis=1)[meets.any(axis=1)]
        assert said["confidence"] == pytest.approx((first == fitting[0]).sum() / len(draws))


def test_every_reason_and_key_is_explained_in_the_document():
    """docs/pick.md names each reason for removal and each key of the JSON."""
    from tests.conftest import ROOT

    text = (ROOT / "docs" / "pick.md").read_text(encoding="utf-8")

    for name in [*candidates.REASONS, *pick(study()).as_json(), "use"]:
        assert f"`{name}`" in text, name
