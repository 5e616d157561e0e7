"""Runs on the pretend device, held against the same runs on the CPU.

`test_pretend.py` starts these in a process of their own, in which torch loads the device.
"""

import json
import shutil

import pytest
import torch

from explorer import pipeline as engine
from explorer.devices import accelerator, memory
from explorer.distill import train
from explorer.distill.teacher_cache import TeacherCache, local_teacher
from explorer.distill.teacher_signal import CachedTeacher, LiveTeacher, NoTeacher, TrainingData
from explorer.errors import BadInput, NoRoom, RunCancelled, RunFailed
from explorer.evaluate.backends.prefix_lm import PrefixLM
from explorer.latency import timing
from explorer.latency.runtimes.pytorch import EagerRuntime
from explorer.models.loading import load
from explorer.pipeline import preflight
from explorer.specs import DistillSpec, LatencySpec, RunSpec
from explorer.store import disk
from explorer.store.progress import Progress
from explorer.students import depth
from tests.conftest import ROOT
from tests.pretend_device import NAME, PretendTensor

CLOSE = 2e-4
"""Largest difference of a loss: the device's attention sums in another order."""
LOSSES = ROOT / "tests" / "golden" / "files" / "tiny_losses.json"
KINDS = {
    "depth": {"num_layers": 2, "sample_blocks": 1},
    "greedy": {"num_layers": 2, "choice": "greedy", "sample_blocks": 1},
    "width": {"kind": "width", "intermediate_size": 40, "sample_blocks": 1},
    "heads": {"kind": "width", "num_attention_heads": 2, "sample_blocks": 1},
    "both": {"kind": "both", "num_parameters": 35_000, "sample_blocks": 1},
    "fresh": {"kind": "fresh", "num_layers": 2, "hidden_size": 16},
}
METHODS = {
    "sampled vocabulary": {"vocab_sample": 64, "kd_weight": 0.5},
    "live": {"method": "live"},
    "hidden states": {"method": "live", "hidden_weight": 0.5},
    "on-policy": {"method": "live", "on_policy_fraction": 1.0, "prompt_tokens": 8},
    "labels": {"method": "labels"},
    "read ahead": {"prefetch": True, "vocab_sample": 64, "micro_blocks": 1},
    "checkpointing": {"gradient_checkpointing": True, "micro_blocks": 1},
    "embeddings": {"train_embeddings": True},
    "bfloat16": {"precision": "auto"},
}


def both(spec, store_root):
    """The records of a spec on the pretend device and on the CPU, which share no stage."""
    return [engine.run(spec.with_(device=at), store_root / at) for at in (NAME, "cpu")]


def test_torch_finds_the_device_and_auto_takes_it():
    """Through the entry point alone; its name comes from its module."""
    device = accelerator.pick_device()

    assert device.type == NAME
    assert accelerator.name(device) == "Pretend Accelerator"
    assert isinstance(torch.ones(2, device=device), PretendTensor)
    assert accelerator.pick_device(f"{NAME}:0") == torch.device(NAME, 0)


def test_a_tensor_that_was_left_on_the_cpu_raises():
    """The device would be worth nothing otherwise."""
    with pytest.raises(RuntimeError, match="expected all tensors to be on"):
        torch.ones(2, device=NAME) + torch.ones(2)


def test_what_the_device_cannot_do_is_known_and_not_used():
    """No bfloat16, graphs, random numbers, counted or pinned memory; fused AdamW it has."""
    device = accelerator.pick_device()

    assert accelerator.has_fused_adamw(device)
    assert not accelerator.multiplies_in_bfloat16(device)
    assert not accelerator.has_graphs(device)
    assert not accelerator.pins_memory(device)
    assert not memory.counts_peak(device)
    assert memory.total_bytes(device) > 0
    assert accelerator.generator(device, 0).device.type == "cpu"


def test_a_device_that_is_not_there_is_refused_in_words():
    """A number too high, another kind, a kind that torch does not know."""
    with pytest.raises(NoRoom, match=rf"has device {NAME}:3, but torch finds 1 GPU.*{NAME}:0"):
        accelerator.pick_device(f"{NAME}:3")
    with pytest.raises(NoRoom, match=rf"accelerators that torch finds here are {NAME}:0"):
        accelerator.pick_device("xpu")
    with pytest.raises(BadInput, match="which torch does not know"):
        accelerator.pick_device("tpu")


def test_bfloat16_is_refused_before_the_run_where_there_is_none(tiny_run, store_root):
    """By its key, with what to write instead."""
    spec = RunSpec.parse(tiny_run | {"dtype": "bfloat16", "device": NAME})

    found = preflight.findings([spec], store_root, "quick")

    assert any("Write dtype: auto or float32" in finding.message for finding in found)


