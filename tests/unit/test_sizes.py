"""What a model's files say of its size, and the students that are refused because of it."""

import dataclasses
import json
import shutil
import struct
import subprocess
import sys

import huggingface_hub
import pytest
from typer.testing import CliRunner

from explorer import jobs
from explorer.cli import app
from explorer.errors import BadInput
from explorer.models import families, loading, size_limits, sizes
from explorer.models.families import shape_of
from explorer.models.gguf import convert
from explorer.pipeline import preflight, spec_checks
from explorer.search import queued
from explorer.specs import RunSpec, SweepSpec, TuneSpec
from tests import merging, records, tiny_models


def order(num_layers=200, **more):
    return RunSpec.parse({"name": "large", "student": {"num_layers": num_layers}, **more})


def students(teacher, *many):
    return [RunSpec.parse({"name": "large", "teacher": teacher, "student": one}) for one in many]


@pytest.mark.parametrize("family", list(tiny_models.FAMILIES))
def test_a_folder_states_the_sizes_of_its_model(family, tmp_path):
    """Every family that we cut: the sizes that are read are those of the loaded model."""
    model = tiny_models.FAMILIES[family]()
    model.save_pretrained(tmp_path)

    stated, own = sizes.read_sizes(str(tmp_path)), shape_of(model)

    assert (stated.num_layers, stated.hidden_size) == (own.num_layers, own.hidden_size)
    assert stated.num_attention_heads == own.num_attention_heads
    assert stated.intermediate_size in (own.intermediate_size, None)
    assert stated.num_key_value_heads in (own.num_key_value_heads, None)
    assert stated.num_parameters == model.num_parameters()


@pytest.mark.parametrize("part", sizes.INNER_CONFIGS)
def test_a_model_that_also_sees_states_the_layers_of_its_language_model(part, tmp_path):
    """Configurations that keep them in a part of their own, or in a part of that part."""
    inner = {part: {"num_hidden_layers": 26, "hidden_size": 64}, "vision_config": {"depth": 9}}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sees", **inner}))
    assert sizes.read_sizes(str(tmp_path)).num_layers == 26

    (tmp_path / "config.json").write_text(json.dumps({"thinker_config": inner}))
    assert sizes.read_sizes(str(tmp_path)).num_layers == 26


def test_weights_in_parts_count_only_when_all_are_there(tiny_llama, tmp_path):
    """A download that was broken off says its layers and no number of parameters."""
    merging.load(tiny_llama()).model.save_pretrained(tmp_path, max_shard_size="20KB")
    parts = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(parts) > 1
    whole = sizes.read_sizes(str(tmp_path))
    parts[0].unlink()

    assert whole.num_parameters == sizes.read_sizes(str(tiny_llama())).num_parameters
    assert (
        sizes.read_sizes(str(tmp_path)).num_layers,
        sizes.read_sizes(str(tmp_path)).num_parameters,
    ) == (
        4,
        None,
    )


def test_a_hub_id_is_read_from_what_was_downloaded(tiny_llama, tmp_path, monkeypatch):
    """Nothing is fetched: what was never downloaded has no sizes."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--org--tiny" / "snapshots" / "abc"
    shutil.copytree(tiny_llama(), snapshot)
    refs = tmp_path / "models--org--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")

    assert sizes.read_sizes("org/tiny") == sizes.read_sizes(str(tiny_llama()))
    assert sizes.read_sizes("org/other") == sizes.UNKNOWN


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_a_gguf_file_states_its_sizes(kind, tiny_llama, tmp_path):
    """By its header, for torch and for llama.cpp."""
    path = tmp_path / "model.gguf"
    convert.to_gguf(merging.load(tiny_llama()), kind, path)

    wanted = dataclasses.replace(sizes.read_sizes(str(tiny_llama())), model_type=None)
    assert sizes.read_sizes(f"gguf:{path}") == sizes.read_sizes(f"llamacpp:{path}") == wanted


def test_a_changed_file_is_read_again(tiny_llama, tmp_path):
    """A folder that another model was written into has that model's sizes."""
    shutil.copytree(tiny_llama(num_layers=4), tmp_path, dirs_exist_ok=True)
    before = sizes.read_sizes(str(tmp_path)).num_layers
    shutil.copytree(tiny_llama(num_layers=2), tmp_path, dirs_exist_ok=True)

    assert (before, sizes.read_sizes(str(tmp_path)).num_layers) == (4, 2)


