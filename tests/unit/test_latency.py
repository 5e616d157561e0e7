import functools
import sys
from types import SimpleNamespace

import pytest
import torch

from explorer.errors import BadInput, RunCancelled, RunFailed
from explorer.latency import interference, peak_memory
from explorer.latency import timing as latency
from explorer.latency.runtimes import allocator_peak
from explorer.latency.runtimes.pytorch import CompiledRuntime, EagerRuntime
from explorer.models import loading
from explorer.records import Interference
from explorer.specs import LatencySpec
from explorer.store.progress import Progress

SPEC = LatencySpec(prompt_tokens=8, output_tokens=5, batch_size=2, warmup=1, repeats=3)


@pytest.fixture
def student(tiny_llama):
    return EagerRuntime(loading.load(str(tiny_llama(num_layers=1))))


@pytest.fixture
def teacher(tiny_llama):
    return EagerRuntime(loading.load(str(tiny_llama(num_layers=12))))


@pytest.fixture
def progress(store_root):
    return Progress(store_root, "run-1")


def test_every_counted_turn_is_kept_and_warm_up_is_not(student, teacher, progress):
    """Three repeats leave three turns of each model, each with its tokens and both times."""
    found = latency.time_in_turns(student, teacher, SPEC, progress)

    assert found.teacher is not None
    for timing in (found.own, found.teacher):
        assert (timing.batch_size, timing.prompt_tokens) == (2, 8)
        assert [turn.num_output_tokens for turn in timing.turns] == [5, 5, 5]
        assert all(0 < turn.ttft_ms < turn.latency_ms for turn in timing.turns)
        assert timing.peak_memory_bytes is None, "a CPU cannot tell without a name to load"
        assert timing.runtime.name == "transformers eager"
        assert timing.runtime.load_s > 0
    assert found.seconds > 0


def test_each_models_time_is_its_own(student, teacher, progress, monkeypatch):
    """By a clock that a layer moves on by a millisecond: five tokens of one layer, of twelve."""
    clock = SimpleNamespace(now=0.0)

    def tick(*told):
        clock.now += 1e-3

    for runtime in (student, teacher):
        for layer in runtime.loaded.model.model.layers:
            layer.register_forward_hook(tick)
    counted = SimpleNamespace(perf_counter=lambda: clock.now, monotonic=lambda: clock.now)
    monkeypatch.setattr(latency, "time", counted)

    found = latency.time_in_turns(student, teacher, SPEC, progress)

    assert found.teacher is not None
    for timing, num_layers in ((found.own, 1), (found.teacher, 12)):
        for turn in timing.turns:
            assert (turn.ttft_ms, turn.latency_ms) == pytest.approx((num_layers, 5 * num_layers))


def test_a_teacher_is_timed_alone(teacher, progress):
    """Without a teacher there is one timing and no second one."""
    found = latency.time_in_turns(teacher, None, SPEC, progress)

    assert found.teacher is None
    assert len(found.own.turns) == 3


def test_models_take_turns_and_swap_who_goes_first(student, teacher, progress, monkeypatch):
    """The order is A B, B A, A B: neither model always follows the other."""
    order = []
    real = latency.time_request

    def spy(runtime, prompt_BT, num_output_tokens):
        order.append("A" if runtime is student else "B")
        return real(runtime, prompt_BT, num_output_tokens)

    monkeypatch.setattr(latency, "time_request", spy)

    latency.time_in_turns(student, teacher, SPEC, progress)

    assert "".join(order) == "ABBAABBA"


