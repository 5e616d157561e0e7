"""Specs: one frozen value, refused in words when it is wrong."""

from pathlib import Path

import pytest

from explorer import specs
from explorer.errors import BadInput
from explorer.specs import DepthStudent, DistillSpec, RunSpec, SweepSpec
from explorer.specs.base import Added


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            {"kd_weight": 1},
            r"unknown key kd_weight; did you mean distill\.kd_weight\? Known here: teacher",
        ),
        (
            {"latency": {"promt_tokens": 3}},
            r"unknown key latency\.promt_tokens; did you mean latency\.prompt_tokens\?",
        ),
        ({"student": {"num_layers": 0}}, r"student\.num_layers should be greater than 0, got 0"),
        (
            {"student": {"num_layers": 2}, "distill": {"kd_weight": 1.4}},
            r"distill\.kd_weight should be less than or equal to 1, got 1\.4",
        ),
        ({"distill": {}}, r"distill needs a student; write student"),
        ({"gguf": "q8_0", "torch_bits": 8}, "two number formats; write a run of each"),
        (
            {"student": {"num_layers": 2}, "distill": {"hidden_weight": 0.5}},
            r"hidden_weight 0\.5 needs a live teacher; write method: live",
        ),
        (
            {"student": {"num_layers": 2}, "distill": {"on_policy_fraction": 0.5}},
            r"on_policy_fraction 0\.5 needs a live teacher; write method: live",
        ),
        (
            {
                "student": {"num_layers": 2},
                "distill": {
                    "method": "live",
                    "on_policy_fraction": 0.5,
                    "block_tokens": 16,
                    "prompt_tokens": 16,
                },
            },
            r"prompt_tokens 16 leaves nothing of block_tokens 16",
        ),
        ({"name": "../x"}, r"name is not possible, got '\.\./x'\. It is: The beginning of"),
        (
            {"device": "GPU 0"},
            r"device is not possible, got 'GPU 0'\. It is: auto, cpu, or an accelerator as torch",
        ),
        ({"capability": {"tasks": []}}, r"capability\.tasks .*at least 1"),
        ([1], "valid dictionary"),
    ],
)
def test_a_wrong_spec_is_refused_with_the_key_and_the_value(data, says):
    """The message says what was expected, what came and where."""
    with pytest.raises(BadInput, match=says):
        RunSpec.parse(data)


@pytest.mark.parametrize(
    ("student", "says"),
    [
        ({"kind": "wide"}, r"student\.kind should be one of depth, width, .*, got 'wide'"),
        (
            {"kind": "width", "num_layer": 3},
            r"unknown key student\.num_layer; known here: .*intermediate_size",
        ),
        ({"kind": "width"}, r"student takes either num_parameters or widths"),
        ({"kind": "fresh", "num_layers": 2, "num_parameters": 9}, "either num_parameters or sizes"),
        ({"kind": "both"}, r"student\.num_parameters is missing"),
        (
            {"kind": "both", "num_parameters": -3},
            r"student\.num_parameters .* greater than 0, got -3",
        ),
        ({}, r"student\.num_layers is missing"),
        (7, r"student should be a valid dictionary .*, got 7"),
    ],
)
def test_a_wrong_student_is_refused_by_the_key_that_was_written(student, says):
    """The kind decides which keys there are; it is no part of a key's name."""
    with pytest.raises(BadInput, match=says):
        RunSpec.parse({"student": student})
    if isinstance(student, dict):
        in_a_sweep = says.replace("student", r"students\.0", 1)
        with pytest.raises(BadInput, match=in_a_sweep):
            SweepSpec.parse({"students": [student]})


