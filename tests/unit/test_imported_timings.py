"""Times that guidellm, AIPerf or vLLM's bench measured, beside lm-eval's scores of the model."""

import json
import sys

import pytest

from explorer import cli
from explorer.errors import BadInput
from explorer.lm_eval_io import import_run, timings
from explorer.records import RunRecord
from explorer.store import disk, frames
from tests.unit.test_evaluations import evaluation


def vllm(*, clients=4, num=10, detailed=True, **changes):
    """A file of `vllm bench serve --save-result`, perhaps with `--save-detailed`."""
    document = {
        "date": "20261101-100000",
        "endpoint_type": "vllm",
        "backend": "vllm",
        "label": None,
        "model_id": "acme/big",
        "tokenizer_id": "acme/big",
        "num_prompts": num,
        "request_rate": "inf",
        "burstiness": 1.0,
        "max_concurrency": clients,
        "duration": 12.5,
        "completed": num,
        "failed": 1,
        "total_input_tokens": 128 * num,
        "total_output_tokens": 65 * num,
        "request_throughput": 0.8,
        "output_throughput": 52.0,
        "total_token_throughput": 154.4,
        "median_ttft_ms": 100.0,
        "median_tpot_ms": 20.0,
        "p99_ttft_ms": 140.0,
    }
    if detailed:
        document |= {
            "input_lens": [128] * (num + 1),
            "output_lens": [65] * num + [0],
            "ttfts": [0.1 + 0.001 * i for i in range(num)] + [0.0],
            "itls": [[0.02] * 64] * num + [[]],
            "generated_texts": [""] * (num + 1),
            "errors": [""] * num + ["Connection reset"],
        }
    return document | changes


def aiperf(**changes):
    """AIPerf's profile_export_aiperf.json."""

    def spread(unit, p50):
        return {"unit": unit, "avg": p50, "p50": p50, "p95": 1.2 * p50, "count": 10}

    return {
        "schema_version": "1.4",
        "aiperf_version": "0.13.0",
        "request_throughput": {"unit": "requests/sec", "avg": 0.8},
        "request_latency": spread("ms", 1380.0),
        "request_count": {"unit": "requests", "avg": 10.0},
        "time_to_first_token": spread("ms", 100.0),
        "inter_token_latency": spread("ms", 20.0),
        "output_token_throughput": {"unit": "tokens/sec", "avg": 52.0},
        "output_sequence_length": spread("tokens", 65.0),
        "input_sequence_length": spread("tokens", 128.0),
        "benchmark_duration": {"unit": "sec", "avg": 12.5},
        "error_request_count": {"unit": "requests", "avg": 1.0},
        "telemetry_data": {
            "endpoints": {"localhost": {"gpus": {"gpu_0": {"gpu_name": "NVIDIA H200"}}}}
        },
        "input_config": {
            "endpoint": {"model_names": ["acme/big"], "streaming": True},
            "loadgen": {"concurrency": 4},
        },
    } | changes


def guidellm(*, streams=(1, 4), requests=10):
    """A benchmarks.json of guidellm: one benchmark for each number of streams."""

    def summary(median):
        return {"successful": {"median": median, "mean": median, "percentiles": {"p95": median}}}

    def request(number):
        return {
            "request_latency": 1.38,
            "time_to_first_token_ms": 100.0 + number,
            "inter_token_latency_ms": 20.0,
            "time_per_output_token_ms": 21.2,
            "prompt_tokens": 128,
            "output_tokens": 65,
        }

    return {
        "metadata": {"version": 2, "guidellm_version": "0.8.1"},
        "config": {"spec": {"backend": {"kind": "openai_http", "model": "acme/big"}}},
        "benchmarks": [
            {
                "type_": "generative_benchmark",
                "config": {
                    "strategy": {"type_": "concurrent", "streams": count},
                    "backend": {"model": "acme/big"},
                },
                "duration": 12.5,
                "metrics": {
                    "request_totals": {"successful": 10, "errored": 1, "incomplete": 0},
                    "request_latency": summary(1.38),
                    "time_to_first_token_ms": summary(100.0),
                    "time_per_output_token_ms": summary(21.2),
                    "inter_token_latency_ms": summary(20.0),
                    "prompt_token_count": summary(128.0),
                    "output_token_count": summary(65.0),
                    "output_tokens_per_second": summary(13.0 * count),
                },
                "requests": {"successful": [request(i) for i in range(requests)]},
            }
            for count in streams
        ],
    }


