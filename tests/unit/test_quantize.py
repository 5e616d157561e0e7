"""Weights in 8 and 4 bits: quantized, told apart, measured as rows of their own, and refused."""

import importlib.util
import sys

import numpy as np
import pytest
import torch

from explorer import pipeline as engine
from explorer.analysis.planning import run_memory
from explorer.errors import BadInput
from explorer.latency import peak_memory
from explorer.latency.runtimes import allocator_peak
from explorer.models import loading, quantize
from explorer.models.facts import model_facts
from explorer.pipeline import forecast
from explorer.specs import LatencySpec, RunSpec
from explorer.specs.model_size import ModelSize
from explorer.store import disk, frames

needs_torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None,
    reason="torchao is not installed: pip install 'distill-explorer[quant]'",
)
CPU = torch.device("cpu")
TIMED = {"prompt_tokens": 8, "output_tokens": 3, "warmup": 0, "repeats": 2}


@pytest.fixture
def both(tiny_llama):
    """A model as it is, and in 8 bits."""
    name = str(tiny_llama())
    return loading.load(name), loading.load(name, bits=8)


@needs_torchao
def test_eight_bits_are_a_quarter_of_the_bytes_and_nearly_the_same_answers(both):
    """A linear weight is off by half a step of its row at most, embedding and head by nothing."""
    plain, quantized = both
    step_N1 = plain.model.model.layers[0].mlp.up_proj.weight.abs().amax(1, keepdim=True) / 127.5
    off_NK = (
        quantized.model.model.layers[0].mlp.up_proj.weight.dequantize()
        - plain.model.model.layers[0].mlp.up_proj.weight
    )
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        logits, near = (one.model(ids).logits[0].numpy() for one in both)

    assert (off_NK.abs() <= 0.51 * step_N1).all()
    assert 0 < np.abs(near - logits).max() < 0.05 * np.abs(logits).max()
    head = quantized.model.get_output_embeddings().weight
    assert head is quantized.model.get_input_embeddings().weight
    assert torch.equal(head, plain.model.get_output_embeddings().weight)


@needs_torchao
def test_bits_tell_a_model_apart(both):
    """Fingerprint, dtype and bytes differ, parameters do not; the same bits are the same model."""
    plain, quantized = (model_facts(one) for one in both)
    again = model_facts(loading.load(both[0].name, bits=8))

    assert quantized.dtype == "int8 + float32"
    assert quantized.fingerprint == again.fingerprint != plain.fingerprint
    assert quantized.num_parameters == plain.num_parameters
    embedding = 4 * 320 * 32
    num_quantized = sum(
        module.weight.numel()
        for name, module in both[0].model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    )
    assert num_quantized < quantized.weight_bytes - embedding < 1.3 * num_quantized
    assert allocator_peak.num_weight_bytes(both[1].model) >= quantized.weight_bytes


@needs_torchao
def test_quantizing_leaves_the_compiler_as_it_was(tiny_llama):
    """The teacher beside a quantised model is compiled with the settings that it has alone."""
    import torch._inductor.config as inductor

    before = inductor.get_config_copy()
    loading.load(str(tiny_llama()), bits=8)

    assert inductor.get_config_copy() == before


@needs_torchao
def test_a_quantized_teacher_and_student_are_rows_of_their_own(tiny_run, store_root):
    """Each with its own capability and timing, in turns with the teacher as it is."""
    timed = {**tiny_run, "latency": TIMED, "torch_bits": 8, "device": "cpu", "threads": 1}
    alone = {k: v for k, v in timed.items() if k not in ("student", "distill")}

    student, teacher = (engine.run(RunSpec.parse(one), store_root) for one in (timed, alone))

    assert student.teacher_run_id == teacher.teacher_run_id
    plain = disk.load(store_root, teacher.teacher_run_id)
    assert plain.model.dtype == "float32"
    for record in (student, teacher):
        assert record.model.dtype == "int8 + float32"
        assert len(record.latency.own.turns) == len(record.latency.teacher.turns) == 2
        assert record.latency.own.peak_memory_bytes > 0
        assert record.capability.scores
        assert "torchao" in record.environment.versions
        assert frames.row(record)["role"] == "student"
    assert teacher.model.num_parameters == plain.model.num_parameters
    assert teacher.model.fingerprint != plain.model.fingerprint
    assert student.distillation.steps > 0
    assert frames.label(teacher) == "teacher int8"
    assert frames.label(student) == "2 layers int8"


@needs_torchao
@pytest.mark.parametrize(
    "changes",
    [{}, {"method": "live"}, {"corpus": "teacher"}],
    ids=["cached", "live", "its text"],
)
def test_a_quantized_teacher_gives_other_lessons(tiny_run, store_root, changes):
    """Its targets and its student are its own; its own comparison is not quantised."""
    taught = {**tiny_run["distill"], **changes, "max_tokens": 120, "heldout_blocks": 2}
    plain = RunSpec.parse({**tiny_run, "distill": taught, "capability": None})
    quantized = plain.with_(distill={**taught, "teacher_bits": 8})

    found = [engine.run(spec, store_root) for spec in (plain, quantized)]

    assert found[0].teacher_run_id == found[1].teacher_run_id
    assert found[1].model.dtype == "float32"
    assert found[0].distillation.targets.key != found[1].distillation.targets.key
    assert found[0].model.fingerprint != found[1].model.fingerprint
    folders = [path for path in (store_root / ".work" / "targets").iterdir() if path.is_dir()]
    assert len(folders) == 2


