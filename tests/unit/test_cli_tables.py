"""Tables on the terminal: whole names at every width, a dash for what nobody knows."""

import io
import json
import re
import sys

import pandas as pd
import pytest
from rich.console import Console

from explorer import cli, jobs
from explorer.cli.progress_bar import stage_bar
from explorer.cli.tables import print_table
from explorer.lm_eval_io import export_run, import_run
from explorer.store import disk
from tests import records

ELLIPSIS = "…"
LISTS = [
    ("ls",),
    ("compare",),
    ("compare", "--differences"),
    ("economics",),
    ("export", "--format", "md"),
    ("price",),
    ("tune", "--standings"),
    ("targets", "ls"),
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No Ray head of anybody, and no stated width."""
    monkeypatch.setenv("EXPLORER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def explorer(monkeypatch, capsys):
    """Run a command in this process; returns (exit code, standard output, standard error)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["explorer", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return (stopped.value.code, *capsys.readouterr())

    return call


@pytest.fixture
def every_state(store_root):
    """A run in each state, and an imported one, of whose machine nothing is known."""
    ids = records.write_every_state(store_root)
    folder = store_root.parent / "lm-eval"
    export_run.write_files(export_run.lm_eval_files(store_root, ids["finished"]), folder)
    ids["imported"], _ = import_run.import_folder(store_root, folder, "brought")
    return ids


def row_of(text, run_id):
    """The cells of the one line that begins with this id."""
    (line,) = (line for line in text.splitlines() if re.match(rf"{re.escape(run_id)}\b", line))
    return re.split(r" {2,}", line)


@pytest.mark.parametrize("command", LISTS, ids=" ".join)
def test_every_list_draws_whatever_state_a_run_is_in(explorer, every_state, command):
    """Queued, running, failed, cancelled, interrupted, finished and imported side by side."""
    code, out, err = explorer(*command)

    assert (code, "Traceback" in err) == (0, False)
    assert not re.search(r"\b(nan|None|NaT|<NA>)\b", out)


def test_ls_has_a_dash_where_nothing_is_known(explorer, every_state):
    """A queued run beside a running one has no stage, no size and no end yet."""
    text = explorer("ls")[1]

    assert row_of(text, every_state["queued"])[1:] == ["queued", *"––––"]
    assert row_of(text, every_state["running"])[1:] == ["running", "distil", *"–––"]
    assert row_of(text, every_state["begun"])[1:] == ["running", *"––––"]
    assert row_of(text, every_state["finished"])[1:4] == ["finished", "–", "15"]


def test_show_tells_in_words_where_an_unfinished_run_is(explorer, every_state):
    """Its state, its progress and the next command; programs get its status as JSON."""
    for state, command in (("queued", "cancel"), ("running", "cancel"), ("interrupted", "resume")):
        run_id = every_state[state]
        code, out, _ = explorer("show", run_id)
        lines = dict(re.split(r" {2,}", line, maxsplit=1) for line in out.splitlines())

        assert (code, lines["state"]) == (0, state)
        assert lines["next"] == f"explorer {command} {run_id}"
    assert json.loads(explorer("show", every_state["running"], "--json")[1])["state"] == "running"


def test_resuming_a_finished_run_says_that_it_is_measured_again(explorer, every_state, monkeypatch):
    """Nobody loses a result unawares: the sentence says what happens and how to stop it."""
    resumed = []
    monkeypatch.setattr(jobs, "resume", lambda root, run_id, *told: resumed.append(run_id))

    finished = explorer("resume", every_state["finished"])[1]
    failed = explorer("resume", every_state["failed"])[1]

    assert "was finished already and is queued to be measured again" in finished
    assert "finished already" not in failed
    assert resumed == [every_state["finished"], every_state["failed"]]


def test_ls_json_has_null_where_nothing_is_known(explorer, every_state):
    """Programs get null, never NaN, which is not JSON."""

    def refuse(constant):
        raise AssertionError(constant)

    rows = json.loads(explorer("ls", "--json")[1], parse_constant=refuse)

    by_id = {row["run_id"]: row for row in rows}
    assert by_id[every_state["queued"]]["stage"] is None
    assert by_id[every_state["queued"]]["finished_at"] is None
    assert by_id[every_state["running"]]["losses"] == [2.5, 1.23]


def test_prices_are_listed_beside_an_imported_run(explorer, every_state):
    """Of an imported run nobody knows the device: it asks for no price."""
    code, out, _ = explorer("price")

    assert code == 0
    assert f"{records.DEVICE_NAME}: no price" in out


def test_an_imported_run_calibrates_nothing(explorer, every_state):
    """It was timed nowhere: one sentence, no traceback."""
    code, _, err = explorer("fit", "--run", every_state["imported"])

    assert code == 2
    assert f"{every_state['imported']} was not timed" in err


@pytest.mark.parametrize("width", [60, 80, 200, None])
def test_ids_are_whole_at_every_width(explorer, every_state, monkeypatch, width):
    """One line a run; None is a pipe, whose lines have no end."""
    if width:
        monkeypatch.setenv("COLUMNS", str(width))

    _, out, err = explorer("ls")

    lines = out.splitlines()
    assert ELLIPSIS not in out
    assert sorted(line.split()[0] for line in lines[1:]) == sorted(every_state.values())
    assert all(len(line) <= (width or 1_000) for line in lines)
    assert ("--wide shows all" in err) == (width in (60, 80))
    assert ({"Layers", "Finished (UTC)"} <= set(re.split(r" {2,}", lines[0]))) == (
        width not in (60, 80)
    )


def test_wide_shows_all_columns_on_a_narrow_terminal(explorer, every_state, monkeypatch):
    """What was left out is there, and nothing is said to be left out."""
    monkeypatch.setenv("COLUMNS", "40")
    narrow, wide = explorer("compare"), explorer("compare", "--wide")

    assert "Weights" in narrow[2]
    assert "Weights" not in narrow[1]
    assert {"Weights", "Run"} <= set(re.split(r" {2,}", wide[1].splitlines()[0]))
    assert not wide[2]
    assert every_state["finished"] in wide[1]


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize(
    ("command", "names"),
    [
        (("compare",), ("starter (teacher)", "15 layers")),
        (("economics",), ("teacher", "15 layers")),
        (("published",), ("DeepSeek-R1-Distill-Llama-70B",)),
        (("fit",), ("DeepSeek-R1-Distill-Llama-70B", "DeepSeek-R1-Distill-Qwen-7B")),
    ],
    ids=lambda value: value[0],
)
def test_model_names_are_whole_on_narrow_terminals(
    explorer, every_state, monkeypatch, command, names, width
):
    """The columns behind them go first."""
    monkeypatch.setenv("COLUMNS", str(width))

    _, out, err = explorer(*command)

    assert ELLIPSIS not in out
    assert all(any(line.startswith(name) for line in out.splitlines()) for name in names)
    assert "--wide shows all" in err


def test_the_least_important_columns_are_left_out_first(monkeypatch, capsys):
    """Those that stay keep their order; what identifies a row stays at any width."""
    words = pd.DataFrame([dict.fromkeys(["Run", "State", "Note", "Size"], "12345678")])

    monkeypatch.setenv("COLUMNS", "30")
    left_out = print_table(words, identifying=["Run"], importance=["Size", "State"])
    assert left_out == ["Note"]
    assert capsys.readouterr().out.split() == ["Run", "State", "Size", *["12345678"] * 3]

    monkeypatch.setenv("COLUMNS", "3")
    print_table(words, identifying=["Run"], importance=["Size", "State"])
    out, err = capsys.readouterr()
    assert out.split() == ["Run", "12345678"]
    assert "Columns left out to fit the width: State, Note, Size. --wide shows all." in err


def test_a_column_in_which_nothing_is_known_is_left_out_before_any_other(monkeypatch, capsys):
    """However important it is elsewhere: dashes tell a person nothing."""
    monkeypatch.setenv("COLUMNS", "20")
    words = pd.DataFrame({"Run": ["a-run", "b-run"], "Stage": "–", "Finished": "12:30"})

    left_out = print_table(words, identifying=["Run"], importance=["Stage", "Finished"])

    assert left_out == ["Stage"]
    assert "--wide shows all" in capsys.readouterr().err


def test_one_very_long_name_leaves_the_other_rows_their_columns(monkeypatch, capsys):
    """Its own line runs on; the rest of the table is as without it."""
    monkeypatch.setenv("COLUMNS", "40")
    long = "endpoint:http://127.0.0.1:8080/v1#a-model"
    words = pd.DataFrame({"Model": ["a", "b", long], "Kept": "91 %", "Time": "3 ms"})

    print_table(words, identifying=["Model"])

    assert capsys.readouterr().out.splitlines() == [
        "Model  Kept  Time",
        "a      91 %  3 ms",
        "b      91 %  3 ms",
        f"{long}  91 %  3 ms",
    ]


def test_a_text_of_several_lines_stays_in_its_row(capsys):
    """One line a row, also where a cell's text has line breaks."""
    print_table(pd.DataFrame({"Run": ["a"], "Why": ["no\nroom"]}), identifying=["Run"])

    assert capsys.readouterr().out.splitlines() == ["Run  Why", "a    no room"]


def test_a_command_takes_the_beginning_of_an_id(explorer, store_root, tmp_path):
    """Each command that takes a run's id takes any beginning that no other run shares."""
    run_ids = records.write_study(store_root, layers=(15,))
    teacher, student = run_ids

    assert f"run_id               {student}" in explorer("show", "starter-15")[1]
    assert f"{student} against {teacher}" in explorer("compare", "s", "--against", "t")[1]
    exported = explorer("export", "s")[1]
    assert (student in exported, exported.count("\n")) == (True, 2)
    assert "15 layers" in explorer("economics", "s")[1]
    explorer("export", "s", "--format", "lm-eval", "--out", str(tmp_path / "out"))
    imported = explorer("import", str(tmp_path / "out"), "--as", "mine", "--teacher", "t")[1]
    run_id = imported.removeprefix("Imported as ").strip().rstrip(".")
    assert disk.load(store_root, run_id).teacher_run_id == teacher


@pytest.mark.parametrize(
    "command",
    [
        ("show", "starter"),
        ("run", "starter"),
        ("compare", "starter"),
        ("export", "starter"),
        ("compare", "--against", "starter"),
        ("economics", "starter"),
        ("cancel", "starter"),
        ("resume", "starter"),
        ("fit", "--run", "starter"),
        ("convert", "run:starter", "x.gguf"),
        ("import", "x", "--as", "y", "--teacher", "starter"),
        ("synthesise", "run:starter"),
    ],
    ids=" ".join,
)
def test_an_ambiguous_beginning_is_refused_with_its_candidates(explorer, store_root, command):
    """One sentence and exit code 2, by every command that takes a run's id."""
    _, *students = records.write_study(store_root, layers=(15, 10))

    code, _, err = explorer(*command)

    assert code == 2
    assert "'starter' begins the ids of 2 runs" in err.replace("runs and tournaments", "runs")
    assert all(run_id in err for run_id in students)


def test_an_imported_run_cannot_be_run(explorer, every_state):
    """It is in the list, but has no spec."""
    code, _, err = explorer("run", every_state["imported"][:-1])

    assert code == 2
    assert "was imported" in err


def test_only_devices_with_a_name_are_said_to_have_no_price(explorer, every_state):
    """An imported run, of whose device nothing is known, leaves no gap in the sentence."""
    text = explorer("compare")[1]

    assert f"No price is known for {records.DEVICE_NAME}. Set one" in text


def test_a_bar_shows_the_whole_id_on_a_narrow_terminal():
    """The id has a line of its own above the bar; what it says beside the bar is whole too."""
    run_id = "teacher-starter-q4_k_m-59532be7"
    file = io.StringIO()
    status = {"stage": "capability", "done": 3_000, "total": 14_000, "unit": "documents"}

    with stage_bar(Console(file=file, force_terminal=True, width=40), f"1/2 {run_id}") as bar:
        bar({**status, "tokens_per_s": 412.0, "loss": 1.2, "seconds_left": 300})

    assert f"1/2 {run_id}" in file.getvalue()
    assert ELLIPSIS not in file.getvalue()


def test_a_run_is_summed_up_in_80_columns(explorer, store_root, monkeypatch):
    """What it keeps, its time and its cost, a line each; --wide has every figure."""
    monkeypatch.setenv("COLUMNS", "80")
    teacher, student = records.write_study(store_root, layers=(15,))
    explorer("price", records.DEVICE_NAME, "0.05")

    out = explorer("show", student)[1]
    facts = dict(re.split(r" {2,}", line, maxsplit=1) for line in out.splitlines()[:15])

    assert all(len(line) <= 80 for line in out.splitlines())
    assert re.match(r"[\d.]+ % \[.*\] of the teacher's capability, 4 tasks", facts["retention"])
    assert re.match(r"\$[\d.]+ per 1M output tokens at 50 % busy, \$0.05", facts["cost"])
    assert "ms per token, " in facts["time"]
    assert "tpot_ratio_low" in explorer("show", student, "--wide")[1]
    assert "it is the teacher" in explorer("show", teacher)[1]


def test_the_verdict_of_a_difference_fits_80_columns(explorer, store_root, monkeypatch):
    """It is what the table is for; less important columns go first."""
    monkeypatch.setenv("COLUMNS", "80")
    run_ids = records.write_study(store_root, layers=(15,))

    out = explorer("compare", *run_ids, "--differences")[1]

    heading = next(line for line in out.splitlines() if line.startswith("Task"))
    assert "Verdict" in heading
    assert len(heading) <= 80


def test_a_misspelt_command_is_answered_with_the_one_that_was_meant(explorer):
    """One line, exit code 2."""
    code, _, err = explorer("shhow")

    assert code == 2
    assert "Did you mean 'show'? See explorer --help." in err