@pytest.fixture
def material(tiny_llama, tmp_path):
    """The teacher, its targets and the data of the golden losses, on the device."""

    def make(spec):
        torch.set_num_threads(1)
        teacher = load(str(tiny_llama(num_layers=6)), device=make.device)
        blocks = torch.randint(0, 320, (24, 16), generator=torch.Generator().manual_seed(0))
        identity = {"teacher": "t", "top_k": 16, "temperature": 1.0, "vocab_size": 320}
        targets = TeacherCache(tmp_path / f"targets-{make.device}", blocks, identity)
        targets.fill(lambda: local_teacher(teacher), list(range(24)), lambda *told: None)
        signals = {
            "cached": lambda: CachedTeacher(targets, spec),
            "live": lambda: LiveTeacher(teacher.model, targets.blocks_NT, spec),
            "labels": lambda: NoTeacher(targets.blocks_NT),
        }
        data = TrainingData(
            signals[spec.method](), list(range(4, 24)), CachedTeacher(targets), [0, 1, 2, 3]
        )
        return depth.keep_layers(teacher.model, [0, 2, 5]), data

    make.device = NAME
    return make


def losses(material, spec, checkpoint, device=NAME):
    """The losses of a training, and its last held-out point."""
    found = []
    material.device = device
    student, data = material(spec)
    progress = train.train(
        student, data, spec, checkpoint, lambda state, total, loss, rate: found.append(loss)
    )
    return found + [progress.curve[-1].heldout_kl]


def golden_spec(**changes):
    return DistillSpec(
        **{
            "max_tokens": 900,
            "block_tokens": 16,
            "blocks_per_step": 2,
            "learning_rate": 3e-3,
            "kd_weight": 0.7,
            "precision": "float32",
            **changes,
        }
    )


def test_training_has_the_golden_losses(material, tmp_path):
    """Those of the CPU, to four digits."""
    wanted = [float(loss) for loss in json.loads(LOSSES.read_text())]

    found = losses(material, golden_spec(), tmp_path / "checkpoint")

    assert found[:-1] == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_as_on_the_cpu(material, tmp_path, method):
    """Cached, live, on-policy, by labels alone; with checkpointing; where bfloat16 is missing."""
    spec = golden_spec(max_tokens=300, **METHODS[method])

    there = losses(material, spec, tmp_path / "there")
    here = losses(material, spec, tmp_path / "here", "cpu")

    assert there == pytest.approx(here, abs=CLOSE)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own compiler
