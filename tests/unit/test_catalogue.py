"""The catalogue: what ships is sound, and what is not sound is found."""

import datetime
import shutil
import sys

import pytest

from explorer import cli
from explorer.catalogue import check, load, rows
from explorer.errors import DamagedStore
from tests import records

TODAY = datetime.date(2026, 11, 29)


@pytest.fixture
def folder(tmp_path):
    """A copy of the catalogue, to break."""
    for path in load.FOLDER.glob("*.csv"):
        shutil.copy(path, tmp_path)
    return tmp_path


def change(folder, name, old, new):
    path = folder / f"{name}.csv"
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{name}.csv should hold {old!r}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.fixture(scope="module")
def found():
    return check.check_catalogue(today=TODAY)


def test_what_ships_is_without_a_fault(found):
    """Every row has a source, a date, known names and numbers that can be."""
    assert found.faults == []
    assert found.num_rows["models"] == 121
    assert found.num_rows["scores"] == 1615
    assert found.num_rows["pairs"] == 74


def test_what_a_reader_should_know_is_said(found):
    """Undated prices and settings that differ are no fault of the file, and not silent."""
    notes = "\n".join(found.notes)

    assert "12 of 70 rows have no date" in notes
    assert "LiveCodeBench differ" in notes


def test_a_broken_row_is_named_with_what_is_wrong(folder):
    """A fault says the file, the line and what was expected, for every row at once."""
    change(folder, "scores", ",90.8,", ",-90.8,")
    change(folder, "scores", ",%,1,source itself", ",parsec,1,source itself")
    change(folder, "models", "https://github.com/deepseek", "github.com/deepseek")
    change(folder, "models", ",2025-03,", ",2031-01,")
    change(folder, "models", ",2024-07,", ",soon,")
    change(folder, "chance", "MMLU,0.25", "MMLU,1.25")
    change(folder, "api_prices", ",2.5,10,", ",-2.5,10,")
    (folder / "shapes.csv").write_text("model,num_layers\n", encoding="utf-8")
    path = folder / "speeds.csv"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines, lines[1]]), encoding="utf-8")

    faults = check.check_catalogue(folder, TODAY).faults

    for said in (
        "scores.csv, line 2: score",
        "unit",
        "source_url must be an address",
        "released is 2031-01, which is in the future",
        "must begin with a date",
        "chance.csv, line 2: chance",
        "input_usd_per_m",
        "shapes.csv has no rows",
        "Gemini 1.5 Flash, Gemini 1.5 Pro, English is a duplicate",
    ):
        assert any(said in fault for fault in faults), (said, faults)


def test_what_two_tables_say_of_each_other_must_agree(folder):
    """Names lead to a row of the other table, devices are the same, means come out again."""
    change(folder, "scores", "DeepSeek-R1,MMLU,", "DeepSeek-R9,MMLU,")
    change(folder, "tables", "smollm2-base-cards", "smollm9-base-cards")
    change(folder, "pairs", ",48.8,", ",98.8,")
    change(folder, "hardware_specs", "H100 SXM,gpu,80,", "H100 SXM,gpu,96,")

    faults = "\n".join(check.check_catalogue(folder, TODAY).faults)

    assert "'DeepSeek-R9' is not in models.csv" in faults
    assert "'smollm2-base-cards' is not in tables.csv" in faults
    assert "said to keep 98.8 %" in faults
    assert "hardware_specs.csv 96" in faults


def test_a_missing_table_is_said(folder):
    """The name of the file that is not there."""
    (folder / "speeds.csv").unlink()

    with pytest.raises(DamagedStore, match=r"speeds\.csv"):
        check.check_catalogue(folder, TODAY)


def test_a_frame_is_the_callers_own():
    """Changing it changes nobody else's."""
    mine = load.load_table("models")
    mine["model"] = "changed"

    assert "changed" not in set(load.load_table("models")["model"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-24", datetime.date(2026, 11, 24)),
        ("2025-07 (GA); preview 2025-06-17", datetime.date(2025, 7, 1)),
        ("2026 (undated table)", datetime.date(2026, 1, 1)),
        ("undated constants", None),
    ],
)
def test_dates_are_read_as_far_as_they_go(text, expected):
    """A month or a year counts from its first day; what says it is undated has none."""
    assert rows.first_day(text) == expected


def test_the_command_says_how_much_there_is_and_that_it_is_sound(monkeypatch, capsys):
    """`explorer catalogue check` ends with 0 and counts the rows."""
    monkeypatch.setattr(sys, "argv", ["explorer", "catalogue", "check"])

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "scores: 1,615 rows" in said
    assert "No faults found." in said


def ran(monkeypatch, capfd, *words):
    """Exit code and output of `explorer WORDS`."""
    monkeypatch.setattr(sys, "argv", ["explorer", *words])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capfd.readouterr()
    return ended.value.code, out, err


def test_published_students_are_listed_and_exported(monkeypatch, capfd):
    """A family as a table with its sources, all as CSV, and a clear word for an unknown family."""
    code, out, _ = ran(monkeypatch, capfd, "published", "--family", "Mistral")
    assert code == 0
    assert "Ministral 3 3B Base" in out
    assert "minitron-table1: https://ar5iv.labs.arxiv.org" in out

    _, table, _ = ran(monkeypatch, capfd, "published", "-f", "csv")
    assert len(table.splitlines()) == 75

    code, _, err = ran(monkeypatch, capfd, "published", "--family", "Grok")
    assert code == 2
    assert "There is no family Grok. The families are DeepSeek-R1" in err


def test_a_fit_is_called_estimated_and_says_its_assumptions(monkeypatch, capfd, tmp_path):
    """The answer for a 70B and its 7B on a card and on an H100, to the terminal and to a file."""
    code, out, _ = ran(monkeypatch, capfd, "fit", "--concurrency", "8")
    assert code == 0
    assert "2 RTX 4090" in out
    assert "All values are estimates for 8 concurrent requests" in " ".join(out.split())

    file = tmp_path / "fit.json"
    code, _, _ = ran(monkeypatch, capfd, "fit", "7B", "-f", "json", "-o", str(file))
    assert (code, file.read_text().count('"hardware"')) == (0, 6)

    code, _, err = ran(monkeypatch, capfd, "fit", "7B", "--utilisation", "2")
    assert code == 2
    assert "at most 1, got 2.0" in err


def test_a_run_on_a_device_without_a_known_peak_asks_for_it(monkeypatch, capfd, store_root):
    """The catalogue knows no processor's peak; with one stated, the run says what is reached."""
    record = records.make_record()
    records.write_run(store_root, record)
    asked = ["fit", "7B", "--run", record.run_id]

    code, _, err = ran(monkeypatch, capfd, *asked)
    assert code == 2
    assert "State it with --run-tflops" in err

    code, out, _ = ran(monkeypatch, capfd, *asked, "--run-tflops", "1", "--run-bandwidth", "50")
    assert code == 0
    assert f"as {record.run_id} reached" in " ".join(out.split())