def test_a_sweep_names_its_runs_by_kind_and_size():
    """Largest first where all sizes are known, else as given; no dash within the size."""
    sizes = [
        {"kind": "both", "num_parameters": 60_000_000},
        {"kind": "width", "num_parameters": 80_400_000},
        {"kind": "fresh", "num_parameters": 1_500_000_000},
    ]
    mixed = [
        {"num_layers": 2},
        {"kind": "checkpoint", "model": "org/SmolLM2-360M"},
        {"kind": "width", "hidden_size": 384, "intermediate_size": 960},
    ]

    def names(students):
        sweep = SweepSpec.parse({"name": "s", "students": students})
        return [run.name for run in sweep.runs()[1:]]

    assert names(sizes) == ["s-1.5b_fresh", "s-80.4m_wide", "s-60m"]
    assert names(mixed) == ["s-2l", "s-smollm2_360m", "s-h384f960_wide"]


def test_students_of_all_kinds_survive_yaml():
    """What a sweep says is what its file says; a student without a kind is a depth student."""
    sweep = SweepSpec.parse(
        {
            "students": [
                {"num_layers": 2, "start_from": "run:x"},
                {"kind": "width", "hidden_size": 384},
                {"kind": "both", "num_parameters": 60_000_000, "choice": "greedy"},
                {"kind": "checkpoint", "model": "org/small"},
                {"kind": "fresh", "num_layers": 4, "seed": 3},
            ]
        }
    )

    assert SweepSpec.from_yaml(sweep.to_yaml()) == sweep
    assert [student.kind for student in sweep.students] == [
        "depth",
        "width",
        "both",
        "checkpoint",
        "fresh",
    ]
    labels = [student.label() for student in sweep.students]
    assert labels == ["2 layers", "h384 wide", "60M both ways", "small", "fresh"]
    assert sweep.students[1].label(81_400_000) == "81.4M wide"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "line 2, column 1: expected YAML"),
        ("just words", "should be a mapping of keys, got str"),
    ],
)
def test_a_file_that_is_no_spec_says_so(tmp_path, text, says):
    """Broken YAML and other content are two sentences, not two tracebacks."""
    path = tmp_path / "spec.yaml"
    path.write_text(text)

    with pytest.raises(BadInput, match=says):
        specs.read_run_or_sweep(path)


def test_a_sweep_and_a_run_are_told_apart_by_their_keys(tmp_path):
    """`students` makes it a sweep."""
    path = tmp_path / "spec.yaml"
    path.write_text(specs.demo_sweep().to_yaml())
    assert isinstance(specs.read_run_or_sweep(path), SweepSpec)
    path.write_text(RunSpec().to_yaml())
    assert isinstance(specs.read_run_or_sweep(path), RunSpec)


def test_the_same_spec_is_the_same_run():
    """A run's id is its name and its spec's hash: it survives YAML and changes with any field."""
    spec = RunSpec(name="a", student=DepthStudent(num_layers=3), distill=DistillSpec())

    again = RunSpec.from_yaml(spec.to_yaml())

    assert again == spec
    assert again.run_id == spec.run_id
    assert spec.with_(threads=1).run_id != spec.run_id


def test_all_students_of_a_sweep_share_one_teacher_run():
    """The teacher comes first and is measured once."""
    teacher, *students = specs.starter_sweep().runs()

    assert teacher.student is None
    assert {student.teacher_run() for student in students} == {teacher}
    assert [s.student.num_layers for s in students] == [24, 20, 15, 10, 6]


def test_the_same_student_twice_is_refused():
    """A sweep lists each student once."""
    with pytest.raises(BadInput, match="same student twice"):
        SweepSpec.parse({"students": [{"num_layers": 2}, {"num_layers": 2}]})


def test_a_control_arm_needs_something_to_control():
    """Text alone, or no teaching at all, has no teacher's part that could be left out."""
    for distill in (None, {"method": "text"}):
        with pytest.raises(BadInput, match="control compares with a teacher's distributions"):
            SweepSpec.parse({"students": [{"num_layers": 2}], "distill": distill, "control": True})


def test_the_schema_explains_every_field():
    """An editor that reads the JSON Schema shows what each key means."""
    schema = RunSpec.model_json_schema()
    definitions = [schema, *schema["$defs"].values()]
    fields = [(d["title"], n, f) for d in definitions for n, f in d["properties"].items()]

    unexplained = [(t, n) for t, n, f in fields if n != "kind" and not f.get("description")]

    assert len(fields) > 30
    assert unexplained == []


