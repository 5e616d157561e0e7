"""Result files of guidellm, AIPerf and vLLM's bench: times that were measured elsewhere.

They give a run that has lm-eval's scores its latency, so that a model can be picked without
timing it here. TPOT always leaves out the first token: it is vLLM's `tpot`, AIPerf's
`inter_token_latency` and guidellm's `inter_token_latency_ms`, never guidellm's
`time_per_output_token_ms`, which counts the first token in.

Source: vllm/benchmarks/serve.py of vLLM; guidellm 0.8.1, `benchmark/schemas` and
`schemas/base/request_stats.py`; aiperf 0.13.0, `common/models/export_models.py` (schema 1.4), and
its tutorial on profile exports.
"""

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from explorer.errors import BadInput, reason_of
from explorer.lm_eval_io.evaluations import mapping, storable
from explorer.records import LoadPoint, RuntimeFacts, TimedRequest, Timing, TimingSummary

GUIDELLM, AIPERF, VLLM = "guidellm", "AIPerf", "vLLM bench"
MS = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3, "sec": 1e3, "seconds": 1e3}
"""Unit of a time to milliseconds."""
FASTEST_TOKEN_MS = 0.05
"""No server answers or writes a token in less: 20,000 tokens per second for each user."""
RECORDS = "profile_export.jsonl"
"""AIPerf's file with a line per request, beside its summary."""


@dataclasses.dataclass(frozen=True)
class TimedLevel:
    """One load at which another tool timed a model."""

    tool: str
    version: str | None
    model: str | None
    """The model's name at the server; None if the file does not say."""
    kind: Literal["clients", "poisson"]
    level: float
    """Clients that ask at once, or requests per second."""
    turns: list[TimedRequest]
    """Each answered request; empty if the file has medians only."""
    summary: TimingSummary
    num_failed: int
    seconds: float
    device: str | None = None
    """The device, if the file says it."""

    @property
    def concurrency(self) -> int:
        """Requests in flight: the clients, or by Little's law the rate times the latency."""
        if self.kind == "clients":
            return max(1, round(self.level))
        latency_ms = self.summary.latency_ms or 0.0
        return max(1, round(self.level * latency_ms / 1e3))

    def in_words(self) -> str:
        """`8 requests at once`, `2 requests per second`."""
        if self.kind == "poisson":
            return f"{self.level:g} requests per second"
        return f"{self.concurrency} requests at once"


def read_levels(path: Path) -> list[TimedLevel]:
    """The levels of load in a file; empty if it is of none of the three tools.

    Raises:
        BadInput: It is of one of them, but has no usable time.
    """
    levels: list[TimedLevel] = []
    for document in _documents(path):
        try:
            if isinstance(document.get("benchmarks"), list):
                levels += [_guidellm(document, mapping(one)) for one in document["benchmarks"]]
            elif "unit" in mapping(document.get("request_latency")):
                levels.append(_aiperf(document, path.with_name(RECORDS)))
            elif "request_throughput" in document and "total_output_tokens" in document:
                levels.append(_vllm(document))
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise BadInput(
                f"{path.name} looks like timings, but a number in it is missing or of another "
                f"kind ({type(error).__name__}: {str(error)[:80]}). Write it again with the tool."
            ) from error
        except BadInput as error:
            raise BadInput(f"{path.name}: {error}") from error
    return levels


def timing(levels: Sequence[TimedLevel]) -> tuple[Timing, list[str]]:
    """Levels of one model as a run's timing: the least load is its own, all are its curve.

    Returns:
        The timing, and a sentence for each level that has no requests of its own.
    """
    ordered = sorted(levels, key=lambda one: (one.concurrency, one.kind != "clients"))
    own = ordered[0]
    curve = [
        LoadPoint(
            kind=one.kind,
            level=one.level,
            turns=one.turns,
            num_failed=one.num_failed,
            failures={"errors": one.num_failed} if one.num_failed else {},
            seconds=one.seconds,
            output_tokens_per_s=one.summary.output_tokens_per_s,
        )
        for one in ordered
        if one.turns and len(ordered) > 1
    ]
    problems = [
        f"{one.tool} with {one.in_words()}: the file has medians only, so this load is not a point "
        "of the curve."
        for one in ordered[1:]
        if not one.turns
    ]
    return Timing(
        batch_size=own.concurrency,
        prompt_tokens=own.summary.prompt_tokens,
        turns=own.turns,
        summary=own.summary,
        runtime=RuntimeFacts(name="endpoint"),
        num_failed=own.num_failed,
        failures={"errors": own.num_failed} if own.num_failed else {},
        curve=curve,
    ), problems