def written(path, document):
    path.write_text(json.dumps(document))
    return path


def imported(root, tmp_path, document, **options) -> RunRecord:
    """The run of a model's scores and timings."""
    folder = evaluation(tmp_path / "out", values=(1.0, 0.0) * 30).parent
    path = written(tmp_path / "bench.json", document)
    options = {"device": "NVIDIA H200"} | options
    run_id, _ = import_run.import_folder(root, folder, "brought", timings=[path], **options)
    return disk.load(root, run_id)


@pytest.mark.parametrize(
    ("document", "load"),
    [
        (vllm(), "4 requests at once"),
        (vllm(detailed=False, median_e2el_ms=1380.0), "4 requests at once"),
        (aiperf(), "4 requests at once"),
        (guidellm(streams=[4]), "4 requests at once"),
        (guidellm(streams=[4], requests=0), "4 requests at once"),
    ],
    ids=["vllm_detailed", "vllm", "aiperf", "guidellm", "guidellm_summary"],
)
def test_the_same_timing_in_three_tools_is_one_row(store_root, tmp_path, document, load):
    """TTFT, TPOT without the first token, lengths, throughput, concurrency, device, failures."""
    record = imported(store_root, tmp_path, document)

    row = frames.row(record)
    assert row["ttft_ms"] == pytest.approx(100, rel=0.06)
    assert row["tpot_ms"] == pytest.approx(20, rel=0.01)
    assert row["latency_ms"] == pytest.approx(1380, rel=0.01)
    assert row["output_tokens_per_s"] == 52.0
    assert (row["prompt_tokens"], row["output_tokens"], row["batch_size"]) == (128, 65, 4)
    assert (row["basis"], row["device_name"]) == ("imported", "NVIDIA H200")
    assert row["num_failed_requests"] == 1
    assert record.imported.timing.load == load
    assert list(record.imported.timing.files) == ["bench.json"]
    assert RunRecord.from_json(record.to_json()) == record


def test_the_least_load_is_the_runs_own_and_all_are_its_curve(store_root, tmp_path):
    """A sweep of guidellm: one client decides TTFT and TPOT, Economics has both points."""
    record = imported(store_root, tmp_path, guidellm(streams=(4, 1)))

    assert record.latency.own.batch_size == 1
    assert [(p.kind, p.level, p.output_tokens_per_s) for p in record.latency.own.curve] == [
        ("clients", 1.0, 13.0),
        ("clients", 4.0, 52.0),
    ]
    assert record.imported.timing.tool == "guidellm 0.8.1"


def test_requests_of_aiperf_are_read_beside_its_summary(tmp_path):
    """Only answered requests of the measured phase, in the units that the file states."""

    def line(ttft, phase="profiling", error=None):
        return json.dumps(
            {
                "metadata": {"benchmark_phase": phase},
                "metrics": {
                    "time_to_first_token": {"value": ttft, "unit": "us"},
                    "request_latency": {"value": 1380.0, "unit": "ms"},
                    "output_sequence_length": {"value": 65, "unit": "tokens"},
                },
                "error": error,
            }
        )

    lines = [line(100_000), line(110_000), line(1, "warmup"), line(2, error={"code": 500})]
    (tmp_path / timings.RECORDS).write_text("\n".join(lines))

    (level,) = timings.read_levels(written(tmp_path / "profile_export_aiperf.json", aiperf()))

    assert [turn.ttft_ms for turn in level.turns] == [100, 110]
    assert (level.device, level.kind, level.level) == ("NVIDIA H200", "clients", 4.0)


def test_several_results_in_one_file_are_several_levels(tmp_path):
    """With `--append-result` vLLM writes an object a line; a rate is no number of clients."""
    path = tmp_path / "bench.json"
    rate = vllm(clients=None, request_rate=2.0, detailed=False, median_e2el_ms=3000.0)
    path.write_text(json.dumps(vllm()) + "\n" + json.dumps(rate) + "\n")

    first, second = timings.read_levels(path)

    assert (first.kind, first.concurrency) == ("clients", 4)
    assert (second.kind, second.level, second.concurrency) == ("poisson", 2.0, 6)