@needs_torchao
def test_a_quantized_teacher_has_a_siblings_rows(tiny_run, tiny_llama, store_root):
    """A sibling whose vocabulary is padded differently is taught by it as well."""
    sibling = {"kind": "checkpoint", "model": str(tiny_llama(num_layers=2, vocab_size=352))}
    taught = {**tiny_run["distill"], "max_tokens": 120, "teacher_bits": 8}
    spec = RunSpec.parse({**tiny_run, "student": sibling, "distill": taught, "capability": None})

    assert engine.run(spec, store_root).model.vocab_size == 259


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_four_bits_on_a_processor_are_refused_before_loading(tiny_llama, dtype):
    """The sentence says what they need and what does it here."""
    with pytest.raises(BadInput, match=r"4-bit weights need an NVIDIA GPU .* is cpu\. Use 8 bits"):
        loading.load(str(tiny_llama()), bits=4, dtype=dtype)


def test_four_bits_compute_in_bfloat16(monkeypatch):
    """Another dtype on a GPU is refused in words."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))

    with pytest.raises(BadInput, match=r"has dtype float16\. Set dtype: auto or bfloat16"):
        quantize.check_quantization(4, torch.device("cuda"), torch.float16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(BadInput, match="capability 8.0 or newer"):
        quantize.check_quantization(4, torch.device("cuda"), torch.bfloat16)


def test_without_torchao_the_extra_is_named(tiny_llama, tiny_run, store_root, monkeypatch):
    """By the loader, and in the record of a run that wanted it."""
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)

    with pytest.raises(BadInput, match=r"pip install 'distill-explorer\[quant\]'"):
        loading.load(str(tiny_llama()), bits=8)
    spec = RunSpec.parse({**tiny_run, "student": None, "distill": None, "torch_bits": 8})
    with pytest.raises(BadInput, match="torchao, which is not installed"):
        engine.run(spec, store_root)
    assert "torchao" in disk.load(store_root, spec.run_id).error.message


def test_a_weight_that_is_not_quantized_is_stored_as_itself():
    """Fingerprints of before hold: a plain weight keeps its name and bytes."""
    weight = torch.ones(2, 3)

    assert list(quantize.stored_tensors("w", weight)) == [("w", weight)]


@needs_torchao
def test_the_planned_bytes_are_those_in_memory(tiny_llama, store_root):
    """Of a model with rows as long as a real one's, within a twentieth."""
    name = str(tiny_llama(hidden_size=512))
    spec = RunSpec(teacher=name, torch_bits=8, device="cpu")
    planned, _ = forecast.model_sizes(spec, store_root)

    found = model_facts(loading.load(name, bits=8)).weight_bytes

    assert run_memory.quantized_bytes(
        planned, forecast.machine_of(spec, store_root), 8
    ) == pytest.approx(found, rel=0.05)


def test_a_quantized_teacher_needs_less_memory_while_it_teaches():
    """On a GPU by half or three quarters of its linear weights; not below what cutting needs."""
    teacher = ModelSize(7_000_000_000, 32, 4096, 11_008, 32_000)
    student = teacher.with_layers(4)
    where = run_memory.Machine("cuda", 80 * 10**9, 10**12, 2)
    student_spec = {"student": {"num_layers": 4}, "distill": {"corpus": "starter"}}

    def need(bits):
        spec = RunSpec.parse(student_spec)
        spec = spec.with_(distill=spec.distill.with_(teacher_bits=bits).model_dump())
        return sum(run_memory.memory_parts(spec, teacher, student, where).values())

    linear = teacher.num_parameters - 32_000 * 4096
    assert need(None) - need(8) == pytest.approx(linear, rel=0.02)
    assert need(8) - need(4) == pytest.approx(3.1 / 8 * linear, rel=0.02)


def test_a_quantized_copy_counts_beside_its_teacher():
    """A variant is timed in turns with the whole model; on a processor it is loaded whole first."""
    teacher = ModelSize(7_000_000_000, 32, 4096, 11_008, 32_000)
    spec = RunSpec(torch_bits=8, latency=None)  # without the cache of a timing

    def need(device):
        parts = run_memory.memory_parts(
            spec, teacher, teacher, run_memory.Machine(device, 10**12, 10**12, 2)
        )
        return sum(parts.values()) - parts["libraries"]

    assert need("cpu") == 2 * 14e9
    assert 14e9 + 7e9 < need("cuda") < 14e9 + 7.5e9


def test_a_refusal_offers_a_quantized_teacher():
    """Where that is what fits."""
    teacher = ModelSize(7_000_000_000, 32, 4096, 11_008, 32_000)
    student = teacher.with_layers(1)
    spec = RunSpec.parse({"student": {"num_layers": 1}, "distill": {"method": "cached"}})
    need = sum(
        run_memory.memory_parts(
            spec, teacher, student, run_memory.Machine("cuda", 0, 0, 2)
        ).values()
    )
    where = run_memory.Machine("cuda", int(need - 10**9), 10**12, 2)

    assert "distill.teacher_bits: 8 (" in run_memory.refusal(spec, teacher, student, where)


@needs_torchao
def test_a_peak_of_a_quantized_model_is_measured_in_its_bits(tiny_llama):
    """The process that measures memory loads the model as it was asked for."""
    spec = LatencySpec.parse(TIMED)

    assert peak_memory.peak_memory_bytes(str(tiny_llama()), spec, CPU, torch.float32, 8) > 0
