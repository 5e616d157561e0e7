"""One run, one cost per token: the same on every page, in every command and every file."""

import html
import io
import json
import re
import shutil
import sys
import zipfile

import pandas as pd
import pytest

from explorer import cli
from explorer.analysis import numbers
from explorer.analysis.cost import unit_cost
from explorer.catalogue import prices
from explorer.catalogue.prices import Price
from explorer.charts import export
from explorer.store import disk, frames
from tests import records
from tests.app.reading import charts_of, text_of

LABEL = "$/1M output tokens at 50 % busy"


@pytest.fixture
def committed(root):
    """The committed study's teacher and two students, with the committed prices."""
    run_ids = [records.committed(), records.committed(24), records.committed(6)]
    for run_id in run_ids:
        shutil.copytree(records.STUDY / run_id, root / run_id)
    shutil.copy(records.STUDY / prices.OVERRIDES, root)
    return run_ids


@pytest.fixture
def made_up(root):
    """A teacher and two students, the last of them timed at other lengths."""
    run_ids = records.write_study(root, layers=(15, 6))
    record = disk.load(root, run_ids[-1])
    own = record.latency.own
    shorter = [turn.model_copy(update={"num_output_tokens": 16}) for turn in own.turns]
    timing = own.model_copy(update={"prompt_tokens": 32, "turns": shorter})
    latency = record.latency.model_copy(update={"own": timing})
    disk.save(root, record.model_copy(update={"latency": latency}))
    prices.write_override(root / prices.OVERRIDES, records.DEVICE_NAME, Price(usd_per_hour=0.05))
    return run_ids


@pytest.fixture(params=["committed", "made_up"])
def run_ids(request):
    """Runs of a priced store, the teacher's first."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def explorer(root, monkeypatch, capfdbinary):
    """Runs `explorer ...` in this process; gives what it printed."""

    def ran(*words):
        monkeypatch.setenv("COLUMNS", "400")
        monkeypatch.setattr(sys, "argv", ["explorer", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfdbinary.readouterr()
        assert ended.value.code == 0, err
        return out

    return ran


def expected(root, run_ids):
    """Run id to dollars: the device's hour over the output tokens that it writes in half of it."""
    dollars = {}
    for run_id in run_ids:
        row = frames.row(disk.load(root, run_id))
        usd_per_hour = prices.read_overrides(root / prices.OVERRIDES)[row["device_name"]]
        tokens = row["output_tokens_per_s"] * 3600 / 2
        dollars[run_id] = usd_per_hour.usd_per_hour / tokens * 1e6
    return dollars


def names(root, run_ids):
    """What tables call each run, as pages and commands write it."""
    frame = frames.runs([disk.load(root, run_id) for run_id in run_ids])
    labels = frame["label"].where(frame["role"] != "teacher", frame["teacher"] + " (teacher)")
    return dict(zip(run_ids, labels, strict=True))


def printed_table(text):
    """The table that a command printed, cells by their columns' names."""
    lines = iter(text.splitlines())
    head = re.split(r"\s{2,}", next(line for line in lines if "Model" in line).strip())
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines]
    return [dict(zip(head, row, strict=True)) for row in rows if len(row) == len(head)]


def table_of(page):
    """The table of results on a page, cells by their columns' names."""
    shown = next(part for part in text_of(page).split("<table") if "results" in part[:30])
    head = texts_of(r"<th scope=\"col\"[^>]*>(.*?)</th>", shown)
    rows = re.findall(r"<tr(?: class=teacher)?>(.*?)</tr>", shown.partition("<tbody>")[2])
    return [dict(zip(head, texts_of(r"<td[^>]*>(.*?)</td>", row), strict=True)) for row in rows]


def texts_of(pattern, markup):
    """What a person reads in each match: without elements, such as checkboxes and buttons."""
    return [
        html.unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in re.findall(pattern, markup)
    ]


def chart_of(page):
    """Everything that the chart on Explore says, points on hover included."""
    spec = charts_of(page)[0]
    return json.dumps(spec, ensure_ascii=False)