@pytest.mark.parametrize(
    ("document", "options", "says"),
    [
        (vllm(model_id="acme/small"), {}, "timed acme/small, and the scores are of acme/big"),
        (vllm(), {"device": None}, "does not say what served the model"),
        (vllm(detailed=False, median_ttft_ms=0.0), {}, "should be above 0. Did the server stream"),
        (vllm(detailed=False, median_tpot_ms=None), {}, "states no median TPOT"),
        (
            vllm(detailed=False, median_tpot_ms=0.02),
            {},
            "TPOT is 0.02 ms, which cannot be.*seconds",
        ),
        (vllm(median_ttft_ms=0.1), {}, "TTFT is 0.1 ms and that of its requests 104.5 ms"),
        (vllm(completed=0), {}, "no request was answered"),
        (vllm(ttfts=[0.1]), {}, "lists of requests have different lengths"),
        (vllm(duration="long"), {}, "looks like timings, but a number in it is missing"),
        (aiperf(was_cancelled=True), {}, "did not finish"),
        (aiperf(request_latency={"unit": "fortnights", "p50": 1}), {}, "the unit 'fortnights'"),
        ({"accuracy": 1.0}, {}, "is not a result of guidellm"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(
    store_root, tmp_path, document, options, says
):
    """Another model, no device, no streaming, a damaged file: nothing is written."""
    with pytest.raises(BadInput, match=says):
        imported(store_root, tmp_path, document, **options)
    assert not list(store_root.iterdir())


def test_a_median_may_be_called_the_50th_percentile(store_root, tmp_path):
    """As `--metric-percentiles 50` of vLLM's bench names it."""
    document = vllm(detailed=False, p50_ttft_ms=90.0, p50_tpot_ms=15.0)
    del document["median_ttft_ms"], document["median_tpot_ms"]

    own = imported(store_root, tmp_path, document).latency.own
    assert (own.summary.ttft_ms, own.summary.tpot_ms) == (90.0, 15.0)


def test_a_model_may_be_served_under_another_name(store_root, tmp_path):
    """A path with the same end is the same model; another name has to be stated."""
    local = imported(store_root, tmp_path, vllm(model_id="/models/Big"))
    named = imported(store_root, tmp_path, vllm(model_id="prod"), served_as="prod")

    assert (local.imported.timing.model, named.imported.timing.model) == ("/models/Big", "prod")


def test_timings_in_the_folder_count_if_they_are_of_the_model(store_root, tmp_path):
    """A zip of everything: the other model's file is left out, in a sentence."""
    folder = evaluation(tmp_path / "out").parent
    written(folder / "mine.json", aiperf())
    written(folder / "other.json", vllm(model_id="acme/small"))

    run_id, problems = import_run.import_folder(store_root, folder, "x")

    record = disk.load(store_root, run_id)
    assert list(record.imported.timing.files) == ["mine.json"]
    assert record.device_name == "NVIDIA H200"
    assert any("other.json timed acme/small" in problem for problem in problems)


def test_a_model_is_picked_without_training_or_timing_here(
    store_root, tmp_path, monkeypatch, capsys
):
    """Two imports with timings and a price: `explorer pick` names one, `show` its conditions."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["explorer", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr()
        assert stopped.value.code == 0, said
        return said.out

    ids = []
    for name, tpot, rate in (("big", 20.0, 52.0), ("small", 8.0, 120.0)):
        values = (1.0, 1.0, 1.0, 0.0) * 20 if name == "big" else (1.0, 1.0, 0.0, 1.0) * 20
        folder = evaluation(
            tmp_path / name, model=f"acme/{name}", values=values, metric="exact_match"
        ).parent
        bench = written(
            tmp_path / f"{name}.json",
            vllm(
                model_id=f"acme/{name}",
                detailed=False,
                median_tpot_ms=tpot,
                output_throughput=rate,
            ),
        )
        student = ["--teacher", ids[0]] if ids else []
        out = call("import", folder, bench, "--as", name, "--device", "NVIDIA H200", *student)
        ids.append(out.split()[2].rstrip("."))
    call("price", "NVIDIA H200", "3.5")

    picked = json.loads(call("pick", "--json"))

    assert picked["pick"]["run_id"] == ids[0], "80 documents do not show that small keeps 95 %"
    assert set(picked["shares"]) == set(ids)
    assert picked["assumptions"]["device"] == "NVIDIA H200"
    assert "Timed by vLLM bench on NVIDIA H200, 4 requests at once" in call("show", ids[1])
    assert "NVIDIA H200" in call("economics")
