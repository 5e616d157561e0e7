"""The sweep of batch sizes: rising levels, ended by a full device, what is measured kept."""

import pytest

from explorer.errors import BadInput, NoRoom
from explorer.latency import timing
from explorer.latency.runtimes.pytorch import EagerRuntime
from explorer.models import loading
from explorer.records import LoadPoint
from explorer.specs import WORKLOADS, LatencySpec
from explorer.store.progress import Progress

SPEC = LatencySpec(prompt_tokens=6, output_tokens=3, warmup=0, repeats=2, concurrency=[1, 2, 4])


@pytest.fixture
def runtime(tiny_llama):
    return EagerRuntime(loading.load(str(tiny_llama(num_layers=1))))


def test_a_level_is_a_batch_and_its_tokens_are_counted(runtime, store_root, monkeypatch):
    """Each level answers so many sequences at once; the rate is theirs together."""
    monkeypatch.setattr(timing, "SATURATED_GAIN", 0.0)

    found = timing.time_in_turns(runtime, None, SPEC, Progress(store_root, "run-1")).own

    assert [(point.kind, point.level) for point in found.curve] == [
        ("batch", 1),
        ("batch", 2),
        ("batch", 4),
    ]
    for point in found.curve:
        rates = [1e3 * point.level * 3 / turn.latency_ms for turn in point.turns]
        assert point.output_tokens_per_s == pytest.approx(sum(rates) / 2)
    assert found.curve_note is None


def point(level, rate):
    return LoadPoint(kind="batch", level=level, turns=[], seconds=1, output_tokens_per_s=rate)


@pytest.mark.parametrize(
    ("rates", "ends"),
    [([100], False), ([100, 190], False), ([100, 106], False), ([100, 104], True)],
)
def test_a_level_that_adds_hardly_a_token_ends_the_sweep(rates, ends):
    """Less than 5 % more than the level before: the note has both rates."""
    note = timing.saturation_note([point(2**i, rate) for i, rate in enumerate(rates)])

    assert (note is not None) == ends
    if ends:
        assert "104 output tokens/s at 2, 100 at 1" in note


def test_memory_that_runs_out_ends_the_sweep_and_keeps_the_rest(runtime, store_root, monkeypatch):
    """The levels before it stay, and the note says why there are no more."""
    real = timing._time_level

    def too_large(runtimes, spec, num_sequences, meter, tell):
        if num_sequences == 2:
            raise NoRoom("The memory of cpu is too small.")
        return real(runtimes, spec, num_sequences, meter, tell)

    monkeypatch.setattr(timing, "_time_level", too_large)

    found = timing.time_in_turns(runtime, None, SPEC, Progress(store_root, "run-1")).own

    assert [point.level for point in found.curve] == [1]
    assert found.curve_note == "The memory of cpu is too small."
    assert len(found.turns) == 2


def test_arrivals_need_a_server(runtime, store_root):
    """An open loop over a model in this process is refused before anything is timed."""
    spec = SPEC.with_(request_rates=[1.0])
    with pytest.raises(BadInput, match="Time an endpoint"):
        timing.time_in_turns(runtime, None, spec, Progress(store_root, "run-1"))


def test_a_workload_sets_both_lengths():
    """A named shape survives YAML; lengths beside it that differ are refused."""
    for name, lengths in WORKLOADS.items():
        spec = LatencySpec(workload=name)
        assert (spec.prompt_tokens, spec.output_tokens) == lengths
        assert LatencySpec.from_yaml(spec.to_yaml()) == spec
    with pytest.raises(BadInput, match=r"chat has 512 \+ 128 tokens, got 100 \+ 128"):
        LatencySpec.parse({"workload": "chat", "prompt_tokens": 100})


@pytest.mark.parametrize("levels", [[2, 1], [1, 1]])
def test_levels_rise(levels):
    """A sweep ends where the device is full, so its levels have to rise."""
    with pytest.raises(BadInput, match="concurrency should rise"):
        LatencySpec.parse({"concurrency": levels})
