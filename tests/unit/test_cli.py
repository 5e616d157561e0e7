"""The command line: the same actions as the pages, one line for what is wrong."""

import dataclasses
import io
import json
import sys

import pandas as pd
import pytest

from explorer import cli, specs
from explorer.cli import run, tables
from explorer.store import disk, frames
from tests import records


@pytest.fixture
def explorer(monkeypatch, capsysbinary):
    """Run a command in this process; returns (exit code, standard output, standard error)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["explorer", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsysbinary.readouterr()
        return stopped.value.code, out, err.decode()

    return call


def test_ls_json_is_machine_readable(explorer, store_root):
    """One JSON array, one object a run, failed ones included."""
    run_ids = records.write_study(store_root)

    code, out, _ = explorer("ls", "--json")

    assert code == 0
    assert {row["run_id"] for row in json.loads(out)} == set(run_ids)
    assert all(row["state"] == "finished" for row in json.loads(out))


def test_ls_shows_one_page_and_says_how_many_there_are(explorer, store_root):
    """The latest runs, as many as asked for; JSON and --all leave none out."""
    records.write_study(store_root)

    page = explorer("ls", "--limit", "2")[1].decode()

    assert page.count("finished") == 2
    assert "2 of 6 runs, the latest first" in page
    assert " of 6" not in explorer("ls")[1].decode()
    assert explorer("ls", "--all")[1].decode().count("finished") == 6
    assert len(json.loads(explorer("ls", "--json", "--limit", "3")[1])) == 3
    assert len(json.loads(explorer("ls", "--json")[1])) == 6


def test_compare_shows_one_page_and_says_how_many_there_are(explorer, store_root, monkeypatch):
    """Without names the latest runs are compared; named runs are never cut off."""
    run_ids = records.write_study(store_root)
    monkeypatch.setattr(tables, "PAGE_ROWS", 3)

    # A narrow terminal leaves the column of run ids out.
    code, output, error = explorer("compare", "--wide")
    page = output.decode()

    assert code == 0, error
    assert sum(run_id in page for run_id in run_ids) == 3, page
    assert "The latest 3 of 6 runs." in page
    named = explorer("compare", "--wide", *run_ids)[1].decode()
    assert all(run_id in named for run_id in run_ids)


def test_export_gives_one_row_a_run(explorer, store_root):
    """CSV on standard output has a row a run and the units in its column names."""
    run_ids = records.write_study(store_root)

    code, out, _ = explorer("export", "--format", "csv")

    table = pd.read_csv(io.BytesIO(out))
    assert code == 0
    assert sorted(table["run_id"]) == sorted(run_ids)
    assert {"retention", "retention_low", "tpot_ms", "ttft_ms", "usd_per_mtok"} <= set(table)


@pytest.mark.parametrize("format", ["xlsx", "parquet", "md", "latex", "json"])
def test_export_writes_every_format_to_a_file(explorer, store_root, tmp_path, format):
    """Each format the page offers is there on the shell too."""
    records.write_study(store_root)
    out = tmp_path / f"table.{format}"

    code, _, _ = explorer("export", "--format", format, "--out", str(out))

    assert code == 0
    assert out.stat().st_size > 100


def test_compare_prints_the_table_and_the_finding(explorer, store_root):
    """Teacher and students, retention with interval, and the sentence of the page."""
    records.write_study(store_root)

    code, out, _ = explorer("compare")

    assert code == 0
    text = out.decode()
    assert "teacher" in text
    assert "[" in text
    assert "layer" in text


def test_a_busy_run_is_marked_with_the_command_to_time_it_again(explorer, store_root, monkeypatch):
    """In ls, show, compare, economics and export, and --json is a flag."""
    monkeypatch.setenv("COLUMNS", "240")
    teacher, student, other, *_ = records.write_study(store_root)
    records.make_busy(store_root, student)
    again = f"explorer run {student} --again"

    listed = explorer("ls")[1].decode()
    assert listed.count("machine was busy") == 1
    flags = {row["run_id"]: row["machine_busy"] for row in json.loads(explorer("ls", "--json")[1])}
    assert (flags[student], flags[other]) == (True, False)

    shown = explorer("show", student)[1].decode()
    assert "63% of it while this was timed" in " ".join(shown.split())
    assert again in shown
    assert "--again" not in explorer("show", other)[1].decode()

    compared = explorer("compare")[1].decode()
    assert again in compared
    assert "machine was" in compared
    assert f"explorer run {teacher} --again" not in compared

    exported = pd.read_csv(io.BytesIO(explorer("export")[1])).set_index("run_id")
    assert exported["machine_busy"].to_dict()[student]
    assert exported.loc[student, "busy_share_before"] == 0.44
    assert exported["machine_busy"].sum() == 1

    spent = explorer("economics")[1].decode()
    assert again in spent


def test_a_busy_run_tells_nothing_of_a_device(explorer, store_root):
    """`fit --run` refuses it in one sentence that says what to do."""
    student = records.write_study(store_root)[1]
    records.make_busy(store_root, student)

    code, _, err = explorer(
        "fit", "--run", student, "--run-tflops", "100", "--run-bandwidth", "1000"
    )

    assert code == 2
    assert "was timed on a busy machine" in " ".join(err.split())


def test_compare_differences_has_a_verdict_a_task(explorer, store_root):
    """Better, worse or inconclusive."""
    run_ids = records.write_study(store_root)

    code, out, _ = explorer("compare", run_ids[-1], "--differences")

    assert code == 0
    assert f"{run_ids[-1]} against {run_ids[0]}" in out.decode()
    assert any(word in out.decode() for word in ("worse", "inconclusive", "better"))


def test_two_runs_are_compared_task_by_task_and_as_a_suite(explorer, store_root):
    """Difference with interval, both p-values and a verdict; the teacher is the reference."""
    teacher, large, *_, small = records.write_study(store_root)

    text = explorer("compare", small, large)[1].decode()
    against_teacher = explorer("compare", small, teacher)[1].decode()

    assert f"{large} against {small}" in text
    assert f"{small} against {teacher}" in against_teacher
    suite = next(line for line in text.splitlines() if line.strip().startswith("suite"))
    assert "better" in suite
    assert "[" in suite
    assert "p (Holm)" in text


def test_compare_json_is_what_the_functions_say(explorer, store_root):
    """Numbers for programs, the same as `differences.between`; null for what is missing."""
    from explorer.analysis.stats import differences

    _, a, b, *_ = records.write_study(store_root)

    code, out, _ = explorer("compare", a, "--against", b, "--json")

    (one,) = json.loads(out)
    scores = frames.scores(disk.load_records(store_root)[0])
    rows, suite = differences.compare_runs(
        scores[scores["run_id"] == a],
        scores[scores["run_id"] == b],
        disk.load_answers(store_root, a),
        disk.load_answers(store_root, b),
    )
    assert code == 0
    assert (one["run"], one["reference"]) == (a, b)
    assert [row["p_holm"] for row in one["tasks"]] == pytest.approx(rows["p_holm"].tolist())
    assert [row["reference_score"] for row in one["tasks"]] == pytest.approx(
        rows["teacher"].tolist()
    )
    assert one["suite"]["p_value"] == pytest.approx(suite["p_value"])
    assert {row["verdict"] for row in one["tasks"]} <= {"better", "worse", "inconclusive"}


def test_compare_refuses_what_was_measured_in_another_way(explorer, store_root):
    """The field and both values are named; --allow compares all the same and notes it."""
    _, a, b, *_ = records.write_study(store_root)
    old = disk.load(store_root, b)
    capability = old.capability.model_copy(update={"lm_eval_version": "0.4.9"})
    disk.save(store_root, old.model_copy(update={"capability": capability}))

    refused = explorer("compare", a, b)[1].decode()
    allowed = explorer("compare", a, b, "--allow", "lm_eval_version")[1].decode()

    words = "lm-eval versions differ (run 0.4.9, reference 0.4.13)"
    assert f"is not compared: {words}" in refused
    assert "standard error" not in refused
    assert f"starter_grammar: {words}." in allowed
    assert "standard error" in allowed


def test_every_student_against_its_teacher_in_json(explorer, store_root):
    """Without names, each student is held against its own teacher."""
    run_ids = records.write_study(store_root)

    found = json.loads(explorer("compare", "--json")[1])

    assert {one["run"] for one in found} == set(run_ids[1:])
    assert {one["reference"] for one in found} == {run_ids[0]}


def test_a_fresh_store_says_what_to_do_next(explorer):
    """No runs is no error."""
    assert explorer("ls")[1].decode().strip() == "No runs yet. Start one: explorer demo"
    assert "explorer demo" in explorer("compare")[1].decode()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "no-such-run"), "There is no run 'no-such-run'"),
        (("run", "missing.yaml"), "Could not read the spec missing.yaml"),
        (("show", "../etc"), "A run's id has small letters"),
        (("export", "--format", "pdf"), "pdf"),
        (("compare", "ghost"), "There is no run 'ghost'"),
        (("compare", "--against", "ghost"), "There is no run 'ghost'"),
        (("compare", "--differences", "--allow", "weather"), "--allow must be one of task_version"),
        (("schema", "house"), "knows run, sweep and tune"),
        (("compare", "--utilisation", "2"), "utilisation"),
        (("run", "--nope"), "nope"),
        (("price", "A device", "--", "-1"), "US dollars per hour above 0"),
        (("price", "A device", "0.1 EUR"), "convert other currencies first"),
        (("run",), "Missing parameter: what"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(explorer, store_root, arguments, says):
    """No traceback: what was expected, what came."""
    records.write_study(store_root)

    code, _, err = explorer(*arguments)

    assert code == 2
    assert says in err
    assert "Traceback" not in err


def test_show_prints_a_run_and_its_record(explorer, store_root):
    """The short form is for people, --json is the record itself."""
    run_id = records.write_study(store_root)[1]

    text = explorer("show", run_id)[1].decode()
    assert run_id in text
    assert "Score [95 %]" in text
    code, out, _ = explorer("show", run_id, "--json")
    assert code == 0
    assert json.loads(out)["run_id"] == run_id


def test_schema_and_spec_can_be_piped(explorer, tmp_path):
    """The printed spec reads back; the schema is JSON."""
    assert json.loads(explorer("schema")[1])["title"] == "RunSpec"
    assert json.loads(explorer("schema", "sweep")[1])["title"] == "SweepSpec"
    text = explorer("spec", "starter")[1].decode()
    assert specs.SweepSpec.from_yaml(text) == specs.starter_sweep()


def test_a_damaged_folder_is_reported_beside_the_list(explorer, store_root):
    """The good runs are printed, the problem goes to standard error."""
    run_ids = records.write_study(store_root)
    (store_root / run_ids[0] / disk.RECORD).write_text("nonsense")

    code, out, err = explorer("ls", "--json")

    assert code == 0
    assert len(json.loads(out)) >= len(run_ids) - 1
    assert "is not JSON" in err


def test_a_price_set_on_the_shell_prices_the_runs(explorer, store_root):
    """Without one the cost is blank and the command to set it is named; with one it is there."""
    records.write_study(store_root)
    device = records.DEVICE_NAME
    assert f"explorer price '{device}'" in explorer("price")[1].decode()
    assert pd.read_csv(io.BytesIO(explorer("export")[1]))["usd_per_mtok"].isna().all()

    code, out, _ = explorer("price", device, "0.05")

    assert code == 0
    assert f"{device}: $0.05 per hour" in out.decode()
    costs = pd.read_csv(io.BytesIO(explorer("export")[1]))["usd_per_mtok"]
    assert (costs > 0).all()


def test_doctor_names_the_browser_that_the_export_will_use(explorer, monkeypatch):
    """It asks what draws the figures, the override by BROWSER_PATH included."""
    monkeypatch.setenv("BROWSER_PATH", "/elsewhere/chrome")  # short: a long one is cut to the line

    code, out, _ = explorer("doctor")

    assert code == 0
    assert "/elsewhere/chrome" in out.decode().split("browser for PNG and SVG")[1].splitlines()[0]


def test_show_says_whether_distillation_helped(explorer, store_root):
    """Where the control arm is in the store, `show` and `compare` have the sentence."""
    sweep = specs.starter_sweep().with_(control=True)
    teacher, *students = sweep.runs()
    student = next(s for s in students if s.student.num_layers == 20)
    arm = next(s for s in students if s.name == "starter-20l-labels")
    for spec in (teacher, student, arm):
        records.write_run(store_root, records.make_record(spec=spec))

    for command in (("show", student.run_id), ("compare",)):
        code, out, _ = explorer(*command)
        assert code == 0
        said = " ".join(out.decode().split())
        assert f"{student.run_id}: Whether distillation helped is inconclusive: 0 points" in said


def test_targets_are_listed_and_removed_from_the_shell(explorer, store_root):
    """The three commands on a store that has some, and on one that has none."""
    import torch

    from explorer.distill.teacher_cache import TeacherCache

    assert "No targets yet" in explorer("targets", "ls")[1].decode()
    identity = {"teacher": "t", "top_k": 8, "temperature": 1.0, "vocab_size": 320}
    about = {"teacher": "my-teacher", "corpus": "my-text"}
    blocks = torch.zeros((3, 8), dtype=torch.int64)
    key = TeacherCache(store_root / ".work" / "targets", blocks, identity, about).key

    code, out, _ = explorer("targets", "ls", "--json")
    assert code == 0
    assert json.loads(out)[0]["corpus"] == "my-text"
    assert "my-teacher" in explorer("targets", "ls")[1].decode()
    assert "All checksums match" in explorer("targets", "info", key)[1].decode()
    assert "All checksums match" in explorer("targets", "info", key[:9])[1].decode()
    assert explorer("targets", "rm", key)[0] == 0
    assert explorer("targets", "rm", key)[::2] == (
        2,
        f"error: There are no targets {key!r} in {store_root / '.work' / 'targets'}. "
        "`explorer targets ls` lists them.\n",
    )


def test_a_dry_run_says_what_it_takes_and_starts_nothing(
    explorer, store_root, tmp_path, tiny_run, monkeypatch
):
    """Memory, disk, time and cost of each run; where it cannot fit, the refusal."""
    from explorer.pipeline import forecast

    order = tmp_path / "order.yaml"
    order.write_text(specs.RunSpec.parse(tiny_run).to_yaml())

    code, out, _ = explorer("run", str(order), "--dry-run")
    assert code == 0
    assert all(word in out.decode() for word in ("Memory", "Disk", "Time", "Cost", "tiny-"))
    assert list(store_root.iterdir()) == []

    monkeypatch.setattr(forecast, "machine_of", lambda *_: forecast.Machine("cpu", 1000, 10**12, 4))
    code, _, err = explorer("run", str(order), "--dry-run")
    assert code == 1
    assert "too little" in err
    assert "--insist" in err


def test_a_dry_run_of_a_sweep_counts_what_is_measured(capsys, monkeypatch, tmp_path, tiny_run):
    """Beside runs that will take time, those that are finished are a number of runs, no basis."""
    from explorer.analysis.planning.run_time import NOTHING_TO_RUN
    from explorer.cli import tables
    from explorer.pipeline import forecast

    runs = [specs.RunSpec.parse(tiny_run | {"name": name}) for name in ("one", "two", "three")]
    [told] = forecast.forecasts(runs[:1], tmp_path)
    over = dataclasses.replace(told, seconds=0.0, seconds_basis=NOTHING_TO_RUN)
    monkeypatch.setattr(forecast, "forecasts", lambda *_: [told, over, over])
    tables.print_forecasts(runs, tmp_path)

    said = capsys.readouterr().out
    assert "2 of the 3 runs are already measured." in said
    assert NOTHING_TO_RUN not in said
    assert told.seconds_basis in " ".join(said.split())


def test_tasks_are_listed_searched_and_filtered(explorer, known_tasks):
    """The table is short, JSON is whole, and a preset gives its tasks."""
    code, out, _ = explorer("tasks", "--search", "arc easy", "--json")
    found = {row["task"]: row for row in json.loads(out)}
    assert code == 0
    assert found["arc_easy"]["data"] == "allenai/ai2_arc ARC-Easy"
    assert found["arc_easy"]["here"] is False
    _, out, _ = explorer("tasks", "--preset", "starter")
    assert "group of 5" in out.decode()
    _, out, _ = explorer("tasks", "--output-type", "loglikelihood")
    assert "more: narrow the search" not in out.decode()
    assert "starter_last_word" in out.decode()
    _, out, _ = explorer("tasks", "--here", "--json")
    assert {row["task"] for row in json.loads(out)} == {
        "starter",
        *(f"starter_{name}" for name in ("cause", "facts", "grammar", "physical")),
        "starter_last_word",
    }
    code, _, err = explorer("tasks", "--preset", "nothing")
    assert (code, "preset knows starter" in err) == (2, True)
    assert b"No task matches" in explorer("tasks", "--search", "no such words")[1]


def test_fetch_counts_the_documents_that_are_here(explorer, known_tasks):
    """What is here is counted; what is not is refused in one line."""
    _, out, _ = explorer("tasks", "fetch", "starter_facts")
    assert out.decode() == "starter_facts: 328 documents are on this machine.\n"


def test_a_task_of_ones_own_is_added_and_previewed(explorer, known_tasks, store_root, tmp_path):
    """Columns are guessed or named; the same name is refused."""
    file = tmp_path / "Quiz 1.csv"
    file.write_text("ask,a,b,gold\nOne or two?,1,2,A\n", encoding="utf-8")

    code, out, _ = explorer("tasks", "add", str(file), "--question", "ask")
    assert code == 0
    assert out.decode().startswith("quiz-1: 1 documents. Question from ask, answer from gold (")
    assert (store_root / ".tasks" / "quiz-1.yaml").is_file()
    _, out, _ = explorer("tasks", "preview", "quiz-1")
    assert "One or two?\n  -> ' 1'\n     ' 2'" in out.decode()
    code, _, err = explorer("tasks", "add", str(file), "--question", "ask")
    assert (code, "You already have a task 'quiz-1'" in err) == (2, True)
    code, _, err = explorer("tasks", "add", str(tmp_path / "gone.csv"))
    assert (code, "Could not read" in err) == (2, True)


def test_no_header_is_offered_until_it_is_given(explorer, tmp_path):
    """The columns are numbered then, and what is left to do is to name them."""
    file = tmp_path / "capitals.csv"
    file.write_text("Rome?,Italy,Spain,A\nMadrid?,Italy,Spain,B\n", encoding="utf-8")

    code, _, err = explorer("tasks", "add", str(file))
    assert (code, "add --no-header" in err) == (2, True)

    code, _, err = explorer("tasks", "add", str(file), "--no-header")
    assert code == 2
    assert "'column 1'" in err
    assert "--question" in err
    assert "no-header" not in err


def test_run_takes_the_flags_of_lm_eval(explorer, tmp_path, monkeypatch):
    """They replace what the spec asks, by lm-eval's names or ours; without them nothing changes."""
    asked: list[specs.RunSpec] = []
    monkeypatch.setattr(run, "_run_all", lambda runs, root, **options: asked.extend(runs))
    order = specs.RunSpec(name="one", latency=None)
    path = tmp_path / "order.yaml"
    path.write_text(order.to_yaml())

    assert explorer("run", str(path))[0] == 0
    flags = ("--tasks", "piqa, boolq", "-L", "5", "--num_fewshot", "2", "--batch-size", "8")
    assert explorer("run", str(path), *flags, "--apply_chat_template")[0] == 0
    code, _, said = explorer("run", str(path), "--limit", "0")

    assert asked[0] == order
    wanted = {"tasks": ("piqa", "boolq"), "limit": 5, "num_fewshot": 2, "batch_size": 8}
    capability = specs.CapabilitySpec(**wanted, apply_chat_template=True)
    assert asked[1] == order.with_(capability=capability.model_dump())
    assert (code, "limit should be greater than 0" in said) == (2, True)
