"""The same run on an accelerator: equal to the CPU where it must be, whole where it may differ."""

import pytest

from explorer import pipeline as engine
from explorer.errors import RunCancelled
from explorer.specs import RunSpec
from explorer.store import disk

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def device():
    """The kind of accelerator that torch finds."""
    from explorer.devices import accelerator

    found = accelerator.found()
    if not found:
        pytest.skip("needs an accelerator, and torch sees none here")
    return found[0].type


@pytest.fixture
def spec(tiny_run, device):
    timed = {"prompt_tokens": 8, "output_tokens": 4, "warmup": 1, "repeats": 3}
    return RunSpec.parse({**tiny_run, "latency": timed, "device": device})


def test_a_run_on_the_gpu_leaves_a_whole_record(spec, store_root, device):
    """Distilled, tested and timed there: device, driver, memory and device-hours are known."""
    record = engine.run(spec, store_root)

    assert record.status == "finished"
    assert record.environment.device == device
    assert record.environment.driver
    assert record.model.dtype == "bfloat16"
    assert record.distillation.kl_after < record.distillation.kl_before
    assert record.capability.scores[0].num_documents == 12
    assert record.latency.own.peak_memory_bytes > 0
    assert len(record.latency.own.turns) == len(record.latency.teacher.turns) == 3


def test_the_device_changes_no_score_in_float32(spec, store_root):
    """In float32 both devices choose layers, lose and answer alike, within rounding."""
    plain = spec.with_(latency=None, dtype="float32")
    there = engine.run(plain, store_root)
    here = engine.run(plain.with_(device="cpu"), store_root)

    assert there.model.kept_layers == here.model.kept_layers
    assert there.distillation.kl_before == pytest.approx(here.distillation.kl_before, rel=1e-3)
    assert there.capability.scores[0].score == here.capability.scores[0].score


def test_a_run_told_to_end_on_the_gpu_resumes_there(spec, store_root):
    """The checkpoint made on the device continues on it."""

    def cancel_in_training(status):
        if status["stage"] == "distil" and status["done"] == 5:
            disk.request_cancel(store_root, spec.run_id)

    with pytest.raises(RunCancelled):
        engine.run(spec, store_root, cancel_in_training)
    disk.withdraw_cancel(store_root, spec.run_id)

    assert engine.run(spec, store_root).distillation.num_resumes == 1


def test_compiled_decoding_is_eager_decoding(tiny_llama, device):
    """The compiled step over a static cache gives the tokens that the eager model gives."""
    from explorer.latency import timing
    from explorer.latency.runtimes.pytorch import CompiledRuntime, EagerRuntime
    from explorer.models import loading
    from explorer.specs import LatencySpec

    loaded = loading.load(str(tiny_llama(num_layers=2)), device=device, dtype="float32")
    eager, compiled = EagerRuntime(loaded), CompiledRuntime(loaded)
    prompt_BT = timing.random_prompt([eager], LatencySpec(prompt_tokens=8), 2)
    compiled.prepare(2, 24)

    wanted = list(eager.stream(prompt_BT, 16))

    for _ in range(3):
        assert list(compiled.stream(prompt_BT, 16)) == wanted


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_weights_are_a_row_of_their_own_on_the_gpu(spec, store_root, bits):
    """The student and, while it teaches, the teacher in 8 or 4 bits; a processor refuses the 4."""
    pytest.importorskip("torchao", reason="pip install 'distill-explorer[quant]'")
    taught = {**spec.distill.model_dump(), "teacher_bits": bits}

    record = engine.run(spec.with_(torch_bits=bits, distill=taught), store_root)

    assert record.model.dtype == f"int{bits} + bfloat16"
    teacher = disk.load(store_root, record.teacher_run_id)
    assert teacher.model.dtype == "bfloat16"
    assert record.distillation.steps > 0
    assert record.capability.scores[0].num_documents == 12
    assert record.latency.own.peak_memory_bytes > 0
