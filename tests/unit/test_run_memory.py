"""What a run needs, and what is said where it does not fit."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from explorer.analysis import numbers
from explorer.analysis.planning import run_memory
from explorer.analysis.planning.run_memory import Machine
from explorer.devices import accelerator
from explorer.distill import corpus, teacher_cache, train
from explorer.errors import BadInput, NoRoom
from explorer.models.facts import model_without_weights
from explorer.models.loading import DTYPES, pick_dtype
from explorer.pipeline import forecast, run, spec_checks
from explorer.specs import DistillSpec, RunSpec, SweepSpec, WidthStudent
from explorer.specs.model_size import ModelSize
from explorer.store import disk
from explorer.students.planned_sizes import planned_sizes, stated_outline
from tests import tiny_models

GB = 10**9
STARTER = ModelSize(134_515_008, 30, 576, 1536, 49_152, kv_values_per_layer=2 * 3 * 64)
TEN = STARTER.with_layers(10)


def place(memory_gb=24.0, disk_gb=100.0, device="cpu"):
    weight_bytes = 4 if device == "cpu" else 2
    return Machine(device, int(memory_gb * GB), int(disk_gb * GB), weight_bytes)


def ordered(**changes):
    return RunSpec(name="half", student={"num_layers": 10}, distill=DistillSpec(**changes))


def need(spec, where=None, student=TEN):
    return sum(run_memory.memory_parts(spec, STARTER, student, where or place()).values())


def test_the_arithmetic_knows_the_loop():
    """Constants that the pages cannot import are those of the code that they speak of."""
    assert run_memory.CHUNK_POSITIONS == train.CHUNK_POSITIONS
    assert run_memory.TARGET_BLOCKS == teacher_cache.BATCH_BLOCKS


def test_the_starter_needs_what_was_measured():
    """The 10-layer student's process, without the teacher, took 1.85 GB at its highest."""
    without_teacher = need(ordered()) - 4 * STARTER.num_parameters

    assert without_teacher == pytest.approx(1.85e9, rel=0.1)


