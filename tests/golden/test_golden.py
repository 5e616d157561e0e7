"""Outputs that may change only on purpose: losses, old records, help texts, the chart.

`make golden` writes them anew; review the diff.
"""

import json
import re
import sys

import pytest
import torch

from explorer import cli
from explorer.analysis.stats import retention
from explorer.charts import retention_chart
from explorer.records import RunRecord
from explorer.store import disk, frames
from tests import records
from tests.conftest import ROOT

COMMANDS = [
    "",
    "run",
    "sweep",
    "tune",
    "demo",
    "check",
    "ls",
    "show",
    "compare",
    "export",
    "import",
    "price",
    "trust",
    "keys",
    "keys allow",
    "keys list",
    "keys remove",
    "cancel",
    "resume",
    "jobs",
    "synthesise",
    "convert",
    "schema",
    "spec",
    "fetch-starter",
    "doctor",
    "app",
    "tasks",
    "tasks fetch",
    "tasks preview",
    "tasks add",
    "catalogue",
    "catalogue check",
    "targets",
    "targets ls",
    "targets info",
    "targets rm",
    "published",
    "fit",
    "economics",
    "pick",
    "rank",
    "hide",
    "unhide",
    "delete",
    "restore",
    "trash",
    "clean",
]


def test_a_tiny_distillation_gives_the_losses_it_always_gave(tiny_llama, tmp_path, golden):
    """Refactoring the loop leaves every loss as it was, to four digits."""
    from explorer.distill import train
    from explorer.distill.teacher_cache import TeacherCache, local_teacher
    from explorer.distill.teacher_signal import CachedTeacher, TrainingData
    from explorer.models.loading import load
    from explorer.specs import DistillSpec
    from explorer.students import depth

    torch.set_num_threads(1)
    teacher = load(str(tiny_llama(num_layers=6)))
    blocks = torch.randint(0, 320, (24, 16), generator=torch.Generator().manual_seed(0))
    identity = {"teacher": "t", "top_k": 16, "temperature": 1.0, "vocab_size": 320}
    targets = TeacherCache(tmp_path / "targets", blocks, identity)
    targets.fill(lambda: local_teacher(teacher), list(range(24)), lambda *told: None)
    spec = DistillSpec(
        max_tokens=900, block_tokens=16, blocks_per_step=2, learning_rate=3e-3, kd_weight=0.7
    )
    losses = []

    train.train(
        depth.keep_layers(teacher.model, [0, 2, 5]),
        TrainingData(
            CachedTeacher(targets), list(range(4, 24)), CachedTeacher(targets), [0, 1, 2, 3]
        ),
        spec,
        tmp_path / "checkpoint",
        lambda state, total, loss, rate: losses.append(f"{loss:.4g}"),
    )

    golden("tiny_losses.json", json.dumps(losses, indent=1) + "\n")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests" / "golden" / "records").glob("*.json")), ids=lambda p: p.stem
)
def test_records_of_every_past_schema_still_load(path):
    """One record of each schema that ever was; none may stop loading."""
    record = RunRecord.from_json(path.read_text())

    assert record.status == "finished"
    assert frames.row(record)["tpot_ms"] > 0


def test_there_is_a_record_of_the_present_schema():
    """The glob above found something, the newest schema among it."""
    from explorer.records import SCHEMA_VERSION

    path = ROOT / "tests" / "golden" / "records" / f"schema_{SCHEMA_VERSION}.json"
    assert path.exists()


def test_committed_runs_keep_their_ids_and_the_keys_of_what_they_share(golden):
    """A store is found again after any change of the code: specs, students and arms are named so.

    Of each committed run: its id, its teacher's run, recipe and control arm, the folder of its
    student, the part of a timing's key that the spec decides, and the timing's whole key.
    """
    from explorer.pipeline.context import stage_key
    from explorer.pipeline.evaluation_stage import latency_inputs
    from explorer.pipeline.student_stage import student_key

    store_root = ROOT / "results"
    by_id = {record.run_id: record for record in disk.load_records(store_root)[0]}
    identities = {}
    for run_id, record in sorted(by_id.items()):
        spec = disk.read_spec(store_root, run_id)
        assert spec.run_id == run_id
        teacher, taught = spec.teacher_run(), record.distillation
        names = {
            "teacher_run": teacher and teacher.run_id,
            "recipe": spec.recipe(),
            "arm": spec.arm(),
            "timing": stage_key(spec.latency.identity()) if spec.latency else None,
        }
        if spec.latency:
            measured = by_id[teacher.run_id].model if teacher else None
            model, of_teacher = record.model and record.model.fingerprint, None
            if measured and record.latency.teacher:
                of_teacher = measured.fingerprint
            names["latency"] = stage_key(
                latency_inputs(spec.latency, record.environment, model, of_teacher)
            )
        start = getattr(spec.student, "start", None)
        if taught and teacher and not start and not spec.teacher.startswith("endpoint:"):
            names["student"] = student_key(
                spec,
                teacher=by_id[teacher.run_id].model.fingerprint,
                corpus=taught.corpus.digest,
                start=None,
            )
        identities[run_id] = names
    assert len(identities) > 20

    golden("identities.json", json.dumps(identities, indent=1) + "\n")


