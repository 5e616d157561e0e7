"""Words, tables and order parts that need no page."""

import datetime

import pandas as pd
import pytest

from explorer.errors import BadInput
from explorer.pages.run import queue_panel, run_spec
from explorer.pages.shared import glossary, html_table, text_format
from tests import killing


def test_markdown_in_a_name_is_shown_as_it_is():
    """Dollars make no formula and stars no emphasis."""
    assert text_format.md("$5 *now*") == "\\$5 \\*now\\*"


@pytest.mark.parametrize(
    ("seconds", "said"), [(5, "just now"), (720, "12 min ago"), (3 * 86_400, "3 days ago")]
)
def test_times_are_relative(seconds, said):
    """A record's time is said as how long ago it was."""
    now = datetime.datetime(2026, 11, 24, tzinfo=datetime.UTC)
    then = (now - datetime.timedelta(seconds=seconds)).isoformat()

    assert text_format.ago(then, now) == said


def test_the_absolute_time_is_in_utc():
    """The hover text names day, time and zone."""
    assert text_format.absolute("2026-11-03T09:05:00+01:00") == "3 November 2026, 08:05 UTC"


def test_a_cell_cannot_bring_html():
    """Names in a table are text, whatever they look like; intervals are small."""
    cells = pd.DataFrame({"Model": ["<b>x</b>"], "Kept": ["83 % [79, 87]"]})

    shown = html_table.results_table(cells, {"": ["Model"], "A": ["Kept"]}, pinned=[True])

    assert "<b>x" not in shown
    assert "<small>[79, 87]</small>" in shown
    assert "class=teacher" in shown


def test_sizes_follow_the_teachers_layers():
    """Thirty layers offer the starter study's sizes; other teachers the same shares."""
    assert run_spec.sizes(30) == [24, 20, 15, 10, 6]
    assert run_spec.sizes(4) == [3, 2, 1]


@pytest.mark.parametrize("text", ["0", "-3", "1.5", "ten"])
def test_impossible_sizes_are_refused(text):
    """Only whole numbers above zero are numbers of layers."""
    with pytest.raises(BadInput, match="whole numbers of layers"):
        run_spec.other_sizes(text)


def test_an_upload_is_kept_under_a_safe_name(tmp_path):
    """A name with a path in it stays in the folder, and the same content is kept once."""
    first = run_spec.save_upload(tmp_path, "../../evil name.txt", b"words")
    second = run_spec.save_upload(tmp_path, "../../evil name.txt", b"words")

    assert first == second
    assert first.parent == tmp_path
    assert first.read_bytes() == b"words"


def test_an_upload_that_a_kill_cut_is_kept_whole_the_next_time(tmp_path):
    """Killed at any change of the disk, no part of a corpus passes for the whole of it."""
    kills = 0
    for kill in killing.moments(
        lambda kill: run_spec.save_upload(tmp_path / str(kill.moment), "words.txt", b"words")
    ):
        kills += 1
        folder = tmp_path / str(kill.moment)
        assert {path.read_bytes() for path in folder.glob("*.txt")} <= {b"words"}
        assert run_spec.save_upload(folder, "words.txt", b"words").read_bytes() == b"words"
    assert kills > 1

    cut = run_spec.save_upload(tmp_path, "words.txt", b"words")
    cut.write_bytes(b"wo")
    assert run_spec.save_upload(tmp_path, "words.txt", b"words").read_bytes() == b"words"


@pytest.mark.parametrize(("name", "content"), [("model.pkl", b"x"), ("empty.txt", b"")])
def test_other_uploads_are_refused(tmp_path, name, content):
    """A pickle or an empty file is refused in words, and nothing is kept."""
    folder = tmp_path / "uploads"

    with pytest.raises(BadInput, match=r"\.txt, \.jsonl or \.parquet|is empty"):
        run_spec.save_upload(folder, name, content)

    assert not folder.exists()


def test_the_sparkline_says_its_numbers():
    """A screen reader hears where the loss began and where it is."""
    assert "Loss from 3.00 to 1.00" in queue_panel.sparkline([3.0, 2.0, 1.0])


def test_every_term_has_a_sentence():
    """Help texts are sentences."""
    assert glossary.TERMS
    assert all(text.rstrip().endswith(".") for text in glossary.TERMS.values())