def by_name(rows, column=LABEL):
    """Model to its cell in one column."""
    return {row["Model"]: row[column] for row in rows}


def test_files_hold_the_same_number_at_half_of_the_time(root, run_ids, explorer):
    """CSV, JSON, Parquet and XLSX of `export`, and CSV of `economics`, to the last digit."""
    numbers_of = expected(root, run_ids)
    frames = {
        "csv": pd.read_csv(io.BytesIO(explorer("export"))),
        "json": pd.read_json(io.BytesIO(explorer("export", "-f", "json"))),
        "parquet": pd.read_parquet(io.BytesIO(explorer("export", "-f", "parquet"))),
        "economics": pd.read_csv(io.BytesIO(explorer("economics", "-f", "csv"))),
        "economics json": pd.read_json(io.BytesIO(explorer("economics", "-f", "json"))),
    }

    for name, frame in frames.items():
        found = dict(zip(frame["run_id"], frame["usd_per_mtok"], strict=True))
        assert found == pytest.approx(numbers_of, rel=1e-12), name
        assert set(frame["utilisation"]) == {0.5}, name
        assert {"prompt_tokens", "output_tokens"} <= set(frame), name
    with zipfile.ZipFile(io.BytesIO(explorer("export", "-f", "xlsx"))) as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
    for usd in numbers_of.values():
        assert f"<v>{usd:.16G}</v>" in sheet


def test_commands_print_the_same_text(root, run_ids, explorer):
    """`compare`, `economics` and `export` as Markdown and LaTeX: one heading, one text a run."""
    named = names(root, run_ids)
    texts = {named[run_id]: numbers.dollars(usd) for run_id, usd in expected(root, run_ids).items()}
    compared = explorer("compare").decode()
    planned = explorer("economics").decode()
    markdown = explorer("export", "-f", "md").decode()
    latex = explorer("export", "-f", "latex").decode().replace("\\", "")
    head, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()
    )
    # Economics calls a teacher by its role.
    short = {name.replace("starter (teacher)", "teacher"): text for name, text in texts.items()}

    assert by_name(printed_table(compared)) == texts
    assert by_name(printed_table(planned)) == short
    assert by_name([dict(zip(head, row, strict=True)) for row in rows]) == texts
    assert f"& {LABEL} &" in latex
    assert all(f"& {text} &" in latex for text in texts.values())


def test_pages_show_the_same_text(root, run_ids, open_page):
    """Explore's chart and evidence, Compare and Economics, as they open."""
    named = names(root, run_ids)
    texts = {run_id: numbers.dollars(usd) for run_id, usd in expected(root, run_ids).items()}

    compare = open_page("compare")
    assert by_name(table_of(compare)) == {named[r]: texts[r] for r in run_ids}
    assert all(f" {text} |" in compare.code[0].value for text in texts.values())
    economics = by_name(table_of(open_page("economics")))
    assert economics == {
        named[r].replace("starter (teacher)", "teacher"): texts[r] for r in run_ids
    }
    for run_id in run_ids:
        page = open_page("explore", run=run_id)
        assert f"{texts[run_id]} per million output tokens at 50 % busy" in text_of(page)
        assert f"{LABEL} {texts[run_id]}" in chart_of(page)


def test_lengths_stand_beside_the_cost(root, committed, open_page, explorer):
    """Where all runs share them, one sentence says prompt and answer."""
    lengths = "128-token prompts, 64-token answers"

    assert lengths in explorer("compare").decode()
    assert lengths in explorer("economics").decode()
    assert lengths in text_of(open_page("compare"))
    assert lengths in text_of(open_page("economics"))
    page = open_page("explore", run=committed[1], x="$/1M output")
    # Under the chart, among the assumptions of the pick, and in the evidence.
    assert text_of(page).count(lengths) == 3
    assert lengths in chart_of(page)
    assert "128 + 64" in explorer("export", "-f", "md").decode()