def test_specs_that_ship_with_us_expand_to_the_runs_they_always_did(golden):
    """Every file in docs/studies and every built-in study names the same runs in any version.

    Of each run: its id, its teacher's run, recipe, control arm and number format, and the hashes
    of its parts. The student's folder is named for a fixed teacher, corpus and starting model.
    """
    from explorer import specs
    from explorer.pipeline.context import stage_key
    from explorer.pipeline.student_stage import student_key

    studies = {
        path.stem: specs.read_run_or_sweep(path) for path in (ROOT / "docs/studies").glob("*.yaml")
    }
    studies |= {"starter": specs.starter_sweep(), "demo": specs.demo_sweep()}
    assert len(studies) >= 7
    identities = {}
    for name, study in sorted(studies.items()):
        runs = study.runs() if isinstance(study, specs.SweepSpec) else [study]
        identities[name] = {"digest": study.digest(), "runs": {}}
        for run in runs:
            teacher = run.teacher_run()
            names = {
                "teacher_run": teacher and teacher.run_id,
                "recipe": run.recipe(),
                "arm": run.arm(),
                "format": run.format,
            }
            for part in ("student", "distill", "capability", "latency"):
                value = getattr(run, part)
                names[part] = stage_key(value.identity()) if value else None
            if run.student:
                start = "3" * 16 if run.student.start else None
                names["folder"] = student_key(run, teacher="1" * 16, corpus="2" * 16, start=start)
            if run.capability and run.capability.api:
                names["api"] = stage_key(run.capability.api.answer_settings())
            identities[name]["runs"][run.run_id] = names

    golden("identities_specs.json", json.dumps(identities, indent=1) + "\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_texts(command, golden, monkeypatch, capsys):
    """What `--help` prints, for every command."""
    monkeypatch.setattr(sys, "argv", ["explorer", *command.split(), "--help"])
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    with pytest.raises(SystemExit):
        cli.main()
    name = command.replace(" ", "-") or "explorer"
    golden(f"help/{name}.txt", capsys.readouterr().out)


def test_no_summary_in_the_overview_is_cut():
    """`explorer --help` says in one short sentence what each command is for."""
    overview = (ROOT / "tests" / "golden" / "files" / "help" / "explorer.txt").read_text()

    assert len(re.findall(r"^  [a-z-]+ {2,}\S.*\.$", overview, re.M)) > 20
    assert not re.findall(r"^  .*\.\.\.$", overview, re.M)


def test_every_command_has_a_golden_help():
    """A new command is added to the list above."""
    names = {c.name or c.callback.__name__ for c in cli.app.registered_commands}
    for group in cli.app.registered_groups:
        commands = group.typer_instance.registered_commands
        names |= {group.name, *(f"{group.name} {c.name or c.callback.__name__}" for c in commands)}

    # The help of lm-eval is lm-eval's own.
    assert names - {"lm-eval"} == {c for c in COMMANDS if c}


def test_the_chart_of_a_study(store_root, golden):
    """The figure as Plotly's JSON, from a fixed study."""
    records.write_study(store_root)
    found, _ = disk.load_records(store_root)
    answers = {r.run_id: disk.load_answers(store_root, r.run_id) for r in found}
    runs = retention.add_retention(frames.runs(found), frames.scores(found), answers)

    figure = retention_chart.retention_chart(runs, x="tpot_ms")

    def rounded(value):
        if isinstance(value, float):
            return float(f"{value:.6g}")
        if isinstance(value, dict):
            return {k: rounded(v) for k, v in value.items() if k != "template"}
        return [rounded(v) for v in value] if isinstance(value, list) else value

    data = json.loads(figure.to_json(engine="json"))
    golden("chart.json", json.dumps(rounded(data), indent=1) + "\n")
