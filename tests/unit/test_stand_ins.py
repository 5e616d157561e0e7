"""Terminals that are not UTF-8."""

import codecs
import io
import json
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from explorer.cli import stand_ins, tasks
from explorer.cli.common import app
from explorer.tasks import render_prompts
from explorer.tasks.preview import TaskPreview

TABLE = "– 1.00× ±2 … ≤ é ü € → “x” 日"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("latin-1", '- 1.00× ±2 . < é ü ? > "x" ?'),
        ("ascii", '- 1.00x ~2 . < e u ? > "x" ?'),
        ("cp1252", "– 1.00× ±2 … < é ü € > “x” ?"),
        ("utf-8", TABLE),
    ],
)
def test_what_a_terminal_cannot_show_has_a_stand_in_of_one_character(encoding, shown, monkeypatch):
    """The table stays aligned, and no encoding ends the command."""
    written = io.BytesIO()
    out = io.TextIOWrapper(written, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", io.StringIO())

    stand_ins.use()
    print(TABLE, file=out, flush=True)

    text = written.getvalue().decode(encoding).rstrip("\n")
    assert text == shown
    assert len(text) == len(TABLE)


def test_half_of_a_character_is_no_crash():
    """A lone surrogate, as from a damaged file's name, has a stand-in too."""
    codecs.register_error(stand_ins.NAME, stand_ins.stand_in)

    assert "a\udcffb".encode("utf-8", errors=stand_ins.NAME) == b"a?b"


def test_json_is_never_changed_by_a_stand_in(monkeypatch):
    """Data stays what it is: JSON is printed with escapes, in any terminal."""
    shown = TaskPreview(task="日–", num_documents=1, num_fewshot=0, questions=[])
    leaf = SimpleNamespace(kind="task", name="x", source=None)
    index = SimpleNamespace(leaves=lambda name: [leaf])
    monkeypatch.setattr(tasks, "task_index", lambda include_path: index)
    monkeypatch.setattr(render_prompts, "render_preview", lambda *rest, **options: shown)

    printed = CliRunner().invoke(app, ["tasks", "preview", "x", "--json"]).stdout

    assert printed.isascii()
    assert json.loads(printed)["task"] == "日–"