def same_model(name: str, other: str) -> bool:
    """Whether two names may mean one model: equal, or equal without their folders."""
    ends = [PurePosixPath(each.replace("\\", "/")).name.casefold() for each in (name, other)]
    return name == other or ends[0] == ends[1] != ""


def _documents(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON file: one, or one a line as vLLM's `--append-result` leaves them."""
    try:
        data = path.read_bytes()
        text = data.decode(json.detect_encoding(data))
    except PermissionError as error:
        raise BadInput(f"Could not read {path}: {reason_of(error)}.") from error
    except (OSError, UnicodeDecodeError):
        return []
    try:
        return [mapping(json.loads(text))]
    except (ValueError, RecursionError):
        pass
    try:
        return [mapping(json.loads(line)) for line in text.split("\n") if line.strip()]
    except (ValueError, RecursionError):
        return []


def _vllm(document: Mapping[str, Any]) -> TimedLevel:
    completed = int(document["completed"])
    if completed < 1:
        raise BadInput("no request was answered.")
    turns = _vllm_turns(document)
    clients: Any = document.get("max_concurrency")
    rate: Any = document.get("request_rate")
    is_rate = rate not in (None, "inf") and math.isfinite(float(rate)) and not clients
    level = float(rate) if is_rate else float(clients or document.get("num_prompts") or completed)
    summary = _summary(
        ttft_ms=document.get("median_ttft_ms", document.get("p50_ttft_ms")),
        tpot_ms=document.get("median_tpot_ms", document.get("p50_tpot_ms")),
        latency_ms=document.get("median_e2el_ms", document.get("p50_e2el_ms")),
        p95=[document.get(f"p95_{name}_ms") for name in ("ttft", "tpot", "e2el")],
        num_requests=completed,
        prompt_tokens=float(document["total_input_tokens"]) / completed,
        output_tokens=float(document["total_output_tokens"]) / completed,
        output_tokens_per_s=document.get("output_throughput"),
        turns=turns,
    )
    return TimedLevel(
        VLLM,
        None,
        _name(document.get("model_id")),
        "poisson" if is_rate else "clients",
        level,
        turns,
        summary,
        int(document.get("failed") or 0),
        float(document["duration"]),
        # Not vLLM's own: people add it with --metadata device=NAME.
        device=_name(document.get("device")),
    )


def _vllm_turns(document: Mapping[str, Any]) -> list[TimedRequest]:
    """Each answered request, if the file was written with `--save-detailed`."""
    lists: list[Any] = [
        document.get(name) for name in ("ttfts", "itls", "output_lens", "input_lens")
    ]
    if not all(isinstance(values, list) for values in lists):
        return []
    ttfts, itls, outputs, inputs = lists
    latencies: Any = document.get("latencies")
    errors: Any = document.get("errors") or [""] * len(ttfts)
    if len({len(each) for each in (*lists, latencies or ttfts, errors)}) != 1:
        raise BadInput("its lists of requests have different lengths.")
    # Files of earlier versions have the first token and the gaps after it.
    latencies = latencies or [
        ttft + math.fsum(gaps) for ttft, gaps in zip(ttfts, itls, strict=True)
    ]
    return [
        _turn(1e3 * ttft, 1e3 * latency, output, prompt)
        for ttft, latency, output, prompt, error in zip(
            ttfts, latencies, outputs, inputs, errors, strict=True
        )
        if not error and output > 0
    ]


def _guidellm(document: Mapping[str, Any], benchmark: Mapping[str, Any]) -> TimedLevel:
    config = mapping(benchmark.get("config")) or mapping(benchmark.get("args"))
    metrics = {
        name: mapping(mapping(value).get("successful"))
        for name, value in mapping(benchmark.get("metrics")).items()
    }
    strategy = mapping(config.get("strategy"))
    requests = mapping(benchmark.get("requests"))
    turns = [
        _turn(
            request["time_to_first_token_ms"],
            1e3 * request["request_latency"],
            request["output_tokens"],
            request.get("prompt_tokens"),
        )
        for request in requests.get("successful") or []
        if request.get("output_tokens") and request.get("time_to_first_token_ms") is not None
    ]
    rate: Any = strategy.get("rate")
    clients: Any = strategy.get("streams") or strategy.get("max_concurrency")
    if strategy.get("type_") == "synchronous":
        clients = 1
    if not clients and not rate:
        clients = mapping(metrics.get("request_concurrency")).get("mean")
    is_rate = bool(rate) and strategy.get("type_") in ("constant", "poisson", "async")
    names = ("time_to_first_token_ms", "inter_token_latency_ms", "request_latency")
    ttft, tpot, latency = (metrics.get(name, {}) for name in names)
    seconds = latency.get("median")
    p95_seconds = mapping(latency.get("percentiles")).get("p95")
    totals = mapping(mapping(benchmark.get("metrics")).get("request_totals"))
    backend = mapping(config.get("backend"))
    models = (
        backend.get("model"),
        mapping(backend.get("attributes")).get("model"),
        mapping(mapping(mapping(document.get("config")).get("spec")).get("backend")).get("model"),
        mapping(document.get("args")).get("model"),
        mapping(benchmark.get("worker")).get("backend_model"),
    )
    summary = _summary(
        ttft_ms=ttft.get("median"),
        tpot_ms=tpot.get("median"),
        latency_ms=None if seconds is None else 1e3 * seconds,
        p95=[
            mapping(ttft.get("percentiles")).get("p95"),
            mapping(tpot.get("percentiles")).get("p95"),
            None if p95_seconds is None else 1e3 * p95_seconds,
        ],
        num_requests=int(totals.get("successful") or latency.get("count") or len(turns)),
        prompt_tokens=metrics.get("prompt_token_count", {}).get("median"),
        output_tokens=metrics.get("output_token_count", {}).get("median"),
        output_tokens_per_s=metrics.get("output_tokens_per_second", {}).get("mean"),
        turns=turns,
    )
    return TimedLevel(
        GUIDELLM,
        _name(mapping(document.get("metadata")).get("guidellm_version")),
        next((name for name in map(_name, models) if name), None),
        "poisson" if is_rate else "clients",
        float(rate if is_rate else clients or 1),
        turns,
        summary,
        int(totals.get("errored") or 0),
        float(benchmark.get("duration") or 0.0),
    )


def _aiperf(document: Mapping[str, Any], records: Path) -> TimedLevel:
    if document.get("was_cancelled") or document.get("is_complete") is False:
        why = document.get("incomplete_reason") or "it was cancelled"
        raise BadInput(f"AIPerf did not finish ({why}). Time the model again.")
    config = mapping(document.get("input_config"))
    load = mapping(config.get("loadgen"))
    phases = config.get("phases")
    measured = [
        mapping(phase)
        for phase in (phases if isinstance(phases, list) else [])
        if not mapping(phase).get("exclude_from_results") and mapping(phase).get("name") != "warmup"
    ]
    load = load or (measured[-1] if measured else mapping(config.get("profiling")))
    clients: Any = load.get("concurrency")
    rate: Any = load.get("request_rate") or load.get("rate")
    turns = _aiperf_turns(records)
    endpoint_models = mapping(config.get("endpoint")).get("model_names")
    items = mapping(config.get("models")).get("items")
    names = [
        *(endpoint_models if isinstance(endpoint_models, list) else []),
        *(mapping(item).get("name") for item in (items if isinstance(items, list) else [])),
        config.get("model"),
    ]
    gpus = [
        str(mapping(gpu).get("gpu_name"))
        for endpoint in mapping(mapping(document.get("telemetry_data")).get("endpoints")).values()
        for gpu in mapping(mapping(endpoint).get("gpus")).values()
        if mapping(gpu).get("gpu_name")
    ]
    summary = _summary(
        ttft_ms=_ms(document, "time_to_first_token", "p50"),
        tpot_ms=_ms(document, "inter_token_latency", "p50"),
        latency_ms=_ms(document, "request_latency", "p50"),
        p95=[
            _ms(document, name, "p95")
            for name in ("time_to_first_token", "inter_token_latency", "request_latency")
        ],
        num_requests=int(mapping(document.get("request_count")).get("avg") or len(turns)),
        prompt_tokens=mapping(document.get("input_sequence_length")).get("p50"),
        output_tokens=mapping(document.get("output_sequence_length")).get("p50"),
        output_tokens_per_s=mapping(document.get("output_token_throughput")).get("avg"),
        turns=turns,
    )
    return TimedLevel(
        AIPERF,
        _name(document.get("aiperf_version")),
        next((name for name in map(_name, names) if name), None),
        "poisson" if rate and not clients else "clients",
        float(clients or rate or 1),
        turns,
        summary,
        int(mapping(document.get("error_request_count")).get("avg") or 0),
        float(mapping(document.get("benchmark_duration")).get("avg") or 0.0),
        device=_devices(gpus),
    )


def _aiperf_turns(records: Path) -> list[TimedRequest]:
    """Each answered request of the measured phase, if AIPerf's records are there."""
    if not records.is_file():
        return []
    turns = []
    for document in _documents(records):
        values = {
            name: mapping(mapping(document.get("metrics")).get(name))
            for name in ("time_to_first_token", "request_latency", "output_sequence_length")
        }
        phase = mapping(document.get("metadata")).get("benchmark_phase", "profiling")
        if document.get("error") or phase == "warmup" or not all(values.values()):
            continue
        ttft, latency = (
            values[name]["value"] * _unit(values[name])
            for name in ("time_to_first_token", "request_latency")
        )
        prompt = mapping(mapping(document["metrics"]).get("input_sequence_length")).get("value")
        turns.append(_turn(ttft, latency, values["output_sequence_length"]["value"], prompt))
    return turns


def _ms(document: Mapping[str, Any], name: str, statistic: str) -> float | None:
    metric = mapping(document.get(name))
    value = metric.get(statistic)
    return None if value is None else float(value) * _unit(metric)


def _unit(metric: Mapping[str, Any]) -> float:
    """Milliseconds of a metric's unit.

    Raises:
        BadInput: The unit is not one of time.
    """
    unit = metric.get("unit")
    if unit not in MS:
        raise BadInput(f"a time has the unit {unit!r}, and {', '.join(MS)} are understood.")
    return MS[unit]


def _devices(gpus: Sequence[str]) -> str | None:
    """`NVIDIA H200`, or `8 x NVIDIA H200`: one price is for all that served the model."""
    if not gpus:
        return None
    name = " and ".join(sorted(set(gpus)))
    return storable(name if len(gpus) == 1 else f"{len(gpus)} x {name}")


def _turn(ttft_ms: float, latency_ms: float, output: float, prompt: float | None) -> TimedRequest:
    return TimedRequest(
        ttft_ms=_positive(ttft_ms, "time to first token"),
        latency_ms=_positive(latency_ms, "latency of a request"),
        num_output_tokens=int(output),
        num_prompt_tokens=None if prompt is None else int(prompt),
    )


def _summary(
    *,
    ttft_ms: Any,
    tpot_ms: Any,
    latency_ms: Any,
    p95: Sequence[Any],
    num_requests: int,
    prompt_tokens: Any,
    output_tokens: Any,
    output_tokens_per_s: Any,
    turns: Sequence[TimedRequest],
) -> TimingSummary:
    """The medians that a file states, or those of its requests.

    Raises:
        BadInput: TTFT or TPOT is neither stated nor in the requests, or not above 0.
    """
    tpots = [turn.tpot_ms for turn in turns if turn.tpot_ms is not None]
    medians = {
        "TTFT": (ttft_ms, [turn.ttft_ms for turn in turns]),
        "TPOT": (tpot_ms, tpots),
        "latency": (latency_ms, [turn.latency_ms for turn in turns]),
    }
    known = {
        name: statistics.median(values) if stated is None and values else stated
        for name, (stated, values) in medians.items()
    }
    for name in ("TTFT", "TPOT"):
        if known[name] is None:
            raise BadInput(f"it states no median {name}. Time the model with streamed answers.")
        _refuse_other_unit(name, _positive(known[name], f"median {name}"), medians[name][1])
    if known["latency"] is None and output_tokens:
        known["latency"] = known["TTFT"] + known["TPOT"] * (float(output_tokens) - 1)
    return TimingSummary(
        ttft_ms=_positive(known["TTFT"], "median TTFT"),
        tpot_ms=_positive(known["TPOT"], "median TPOT"),
        latency_ms=_positive(known["latency"], "median latency"),
        ttft_p95_ms=_optional(p95[0]),
        tpot_p95_ms=_optional(p95[1]),
        latency_p95_ms=_optional(p95[2]),
        num_requests=num_requests,
        prompt_tokens=None if not prompt_tokens else round(float(prompt_tokens)),
        output_tokens=None if not output_tokens else round(float(output_tokens)),
        output_tokens_per_s=None
        if output_tokens_per_s is None
        else _positive(output_tokens_per_s, "throughput"),
    )


def _refuse_other_unit(name: str, median_ms: float, of_requests_ms: Sequence[float]) -> None:
    """Refuse a median that is not in milliseconds, as far as the numbers around it tell.

    Raises:
        BadInput: It is far from the median of the file's own requests, or no server is so fast.
    """
    own_ms = statistics.median(of_requests_ms) if of_requests_ms else median_ms
    if 0 < median_ms < FASTEST_TOKEN_MS or not own_ms / 3 <= median_ms <= own_ms * 3:
        own = f" and that of its requests {own_ms:g} ms" if own_ms != median_ms else ""
        raise BadInput(
            f"the median {name} is {median_ms:g} ms{own}, which cannot be. Is a time in seconds "
            "where the file should have milliseconds?"
        )


def _positive(value: Any, what: str) -> float:
    """A finite number above 0.

    Raises:
        BadInput: It is not one; a tool writes 0 where the server did not stream.
    """
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise BadInput(f"the {what} is {value}, and it should be above 0. Did the server stream?")
    return number


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)


def _name(value: Any) -> str | None:
    return storable(value) if isinstance(value, str) and value else None