def test_lengths_that_differ_are_said_run_by_run(root, made_up, open_page, explorer):
    """A run timed at other lengths is not compared in silence: each row has its own."""
    printed = explorer("compare").decode()
    page = open_page("compare")

    assert set(by_name(printed_table(printed), "Prompt + answer (tokens)").values()) == {
        "128 + 64",
        "32 + 16",
    }
    assert by_name(table_of(page), "Prompt + answer (tokens)")["6 layers"] == "32 + 16"
    for said in (printed, text_of(page), text_of(open_page("economics"))):
        assert "different lengths, so compare costs at equal lengths only" in said


def test_another_utilisation_changes_number_column_and_heading(
    root, committed, open_page, explorer
):
    """A quarter of the time is twice the cost, on pages and in the shell."""
    named = names(root, committed)
    texts = {
        named[run_id]: numbers.dollars(2 * usd) for run_id, usd in expected(root, committed).items()
    }
    label = "$/1M output tokens at 25 % busy"

    exported = pd.read_csv(io.BytesIO(explorer("export", "--utilisation", "0.25")))
    compared = explorer("compare", "--utilisation", "0.25").decode()

    assert set(exported["utilisation"]) == {0.25}
    assert by_name(printed_table(compared), label) == texts
    for name in ("compare", "economics", "explore"):
        page = open_page(name, **({"run": committed[1]} if name == "explore" else {}))
        page.slider(key="utilisation").set_value(25).run()
        if name == "explore":
            text = texts[named[committed[1]]]
            assert f"{text} per million output tokens at 25 % busy" in text_of(page)
            assert f"{label} {text}" in chart_of(page)
        else:
            assert list(by_name(table_of(page), label).values()) == list(texts.values())


def test_no_other_quantity_has_the_label(root, committed, open_page, explorer):
    """Prefill, decode and blended have names of their own; so has the fleet's hour."""
    exported = pd.read_csv(io.BytesIO(explorer("economics", "-f", "csv")))
    columns = list(table_of(open_page("economics"))[0])

    assert {"usd_per_mtok_prefill", "usd_per_mtok_decode", "usd_per_mtok_blended"} <= set(exported)
    assert "usd_per_hour" not in exported
    assert [name for name in columns if "output tokens" in name] == [LABEL]
    assert {"Prefill $/1M in", "Decode $/1M out", "Blended $/1M in + out"} <= set(columns)


def test_an_old_address_opens_the_axis_under_its_present_name(root, committed, open_page):
    """Links with $/1M tokens or $/hour still work, and the address says the new name."""
    for old, axis, new in (
        ("$/1M tokens", "usd_per_mtok", "$/1M output"),
        ("$/hour", "usd_per_hour_at_load", "$/hour at load"),
    ):
        page = open_page("explore", x=old)

        assert page.session_state["x"] == axis
        assert page.query_params["x"] in (new, [new])


def test_the_readme_says_what_export_says():
    """Each row of the README's table is a row of the committed results, its cost included."""
    readme = (records.STUDY.parent / "README.md").read_text("utf-8")
    table = re.search(r"^\| Model \|.*?\n\n", readme, re.M | re.S)[0].splitlines()
    head, _, *rows = ([c.strip() for c in line.strip("|").split("|")] for line in table if line)
    found, _ = disk.load_records(records.STUDY)
    frame = frames.runs(found)
    runs = unit_cost.add_costs(frame, prices.prices_for(frame, records.STUDY))
    lines = export.write_runs(runs, "md").decode().splitlines()
    names, _, *cells = ([c.strip() for c in line.strip("|").split("|")] for line in lines)
    # Retention needs all answers; the columns that are compared do not.
    columns = [name for name in head if "[95 %]" not in name]
    exported = [tuple(row[names.index(name)] for name in columns) for row in cells]

    assert LABEL in columns
    assert unit_cost.lengths_text_of(runs).replace(", ", " and ") in " ".join(readme.split())
    for row in rows:
        assert tuple(row[head.index(name)] for name in columns) in exported
