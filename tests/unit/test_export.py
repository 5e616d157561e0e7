import io
import json
import time
import zipfile

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import psutil
import pytest
from pyarrow import parquet

from explorer.charts import export
from explorer.cli import tables as tables_of
from explorer.errors import BadInput, ExplorerError
from explorer.lm_eval_io import import_run
from tests import records
from tests.unit.test_evaluations import evaluation

FORMULA = "=cmd|' /C calc'!A0"


@pytest.fixture
def runs():
    """Two runs, one of them named by somebody unkind."""
    return pd.DataFrame(
        {
            "run_id": ["t", "s"],
            "role": ["teacher", "student"],
            "label": ["teacher", FORMULA],
            "teacher": ["50%_off & more", "50%_off & more"],
            "num_layers": [30, 15],
            "num_parameters": [135e6, 81e6],
            "retention": [1.0, -0.123456789012345],
            "tpot_ms": [30.1, np.nan],
            "distilled": [False, True],
            "kept_layers": [None, [0, 2, 4]],
            "error": [None, None],
        }
    )


@pytest.mark.parametrize(
    ("format", "read"), [("csv", pd.read_csv), ("json", pd.read_json), ("parquet", pd.read_parquet)]
)
def test_raw_formats_give_the_numbers_back(runs, format, read):
    """One row a run, every digit kept, a missing value missing."""
    again = read(io.BytesIO(export.write_runs(runs, format)))

    assert again["run_id"].tolist() == ["t", "s"]
    assert again["retention"].tolist() == pytest.approx([1.0, -0.123456789012345], abs=1e-15)
    assert np.isnan(again["tpot_ms"].iloc[1])
    assert again["kept_layers"].iloc[1] == "0 2 4"


def test_json_has_null_for_what_is_missing(runs):
    """Never NaN, which is no JSON."""
    rows = json.loads(export.write_runs(runs, "json"), parse_constant=pytest.fail)

    assert rows[1]["tpot_ms"] is None
    assert rows[1]["label"] == FORMULA


@pytest.mark.parametrize("text", [FORMULA, "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_csv_cell_is_never_a_formula(runs, text):
    """A name that a spreadsheet would run arrives as text; numbers keep their minus."""
    runs["label"] = ["teacher", text]

    again = pd.read_csv(io.BytesIO(export.write_runs(runs, "csv")))

    assert again["label"].tolist() == ["teacher", "'" + text.replace("\r", " ")]
    assert again["retention"].iloc[1] < 0


def test_xlsx_has_text_as_text_and_a_frozen_bold_header(runs):
    """No formula, no link; the header stays in view."""
    with zipfile.ZipFile(io.BytesIO(export.write_runs(runs, "xlsx"))) as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
        strings = book.read("xl/sharedStrings.xml").decode()
        styles = book.read("xl/styles.xml").decode()

    assert "<f>" not in sheet
    assert "=cmd|" in strings
    assert 'state="frozen"' in sheet
    assert "<b/>" in styles
    assert "-0.123456789012345" in sheet


def test_xlsx_explains_itself(store_root):
    """Numbers have formats, each task has a column, and a sheet says what the numbers hold for."""
    records.write_study(store_root)
    runs = tables_of.analysed_runs(store_root, [], 0.5)

    with zipfile.ZipFile(io.BytesIO(export.write_runs(runs, "xlsx"))) as book:
        strings = book.read("xl/sharedStrings.xml").decode()
        styles = book.read("xl/styles.xml").decode()
        sheets = book.read("xl/workbook.xml").decode()

    assert all(f'name="{name}"' in sheets for name in ("table", "scores", "notes"))
    assert all(f'formatCode="{text}"' in styles for text in ("0.0%", "yyyy-mm-dd hh:mm"))
    assert all(task in strings for task in records.TASKS)
    assert "chance-corrected share of the teacher" in strings
    assert "Measured 20" in strings


def test_every_table_has_the_score_of_each_task(store_root):
    """A text of task and score, the same column whatever the tasks are."""
    study = records.write_study(store_root)
    runs = tables_of.analysed_runs(store_root, [], 0.5)

    table = pd.read_csv(io.BytesIO(export.write_runs(runs, "csv"))).set_index("run_id")

    scores = json.loads(table.loc[study[0], "task_scores"])
    assert sorted(scores) == sorted(records.TASKS)
    assert all(0 <= score <= 1 for score in scores.values())


def test_markdown_and_latex_are_the_comparison_with_specials_escaped(runs):
    """A pipe does not end a cell, a percent sign does not begin a TeX comment."""
    markdown = export.write_runs(runs, "md").decode()
    latex = export.write_runs(runs, "latex").decode()

    assert "=cmd\\|" in markdown
    assert len({line.replace("\\|", "").count("|") for line in markdown.strip().splitlines()}) == 1
    assert r"50\%\_off \& more (teacher)" in latex
    assert r"\toprule" in latex
    assert "–" not in latex


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("<script>x</script>", r"\<script>x\</script>"),
        ("a*b*`c`", r"a\*b\*\`c\`"),
        ("_tiny_100_", r"\_tiny_100\_"),
        ("back\\", "back\\\\"),
    ],
)
def test_markdown_takes_no_name_for_its_own_signs(runs, name, written):
    """A name is shown as it is, not as HTML, code or italics."""
    markdown = export.write_runs(runs.assign(teacher=name, label=name), "md").decode()

    assert f"| {written} " in markdown