@pytest.mark.parametrize(
    "changes",
    [
        {"micro_blocks": 1},
        {"gradient_checkpointing": True},
        {"blocks_per_step": 2},
        {"precision": "bfloat16"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_saves_memory_is_seen_to_save_it(changes):
    """Fewer blocks at once, layers computed again, or activations of half the size."""
    assert need(ordered(**changes)) < 0.95 * need(ordered())


def test_a_sample_of_the_vocabulary_makes_fewer_logits():
    """Whatever is drawn, a chunk holds no more than that and the tokens that the teacher kept."""
    whole = run_memory.memory_parts(ordered(), STARTER, TEN, place())["a chunk of logits"]
    drawn = run_memory.memory_parts(ordered(vocab_sample=4_096), STARTER, TEN, place())[
        "a chunk of logits"
    ]
    all_of_it = run_memory.memory_parts(ordered(vocab_sample=49_152), STARTER, TEN, place())

    assert drawn == 256 * 12_544 * 4 * 3 + 12_544 * 576 * 4
    assert drawn < whole / 4
    assert all_of_it["a chunk of logits"] <= whole


def test_a_trained_embedding_and_a_live_teacher_cost_more():
    """Twelve bytes an entry of the embedding; a second set of logits."""
    more = need(ordered(train_embeddings=True)) - need(ordered())

    assert more == 12 * 49_152 * 576
    assert need(ordered(method="live")) > need(ordered())


@pytest.mark.parametrize(
    ("device", "weight_bytes", "narrow"), [("cpu", 4, 4), ("cuda", 2, 2), ("cuda", 4, 2)]
)
def test_each_part_is_known_for_each_precision(device, weight_bytes, narrow):
    """Weights, gradients, optimiser, activations, a chunk of logits and the cache, in bytes."""
    where = Machine(device, 24 * GB, 100 * GB, weight_bytes)
    teacher, student = STARTER, TEN
    spec = ordered(micro_blocks=1, precision="auto").with_(
        latency={"batch_size": 32, "prompt_tokens": 500, "output_tokens": 12}
    )
    timed, logits, trained = run_memory._moments(spec, teacher, student, where)

    whole, embedding = teacher.num_parameters, teacher.embedding_parameters
    layers = student.num_parameters - embedding
    assert timed["the teacher's weights"] == whole * weight_bytes
    assert timed["the student's weights"] == student.num_parameters * weight_bytes
    assert timed["the KV cache"] == 32 * 512 * 30 * 384 * weight_bytes
    assert logits["the teacher's logits"] == 256 * 49_152 * (4 * weight_bytes + 12)
    copy = 0 if device == "cpu" else 2 * layers
    assert trained["the student's weights"] == 4 * student.num_parameters + copy
    assert trained["gradients"] == 4 * layers
    assert trained["the optimiser"] == 8 * layers
    assert trained["activations"] == 10 * 256 * (16 * 576 + narrow * (6 * 576 + 4 * 1536))
    assert trained["a chunk of logits"] == 256 * 49_152 * 4 * 3


def test_a_cache_that_does_not_fit_is_named():
    """A large batch that is timed; levels of load end their own sweep, so they refuse nothing."""
    timed = ordered().with_(latency={"batch_size": 4096, "prompt_tokens": 4000})
    said = run_memory.refusal(timed, STARTER, TEN, place())

    assert "the KV cache" in said
    swept = ordered().with_(latency={"concurrency": [1, 4096], "prompt_tokens": 4000})
    assert run_memory.refusal(swept, STARTER, TEN, place()) is None


def test_the_smallest_plan_that_does_not_fit_names_every_way_out():
    """Batch, checkpointing, a quantised teacher and shards, each where it is enough."""
    large = ModelSize(8_000_000_000, 32, 4096, 14_336, 128_256)
    half, spec = large.with_layers(8), ordered()

    def said(memory_gb):
        return run_memory.refusal(spec, large, half, place(memory_gb, 1000, "cuda"))

    parts = run_memory.memory_parts(spec, large, half, place(80, 1000, "cuda"))
    just = sum(parts.values()) / GB
    assert "distill.micro_blocks: 1 (" in said(just - 0.1)
    assert "distill.gradient_checkpointing: true (" in said(just - 0.1)
    assert "distill.teacher_bits: 8 (" in said(just - 0.1)
    assert "such devices with accelerate launch" in said(just - 0.1)
    assert "student.num_layers: " in said(just - 0.1)


def test_what_fits_is_not_refused():
    """A machine with room has no verdict."""
    assert run_memory.refusal(ordered(), STARTER, TEN, place()) is None


def test_a_refusal_says_by_how_much_and_what_fits():
    """Every option that it names fits, by the same arithmetic."""
    said = run_memory.refusal(ordered(), STARTER, TEN, place(2.2))

    assert "half needs about 2.46 GB of memory" in said
    assert f"{numbers.size(need(ordered()) - 2.2e9)} too little" in said
    assert "distill.micro_blocks: 1 (" in said
    assert "distill.gradient_checkpointing: true (" in said
    assert "student.num_layers: 7" in said
    assert need(ordered(micro_blocks=1)) <= 2.2e9
    assert need(ordered(), student=STARTER.with_layers(7)) <= 2.2e9
    assert need(ordered(), student=STARTER.with_layers(8)) > 2.2e9


def test_both_savings_are_offered_only_where_one_is_not_enough():
    """Between the two single savings and both together."""
    single = min(need(ordered(micro_blocks=1)), need(ordered(gradient_checkpointing=True)))
    both = need(ordered(micro_blocks=1, gradient_checkpointing=True))
    said = run_memory.refusal(ordered(), STARTER, TEN, place((single + both) / 2 / GB))

    assert "micro_blocks: 1 with distill.gradient_checkpointing: true" in said


def test_shards_are_offered_where_a_student_is_too_large_for_one_device():
    """The least number of devices that will do, whose need is the one that was said."""
    large = ModelSize(8_000_000_000, 32, 4096, 14_336, 128_256)
    spec = RunSpec(student={"num_layers": 16}, distill=DistillSpec(micro_blocks=1))
    half = large.with_layers(16)
    said = run_memory.refusal(spec, large, half, place(48, 1000, "cuda"))
    spread = dataclasses.replace(place(48, 1000, "cuda"), num_shards=4)
    need = sum(run_memory.memory_parts(spec, large, half, spread).values())

    assert "4 such devices with accelerate launch --config_file docs/accelerate/shards.yaml" in said
    assert numbers.size(need) in said
    assert need < 48 * GB
    assert run_memory.refusal(spec, large, half, spread) is None


def test_where_nothing_fits_it_says_so():
    """The teacher alone is too large."""
    assert "No smaller variant fits" in run_memory.refusal(ordered(), STARTER, TEN, place(0.5))


def test_a_full_disk_is_refused_too():
    """Checkpoints, targets and the student have to lie somewhere."""
    said = run_memory.refusal(ordered(), STARTER, TEN, place(disk_gb=1.0))

    assert "of disk, but only 1.00 GB are free" in said


def test_sizes_are_read_without_weights(tiny_llama, tmp_path):
    """Every kind of student: its planned size is the one it will have."""
    teacher = str(tiny_llama())
    for student, layers in (
        ({"num_layers": 2}, 2),
        ({"kind": "width", "intermediate_size": 32}, 4),
        ({"kind": "fresh", "num_layers": 3, "intermediate_size": 32}, 3),
        ({"kind": "checkpoint", "model": str(tiny_llama(num_layers=2))}, 2),
        ({"kind": "both", "num_parameters": 30_000}, None),
    ):
        whole, found = forecast.model_sizes(RunSpec(teacher=teacher, student=student), tmp_path)
        assert layers in (found.num_layers, None)
        assert found.num_parameters < whole.num_parameters
    assert found.num_parameters == pytest.approx(30_000, rel=0.1)


def test_a_run_that_cannot_fit_is_refused_before_it_starts(tiny_run, store_root, monkeypatch):
    """And done when its owner insists."""
    spec = RunSpec.parse(tiny_run)
    small = dataclasses.replace(forecast.machine_of(spec, store_root), memory_bytes=1000)
    monkeypatch.setattr(forecast, "machine_of", lambda spec, root: small)

    with pytest.raises(NoRoom, match=r"tiny needs about .* To try anyway: explorer run"):
        run(spec, store_root)
    monkeypatch.setenv(spec_checks.INSIST, "1")
    assert run(spec, store_root).status == "finished"


def test_a_forecast_has_memory_time_and_money(tiny_run, store_root):
    """Without an earlier run the time follows the rule, and says so."""
    (told,) = forecast.forecasts([RunSpec.parse(tiny_run)], store_root)

    assert sum(told.memory.values()) > run_memory.LIBRARIES_BYTES["cpu"]
    assert told.seconds > 0
    assert "6 FLOPs per parameter and token" in told.seconds_basis


def test_the_rule_is_proportional_to_tokens_and_size():
    """Six FLOPs per parameter and token of the student, two of the teacher."""
    spec = ordered(max_tokens=1000)
    seconds = forecast.training_seconds_by_rule(spec, STARTER, TEN, 1e12)

    assert seconds == 1000 * (6 * TEN.num_parameters + 2 * STARTER.num_parameters) / 0.5e12


def test_what_several_runs_share_is_counted_once(tiny_llama, store_root):
    """The teacher's pass with the first student, the student with the first of its formats."""
    sweep = SweepSpec.model_validate(
        {
            "teacher": str(tiny_llama()),
            "students": [{"num_layers": 3}, {"num_layers": 2}],
            "distill": {"max_tokens": 1000},
            "gguf": ["q8_0"],
        }
    )
    told = forecast.forecasts(sweep.runs(), store_root)
    _, large, small, *converted = (forecast.seconds for forecast in told)

    spec = sweep.runs()[2]
    alone = forecast.training_seconds_by_rule(spec, STARTER, TEN, 1e12)
    shared = forecast.training_seconds_by_rule(spec, STARTER, TEN, 1e12, before=sweep.runs()[:2])
    assert alone - shared == pytest.approx(1000 * 2 * STARTER.num_parameters / 0.5e12)
    assert large > small > 0
    assert converted == [None, None, None]


STUDENTS = (
    None,
    {"num_layers": 2},
    {"kind": "width", "intermediate_size": 32},
    {"kind": "width", "num_parameters": 40_000},
    {"kind": "both", "num_parameters": 30_000},
    {"kind": "fresh", "num_layers": 3, "intermediate_size": 32},
    {"kind": "fresh", "num_parameters": 25_000},
)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
@pytest.mark.parametrize("student", STUDENTS, ids=str)
def test_files_state_the_sizes_that_the_model_has(family, student, tmp_path):
    """From files alone, for every kind of student, they are those of the model itself."""
    tiny_models.FAMILIES[family]().save_pretrained(tmp_path)
    spec = RunSpec(teacher=str(tmp_path), student=student)

    def sizes(outline):
        try:
            return planned_sizes(spec.teacher, spec.student, outline)
        except BadInput:
            return None

    assert sizes(stated_outline) == sizes(model_without_weights)


def test_the_starter_is_known_before_it_is_fetched():
    """Its sizes and the shapes of its weights are constants."""
    student = WidthStudent(kind="width", num_parameters=60_000_000)
    sizes, student = planned_sizes("starter", student, stated_outline)

    assert sizes == STARTER
    assert student.num_parameters == pytest.approx(60_000_000, rel=0.01)


def test_the_disk_of_the_working_folder_counts(tmp_path, monkeypatch):
    """Large files go there, and it may be on another disk than the records."""
    (tmp_path / ".work").mkdir()
    free = {tmp_path: 1, tmp_path / ".work": 10**12}
    monkeypatch.setattr(
        disk.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free[Path(folder)])
    )

    assert forecast.machine_of(RunSpec(device="cpu"), tmp_path).disk_bytes == 10**12


def test_the_disk_holds_the_corpus_in_tokens_and_the_text_of_a_teacher():
    """Both are in the working folder, beside targets and checkpoints."""
    assert run_memory.READ_AHEAD == corpus.CHARS_PER_TOKEN / 4

    def parts(student=TEN, **changes):
        return run_memory.disk_parts(ordered(max_tokens=10**8, **changes), student, place())

    assert parts()["the corpus's tokens"] == pytest.approx(4e8, rel=0.01)
    wide = dataclasses.replace(TEN, vocab_size=128_256)
    assert parts(wide)["the corpus's tokens"] == pytest.approx(8e8, rel=0.01)
    assert parts()["the teacher's text"] == 0
    assert parts(corpus="teacher")["the teacher's text"] == pytest.approx(5e8, rel=0.01)
    total = run_memory.disk_bytes(ordered(max_tokens=10**8), TEN, place())
    assert total == sum(parts().values())


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", ["auto", *DTYPES])
def test_a_weight_takes_as_many_bytes_as_torch_says(dtype, device, monkeypatch):
    """The page cannot ask torch; it takes it that an accelerator computes in bfloat16."""
    monkeypatch.setattr(accelerator, "multiplies_in_bfloat16", lambda device: device.type != "cpu")
    expected = pick_dtype(dtype, torch.device(device)).itemsize

    assert run_memory.weight_bytes(dtype, device) == expected