def test_a_device_that_torchs_compiler_does_not_know_trains_as_it_is(material, tmp_path, caplog):
    """The trial of compiled layers ends with a sentence, and the losses are the CPU's."""
    spec = golden_spec(max_tokens=300)

    there = losses(material, spec.with_(compile=True), tmp_path / "there")
    here = losses(material, spec, tmp_path / "here", "cpu")

    assert "could not be compiled, so they run as they are" in caplog.text
    assert there == pytest.approx(here, abs=CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_student_goes_the_whole_way(tiny_run, store_root, kind):
    """Made, trained, saved, loaded and evaluated; the same layers, losses and answers."""
    distill = tiny_run["distill"] | {"train_embeddings": True, "max_tokens": 300}
    spec = RunSpec.parse(tiny_run | {"student": KINDS[kind], "distill": distill, "threads": 1})

    there, here = both(spec, store_root)

    assert there.environment.device == NAME
    assert there.environment.device_name == "Pretend Accelerator"
    assert there.model.kept_layers == here.model.kept_layers
    assert there.model.kept_widths == here.model.kept_widths
    assert there.distillation.kl_before == pytest.approx(here.distillation.kl_before, abs=CLOSE)
    assert there.distillation.kl_after == pytest.approx(here.distillation.kl_after, abs=CLOSE)
    assert there.capability.scores[0].score == here.capability.scores[0].score


def test_a_checkpoint_model_is_taught_there(tiny_run, tiny_llama, store_root):
    """A student that exists already."""
    student = {"kind": "checkpoint", "model": str(tiny_llama(num_layers=2, seed=1))}
    distill = tiny_run["distill"] | {"max_tokens": 300}

    spec = RunSpec.parse(tiny_run | {"student": student, "distill": distill, "capability": None})

    there, here = both(spec, store_root)

    assert there.distillation.kl_after == pytest.approx(here.distillation.kl_after, abs=CLOSE)


def test_quantised_students_run_there(tiny_run, store_root):
    """8-bit weights of the student and, while it teaches, of the teacher."""
    pytest.importorskip("torchao", reason="pip install 'distill-explorer[quant]'")
    distill = tiny_run["distill"] | {"teacher_bits": 8, "max_tokens": 300}
    spec = RunSpec.parse(tiny_run | {"torch_bits": 8, "distill": distill})

    there, here = both(spec, store_root)

    assert there.model.dtype == here.model.dtype
    assert there.capability.scores[0].score == here.capability.scores[0].score


def test_the_prefix_back_end_answers_as_on_the_cpu(tiny_llama):
    """Scores, rolling scores and generated texts."""
    from lm_eval.api.instance import Instance

    answers = []
    for device in (NAME, "cpu"):
        loaded = load(str(tiny_llama()), device=device)
        lm = PrefixLM(loaded.model, tokenizer=loaded.tokenizer, batch_size=4)
        calls = {
            "loglikelihood": [("a b c d" * 4, f" e{i}") for i in range(6)],
            "loglikelihood_rolling": [("some text to read",)],
            "generate_until": [("a b c d", {"until": ["q!"], "max_gen_toks": 12})] * 2,
        }
        answers.append(
            {
                kind: getattr(lm, kind)(
                    [Instance(kind, {}, args, i) for i, args in enumerate(requests)], True
                )
                for kind, requests in calls.items()
            }
        )
        assert lm.shares_prefixes
    there, here = answers
    for kind in ("loglikelihood", "loglikelihood_rolling"):
        values = [[v[0] if isinstance(v, tuple) else v for v in a[kind]] for a in (there, here)]
        assert values[0] == pytest.approx(values[1], abs=1e-3)
    assert there["generate_until"] == here["generate_until"]


def test_a_model_is_timed_there(tiny_llama, store_root):
    """Answers as on the CPU; no peak memory and no energy, each with its reason."""
    spec = LatencySpec(prompt_tokens=8, output_tokens=6, warmup=0, repeats=2)
    tokens = []
    for device in ("cpu", NAME):
        runtime = EagerRuntime(load(str(tiny_llama()), device=device))
        prompt_BT = timing.random_prompt([runtime], spec, 1)
        tokens.append(list(runtime.stream(prompt_BT, 6)))
    found = timing.time_in_turns(runtime, None, spec, Progress(store_root, "run-1"))

    assert tokens[0] == tokens[1]
    assert len(found.own.turns) == 2
    assert found.own.peak_memory_bytes is None
    assert "NVIDIA" in found.own.energy.reason
    assert found.gpu is None


def test_a_run_that_was_stopped_resumes_there_and_on_the_cpu(tiny_run, store_root):
    """From the checkpoint that the device wrote, with the losses of an unbroken run."""
    spec = RunSpec.parse(tiny_run | {"device": NAME, "capability": None})
    unbroken = engine.run(spec.with_(device="cpu"), store_root / "unbroken")

    for last in (NAME, "cpu"):
        root = store_root / last

        def cancel_in_training(status, root=root):
            if status["stage"] == "distil" and status["done"] == 5:
                disk.request_cancel(root, spec.run_id)

        with pytest.raises(RunCancelled):
            engine.run(spec, root, cancel_in_training)
        disk.withdraw_cancel(root, spec.run_id)
        taught = engine.run(spec.with_(device=last), root).distillation

        assert taught.num_resumes == 1
        assert taught.kl_after == pytest.approx(unbroken.distillation.kl_after, abs=CLOSE)


def test_a_run_whose_device_is_lost_goes_on_elsewhere(tiny_run, store_root, monkeypatch):
    """One sentence; the last checkpoint stays as it is; any device continues from it."""
    distill = tiny_run["distill"] | {"checkpoint_every_s": 1e-6}
    spec = RunSpec.parse(tiny_run | {"device": NAME, "capability": None, "distill": distill})
    unbroken = engine.run(spec.with_(device="cpu"), store_root / "unbroken").distillation
    root, whole_step = store_root / "broken", train.step

    def unreadable(*tensors):
        raise AssertionError("nothing of a lost device can be read")

    def lost_in_step_4(state, data, number, **flags):
        if number < 3:
            return whole_step(state, data, number, **flags)
        patch.setattr(train.checkpoints, "save", unreadable)
        raise torch.AcceleratorError("CUDA error: unspecified launch failure\nMore of it")

    with monkeypatch.context() as patch:
        patch.setattr(train, "step", lost_in_step_4)
        with pytest.raises(RunFailed, match=r"The device was lost .*unspecified launch failure\)"):
            engine.run(spec, root)

    assert disk.load(root, spec.run_id).error.traceback is None
    status = disk.read_status(root, spec.run_id)
    assert status["state"] == "failed"
    assert status["device"].startswith("GPU 0, ")
    for device in (NAME, "cpu"):
        copied = store_root / device
        shutil.copytree(root, copied)
        taught = engine.run(spec.with_(device=device), copied).distillation
        assert taught.num_resumes == 1
        assert taught.steps == unbroken.steps
        assert taught.kl_after == pytest.approx(unbroken.kl_after, abs=CLOSE)


def test_a_run_passes_the_check_before_it_and_its_student_is_loaded_anywhere(tiny_run, store_root):
    """Preflight finds nothing; weights that were saved there are plain weights."""
    spec = RunSpec.parse(tiny_run | {"device": NAME, "capability": None})
    assert not [f for f in preflight.findings([spec], store_root, "quick") if f.severity == "error"]

    engine.run(spec, store_root)

    weights = [load(f"run:{spec.run_id}", device=device).model for device in (NAME, "cpu")]
    for there, here in zip(*(model.parameters() for model in weights), strict=True):
        assert torch.equal(there.cpu(), here)