def test_an_empty_table_is_written_in_every_format(runs):
    """No runs make a file with a header, not an error."""
    for format in export.TABLE_FORMATS:
        assert export.write_runs(runs.iloc[:0], format), format


def test_an_unknown_format_is_refused_with_those_there_are(runs):
    """The sentence lists what can be chosen."""
    with pytest.raises(BadInput, match="csv, xlsx, parquet, md, latex, json"):
        export.write_runs(runs, "docx")
    with pytest.raises(BadInput, match="html, png, svg"):
        export.write_figure(go.Figure(), "gif")


def test_a_figure_as_html_needs_no_network():
    """The page carries its own Plotly."""
    page = export.write_figure(go.Figure(go.Scatter(x=[1], y=[2])), "html").decode()

    assert "<html" in page
    assert 'src="http' not in page


def test_a_picture_without_a_browser_says_what_to_install(monkeypatch, tmp_path):
    """PNG and SVG need a Chrome; the sentence offers HTML."""
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))

    with pytest.raises(ExplorerError, match="Chromium.* or choose HTML"):
        export.write_figure(go.Figure(), "png")


def test_a_browser_that_never_answers_is_ended(monkeypatch, tmp_path):
    """A picture waits some seconds for it; then it is gone, and the sentence offers HTML."""
    browser = tmp_path / "hangs"
    browser.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 300\n")
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(browser))
    monkeypatch.setattr(export, "DRAWING_TIMEOUT_S", 3.0)

    with pytest.raises(ExplorerError, match="did not answer within 3 s.* or choose HTML"):
        export.write_figure(go.Figure(), "svg")
    assert _has_ended(int((tmp_path / "pid").read_text()))


def _has_ended(pid: int) -> bool:
    """Within ten seconds; a zombie waits for a parent that is not ours."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.browser
@pytest.mark.parametrize(("format", "start"), [("png", b"\x89PNG"), ("svg", b"<svg")])
def test_a_picture_is_drawn_by_the_browser(format, start):
    """A figure becomes a picture of its own kind."""
    assert export.write_figure(go.Figure(go.Scatter(x=[1], y=[2])), format).startswith(start)


def test_tables_of_any_two_stores_have_the_same_columns_and_types(store_root, tmp_path):
    """A whole study, one imported run, and a store without runs: in Parquet, row by row, one."""
    records.write_study(store_root)
    imported = tmp_path / "imported"
    import_run.import_folder(imported, evaluation(tmp_path / "out").parent, "x")
    (tmp_path / "empty").mkdir()

    tables = [
        parquet.read_schema(
            io.BytesIO(export.write_runs(tables_of.analysed_runs(root, [], 0.5), "parquet"))
        )
        for root in (store_root, imported, tmp_path / "empty")
    ]

    names = [(field.name, str(field.type)) for field in tables[0]]
    assert all([(field.name, str(field.type)) for field in each] == names for each in tables)
    assert dict(names)["num_layers"] == "double"
    assert "string" in dict(names)["fingerprint"]


@pytest.mark.parametrize("name", ["[v2] tiny_100%", "*best*", " [1]"])
def test_latex_takes_no_name_for_an_argument(runs, name):
    r"""After \\ and \midrule a bracket would be a length, and a star a command's variant."""
    latex = export.write_runs(runs.assign(teacher=name, label=name), "latex").decode()

    rows = latex.partition(r"\midrule")[2].splitlines()[1:3]
    assert all(row.startswith("{}") for row in rows)