def test_a_run_states_the_sizes_of_its_student(tiny_llama, store_root):
    """Its weights, or its record where they are gone."""
    spec = records.study("mine", layers=(20,))[1]
    record = records.make_record(spec=spec)
    records.write_run(store_root, record)
    by_record = sizes.read_sizes(f"run:{spec.run_id}", store_root)
    assert by_record.num_layers == record.model.num_layers
    records.leave_student(store_root, spec.run_id, tiny_llama())

    assert sizes.read_sizes(f"run:{spec.run_id}", store_root).num_layers == 4


def test_the_starter_is_what_its_file_says():
    """The sizes that are known before it is fetched."""
    if not (path := loading.starter.starter_path()).exists():
        pytest.skip("the starter is not fetched")
    by_file = dataclasses.replace(sizes.read_sizes(f"gguf:{path}"), model_type="llama")
    assert sizes.read_sizes("starter") == by_file


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"PK\x03\x04" + b"\0" * 60,
        b"GGUF" + struct.pack("<IQQ", 3, 9, 9),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**60) + b"key",
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 77),
    ],
    ids=["empty", "short", "other", "cut off", "long text", "unknown type"],
)
def test_a_damaged_file_has_no_sizes(content, tmp_path):
    """It refuses nothing and raises nothing; loading it says what is wrong with it."""
    (tmp_path / "model.gguf").write_bytes(content)
    (tmp_path / "config.json").write_bytes(content)

    for name in (f"gguf:{tmp_path}/model.gguf", str(tmp_path)):
        assert sizes.read_sizes(name) == sizes.UNKNOWN
    for name in (
        "",
        "/no/such/folder",
        "run:none",
        "gguf:/none.gguf",
        "a/b/c",
        "endpoint:http://x#m",
    ):
        assert sizes.read_sizes(name) == sizes.UNKNOWN