def test_a_younger_field_leaves_older_runs_their_id():
    """A field that comes later changes a run's id only where it is set to something new."""

    class Part(specs.Spec):
        old: int = 1

    class Younger(Part):
        new: Added[int] = 0

    class Whole(specs.Spec):
        part: Part

    assert Whole(part=Younger()).digest() == Whole(part=Part()).digest()
    assert Whole(part=Younger(new=2)).digest() != Whole(part=Part()).digest()


def test_the_committed_study_is_the_starter_sweep():
    """Starting the starter study again on a fresh clone measures nothing twice."""
    committed = {folder.name for folder in Path("results").iterdir() if folder.is_dir()}

    assert {run.run_id for run in specs.starter_sweep().runs()} <= committed


def test_a_sweep_measures_its_models_again_as_gguf():
    """The teacher and every student in each format, after the plain runs, which keep their ids."""
    plain = SweepSpec.parse({"students": [{"num_layers": 2}], "distill": {}, "control": True})
    both = plain.with_(gguf=["q8_0", "q4_k_m"])
    only_teacher = SweepSpec.parse({"students": [], "distill": {}, "gguf": ["q8_0"]})

    runs = both.runs()

    assert [run.run_id for run in runs[:3]] == [run.run_id for run in plain.runs()]
    assert [run.name for run in runs[3:]] == [
        "teacher-starter-q8_0",
        "sweep-2l-q8_0",
        "teacher-starter-q4_k_m",
        "sweep-2l-q4_k_m",
    ]
    assert {run.teacher_run().run_id for run in runs[1:]} == {runs[0].run_id}
    assert [run.gguf for run in only_teacher.runs()] == [None, "q8_0"]
    assert only_teacher.runs()[0] == plain.runs()[0], "the same teacher, measured once"


def test_a_sweep_measures_its_models_again_quantised():
    """After the GGUFs, named and compared as they are; the older runs keep their ids."""
    plain = SweepSpec.parse({"students": [{"num_layers": 2}], "distill": {}})
    both = plain.with_(gguf=["q8_0"], torch_bits=[8, 4])

    runs = both.runs()

    assert [run.run_id for run in runs[:2]] == [run.run_id for run in plain.runs()]
    assert [run.name for run in runs[2:]] == [
        "teacher-starter-q8_0",
        "sweep-2l-q8_0",
        "teacher-starter-int8",
        "sweep-2l-int8",
        "teacher-starter-int4",
        "sweep-2l-int4",
    ]
    assert [run.torch_bits for run in runs] == [None, None, None, None, 8, 8, 4, 4]
    assert {run.teacher_run().run_id for run in runs[1:]} == {runs[0].run_id}
    assert len({run.run_id for run in runs}) == len(runs)
    assert SweepSpec.parse({"students": [], "torch_bits": [8]}).runs()[1].format == "int8"


def test_a_sample_of_the_vocabulary_is_no_part_of_the_control_arm():
    """Labels alone are always scored with all tokens: the control arm is as good as it can be."""
    spec = RunSpec.parse({"student": {"num_layers": 2}, "distill": {"vocab_sample": 4096}})

    assert spec.distill.control().vocab_sample is None
    assert (
        spec.distill.with_(vocab_sample=None).digest()
        == RunSpec.parse({"student": {"num_layers": 2}, "distill": {}}).distill.digest()
    )
    with pytest.raises(BadInput, match="write method: cached"):
        spec.distill.with_(method="live")


def test_products_in_bfloat16_are_asked_for_on_a_processor():
    """CUDA has them unless it is told otherwise; both arms of a comparison have the same."""
    auto, narrow, wide = (
        RunSpec.parse({"student": {"num_layers": 2}, "distill": {"precision": name}}).distill
        for name in ("auto", "bfloat16", "float32")
    )

    assert [one.in_bfloat16("cpu") for one in (auto, narrow, wide)] == [False, True, False]
    assert [one.in_bfloat16("cuda") for one in (auto, narrow, wide)] == [True, True, False]
    assert narrow.control().precision == "bfloat16"