@pytest.mark.parametrize("runtime", ["eager", "compiled"])
def test_answer_is_what_generate_writes(student, runtime):
    """Both runtimes decode greedily with a cache: they give the tokens that `generate` gives."""
    if runtime == "compiled":
        # torch's own backend traces the step without compiling it, which takes a CPU half a minute.
        student = CompiledRuntime(student.loaded, backend="eager")
    prompt_BT = latency.random_prompt([student], SPEC, 2)

    for _ in range(2):
        student.prepare(2, 8 + 5)
        ours = torch.tensor(list(student.stream(prompt_BT, 5))).T

    theirs = student.model.generate(
        prompt_BT,
        attention_mask=torch.ones_like(prompt_BT),
        min_new_tokens=5,
        max_new_tokens=5,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert torch.equal(ours, theirs[:, 8:])


def test_end_of_text_does_not_end_an_answer(student):
    """An answer has its fixed length even from a model that says end-of-text at once."""
    calls = []
    student.model.register_forward_hook(lambda module, args, output: calls.append(1))
    student.model.lm_head.weight.data.zero_()

    turn = latency.time_request(student, torch.zeros((1, 3), dtype=torch.long), 6)

    assert turn.num_output_tokens == len(calls) == 6


def test_prompt_is_seeded_and_within_both_vocabularies(student, tiny_llama):
    """The same seed gives the same prompt; no id is beyond the smaller vocabulary."""
    small = EagerRuntime(loading.load(str(tiny_llama(vocab_size=300))))
    spec = SPEC.with_(prompt_tokens=400)

    prompt_BT = latency.random_prompt([student, small], spec, 2)

    assert prompt_BT.shape == (2, 400)
    assert prompt_BT.max() < 300
    assert torch.equal(prompt_BT, latency.random_prompt([student, small], spec, 2))
    other = latency.random_prompt([student, small], spec.with_(seed=1), 2)
    assert not torch.equal(prompt_BT, other)


def test_progress_counts_turns_and_may_stop(student, teacher, store_root):
    """Every turn is told, and a cancelled run stops between two turns."""
    seen = []
    latency.time_in_turns(
        student, teacher, SPEC, Progress(store_root, "run-1", lambda s: seen.append(s["done"]))
    )
    assert seen == list(range(9))

    stopping = Progress(store_root, "run-2")
    stopping.stop_reason = "stop"
    with pytest.raises(RunCancelled):
        latency.time_in_turns(student, teacher, SPEC, stopping)


def test_too_long_for_the_context_is_refused(student, progress):
    """Lengths beyond the model's context are one sentence with both numbers."""
    with pytest.raises(BadInput, match=r"500 \+ 64 tokens.*context of .* holds 512"):
        latency.time_in_turns(student, None, LatencySpec(prompt_tokens=500), progress)


def test_a_busy_machine_is_recorded_and_said_at_once(student, store_root, monkeypatch, caplog):
    """The record holds the shares and the threshold; log and progress say it from the start."""
    # Others take a third of two processors before, and half of them from then on.
    readings = iter([(0.0, 0.0), (0.3, 1.0), (4.3, 9.0)])
    counted = functools.partial(interference.InterferenceWatch, counter=lambda: next(readings))
    monkeypatch.setattr(latency, "InterferenceWatch", counted)
    seen = []

    with caplog.at_level("WARNING", logger="explorer"):
        timed = latency.time_in_turns(
            student, None, SPEC, Progress(store_root, "run-1", lambda s: seen.append(s.get("busy")))
        )

    assert timed.was_busy
    assert timed.interference.cpu_share_before == pytest.approx(0.3)
    assert timed.interference.cpu_share_during == pytest.approx(0.5)
    assert timed.interference.cpu_threshold == interference.BUSY_SHARE
    assert "50% of it while this was timed" in timed.warning
    assert "30% of the processor just before" in caplog.text
    assert seen
    assert all(seen), "every update says it, or the next one would take it back"


def test_an_idle_machine_is_recorded_too(student, store_root, monkeypatch):
    """The shares are kept also where they are small, and nothing is said."""
    readings = iter([(0.0, 0.0), (0.1, 1.0), (0.9, 9.0)])
    counted = functools.partial(interference.InterferenceWatch, counter=lambda: next(readings))
    monkeypatch.setattr(latency, "InterferenceWatch", counted)
    seen = []

    timed = latency.time_in_turns(
        student, None, SPEC, Progress(store_root, "run-1", lambda s: seen.append(s.get("busy")))
    )

    assert not timed.was_busy
    assert timed.warning is None
    assert timed.interference.cpu_share_before == pytest.approx(0.1)
    assert timed.interference.cpu_share_during == pytest.approx(0.1)
    assert set(seen) == {None}


def test_own_work_is_not_others(monkeypatch):
    """Others' seconds count before and during a timing; a server's own work only before it."""
    monkeypatch.setattr(interference, "WATCH_BEFORE_S", 0)

    def watched(*counted, **options):
        readings = iter(counted)
        watch = interference.InterferenceWatch(
            torch.device("cpu"), counter=lambda: next(readings), **options
        )
        return watch.interference()

    idle = watched((10, 100), (10.0, 101), (10.2, 109))
    assert (idle.cpu_share_before, idle.cpu_share_during) == (0, pytest.approx(0.2 / 8))
    assert idle.warning is None
    assert "60% of the processor just before" in watched((0, 0), (0.6, 1), (0.6, 9)).warning
    busy_during = (0, 0), (0.0, 1), (7.0, 9)
    assert "88% of it while" in watched(*busy_during).warning
    server = watched(*busy_during, only_before=True)
    assert (server.cpu_share_during, server.warning) == (None, None)
    nobody_counts = watched((0, 0), (0, 0), (0, 0))
    assert (nobody_counts.cpu_share_before, nobody_counts.warning) == (None, None)


def test_exactly_the_threshold_is_not_yet_busy():
    """A fifth of the processor may be taken; more may not."""
    shares = {"cpu_threshold": 0.2, "cpu_share_before": 0.2, "cpu_share_during": 0.2}

    assert Interference(**shares).warning is None
    assert Interference(**shares | {"cpu_share_during": 0.21}).warning is not None


def test_a_gpu_that_others_use_is_busy():
    """What it computed before, and any other process on it."""
    idle = Interference(
        cpu_threshold=0.2, gpu_threshold=0.05, gpu_share_before=0.0, num_other_gpu_processes=0
    )

    assert idle.warning is None
    computing = idle.model_copy(update={"gpu_share_before": 0.5})
    assert "50% of the GPU just before" in computing.warning
    shared = idle.model_copy(update={"num_other_gpu_processes": 2})
    assert "the same GPU (2 of them)" in shared.warning


def test_weights_are_counted_once(student):
    """Tied embeddings lie in memory once."""
    weights = {p.data_ptr(): p.numel() * 4 for p in student.model.parameters()}

    counted = allocator_peak.num_weight_bytes(student.model)

    assert sum(weights.values()) <= counted < sum(weights.values()) + 10_000


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset a process's peak")
@pytest.mark.slow
def test_peak_memory_grows_with_the_model(tiny_llama):
    """A model of 50 MB takes at least that, and not gigabytes: Python and torch are left out."""
    folder = tiny_llama(num_layers=6, hidden_size=640)
    size = allocator_peak.num_weight_bytes(loading.load(str(folder)).model)

    found = peak_memory.peak_memory_bytes(str(folder), SPEC, torch.device("cpu"), torch.float32)

    assert size > 40e6
    assert found is not None
    assert 0.8 * size < found < 3 * size + 100e6


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset a process's peak")
def test_failed_memory_measurement_says_why():
    """A model that the child cannot load fails with the child's own last line."""
    with pytest.raises(RunFailed, match="peak memory of /nowhere/model"):
        peak_memory.peak_memory_bytes("/nowhere/model", SPEC, torch.device("cpu"), torch.float32)