def test_reading_loads_no_model_library(tiny_llama):
    """The dashboard can do it while somebody types."""
    code = (
        "import sys; from explorer.models import sizes;"
        "assert sizes.read_sizes(sys.argv[1]).num_layers == 4;"
        "heavy = {'torch', 'transformers', 'gguf', 'streamlit', 'ray'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(tiny_llama())], check=True, timeout=120)


SENTENCE = "200 layers requested, but the teacher starter has 30. Choose fewer than 30."


def test_as_many_layers_as_the_teacher_are_refused_and_fewer_are_not(tiny_llama):
    """With one sentence: what was asked for, what the teacher has, what to choose."""
    with pytest.raises(BadInput) as refused:
        size_limits.check_students([order(200)])
    assert str(refused.value) == SENTENCE
    with pytest.raises(BadInput, match="30 layers requested"):
        size_limits.check_students([order(30)])
    size_limits.check_students([order(29), order(200, teacher="org/unknown")])
    with pytest.raises(BadInput, match=r"4 layers requested, but the teacher .* has 4\."):
        size_limits.check_students([order(4, teacher=str(tiny_llama()))])


def test_a_student_of_another_model_is_compared_with_that_model(tiny_llama):
    """Where it is cut from is what decides, not what teaches it."""
    start = {"start_from": str(tiny_llama())}
    for teacher in ("starter", "endpoint:http://h/v1/completions#m"):
        spec = students(teacher, {"num_layers": 10, **start})[0]
        with pytest.raises(BadInput, match=r"10 layers requested, but /\S+ has 4\. Choose fewer"):
            size_limits.check_students([spec])


@pytest.mark.parametrize(
    ("student", "sentence"),
    [
        ({"kind": "both", "num_parameters": 134_515_008}, "Choose fewer than 134,515,008."),
        ({"kind": "width", "num_parameters": 10**9}, "1,000,000,000 parameters requested, but"),
        ({"kind": "fresh", "num_parameters": 10**9}, "Choose at most 134,515,008."),
        ({"kind": "width", "hidden_size": 600}, "hidden_size 600 requested, but the teacher"),
        ({"kind": "width", "num_attention_heads": 12}, "has 9. Choose at most 9."),
        ({"kind": "fresh", "num_layers": 31}, "31 layers requested, but the teacher starter has"),
    ],
)
def test_wider_and_larger_students_are_refused_too(student, sentence):
    """Parameters and widths above the teacher's, which a run would refuse after loading it."""
    with pytest.raises(BadInput) as refused:
        size_limits.check_students(students("starter", student))
    assert sentence in str(refused.value)


def test_widths_of_an_unknown_family_are_refused_and_its_layers_are_not(tmp_path):
    """What says so is the model's type, so that a depth student of any family is let through."""
    config = {"model_type": "phi3", "num_hidden_layers": 8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for student in ({"kind": "both", "num_parameters": 10}, {"kind": "fresh", "num_layers": 2}):
        with pytest.raises(
            BadInput, match=r"\(model type phi3\) cannot be cut; supported types are gpt2"
        ):
            size_limits.check_students(students(str(tmp_path), student))

    size_limits.check_students(students(str(tmp_path), {"num_layers": 2}))
    assert set(size_limits.MODEL_TYPES) == set(families.FAMILIES)


def test_what_may_be_as_large_as_the_teacher_is_let_through():
    """A fresh model of the teacher's size is a baseline; an existing model has its own size."""
    size_limits.check_students(
        students(
            "starter",
            {"kind": "fresh", "num_layers": 30},
            {"kind": "fresh", "num_parameters": 134_515_008},
            {"kind": "width", "hidden_size": 576},
            {"kind": "checkpoint", "model": "org/large"},
        )
    )


def test_every_way_to_start_refuses_before_anything_is_written(store_root, tmp_path, monkeypatch):
    """A run, a sweep, a dry run, the queue and a tournament: one sentence, an empty store."""
    # --insist sets it for what runs under the command.
    monkeypatch.setenv(spec_checks.INSIST, "0")
    taught = order(200, distill={})
    sweep = SweepSpec.parse({"name": "many", "students": [{"num_layers": 200}]})
    tune = TuneSpec.parse({"run": taught, "variants": [{"distill": {"learning_rate": 1e-5}}]})
    for name, spec in (("run", taught), ("sweep", sweep), ("tune", tune)):
        (tmp_path / f"{name}.yaml").write_text(spec.to_yaml())
    for command in (
        ["run", "run.yaml"],
        ["run", "run.yaml", "--queue"],
        ["run", "run.yaml", "--dry-run"],
        ["run", "run.yaml", "--insist"],
        ["sweep", "sweep.yaml"],
        ["sweep", "sweep.yaml", "--queue"],
        ["sweep", "sweep.yaml", "--dry-run"],
        ["tune", "tune.yaml"],
        ["tune", "tune.yaml", "--queue"],
    ):
        name, file, *options = command
        result = CliRunner().invoke(app, [name, str(tmp_path / file), *options])
        assert str(result.exception) == SENTENCE, command
    for start in (
        lambda: jobs.submit([taught], store_root),
        lambda: queued.submit(tune, store_root),
        lambda: preflight.refuse([taught], store_root),
    ):
        with pytest.raises(BadInput, match="Choose fewer than 30"):
            start()
    assert not list(store_root.glob("**/*"))