def test_a_quantised_teacher_is_the_control_arms_too():
    """The text that it writes, and the exam that it sets, are part of what is held equal."""
    spec = RunSpec.parse({"student": {"num_layers": 2}, "distill": {"teacher_bits": 8}})
    whole = spec.with_(distill={})

    assert spec.distill.control().teacher_bits == 8
    assert spec.arm() != whole.arm()
    assert spec.teacher_run() == whole.teacher_run()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"students": []}, "students is empty"),
        ({"students": [], "torch_bits": [2]}, r"torch_bits\.0 .*8 or 4"),
        ({"students": [], "gguf": ["q2"]}, r"gguf\.0 .*'q2'"),
        (
            {"students": [{"num_layers": 2}], "teacher": "llamacpp:model.gguf"},
            "timed, but not cut",
        ),
        (
            {"students": [{"num_layers": 2}], "teacher": "endpoint:http://h/v1#m"},
            "write student.start_from",
        ),
        (
            {"students": [], "gguf": ["f16"], "teacher": "endpoint:http://h/v1#m"},
            "timed, but not cut",
        ),
        ({"students": [{"num_layers": 2}], "latency": {"workload": "essay"}}, "latency.workload"),
        (
            {"students": [{"num_layers": 2}], "latency": {"workload": "chat", "prompt_tokens": 3}},
            r"workload chat has 512 \+ 128 tokens, got 3 \+ 128",
        ),
        ({"students": [{"num_layers": 2}], "latency": {"concurrency": [4, 2]}}, "should rise"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(asked, says):
    """Nobody to measure, a format or workload that does not exist, a model that is elsewhere."""
    with pytest.raises(BadInput, match=says):
        SweepSpec.parse(asked)


@pytest.mark.parametrize("teacher", ["llamacpp", "endpoint", "endpoints/mine"])
def test_only_a_colon_makes_a_name_that_of_a_model_outside_torch(teacher):
    """A folder may be called endpoint or llamacpp: runs and sweeps cut students of both."""
    student = {"num_layers": 2}

    run = RunSpec.parse({"teacher": teacher, "student": student, "distill": {}})
    sweep = SweepSpec.parse({"teacher": teacher, "students": [student], "distill": {}})

    assert run.teacher_run() == sweep.runs()[1].teacher_run()
    for kind, key in ((RunSpec, "student"), (SweepSpec, "students")):
        asked = student if key == "student" else [student]
        with pytest.raises(BadInput, match="timed, but not cut"):
            kind.parse({"teacher": "llamacpp:model.gguf", key: asked})
        with pytest.raises(BadInput, match="carries a user, a password or a query"):
            kind.parse({"teacher": "endpoint:http://me:secret@h/v1#m", key: asked})


def test_the_committed_gguf_study_has_nothing_left_to_run(capsys, monkeypatch):
    """`explorer sweep docs/studies/starter_gguf.yaml --dry-run` finds every run in results/."""
    from explorer.analysis.planning.run_time import NOTHING_TO_RUN
    from explorer.cli import main

    monkeypatch.setenv("EXPLORER_RESULTS", str(Path("results").resolve()))
    arguments = ["explorer", "sweep", "docs/studies/starter_gguf.yaml", "--dry-run"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 0
    assert NOTHING_TO_RUN in capsys.readouterr().out


def test_every_study_that_ships_with_us_can_be_started():
    """Each file is a valid order; the plain runs of the GGUF study are the committed ones."""
    found = {
        path.stem: specs.read_run_or_sweep(path) for path in Path("docs/studies").glob("*.yaml")
    }

    assert {"starter_gguf", "starter_curve", "starter_endpoint"} <= set(found)
    runs = found["starter_gguf"].runs()
    plain = [run.run_id for run in runs if run.gguf is None]
    assert plain == [run.run_id for run in specs.starter_sweep().runs()]
    assert len(runs) == 3 * len(plain)
