"""docs/json.md against what the commands print."""

import json
import re
import sys
from pathlib import Path

import pytest
import typer

from explorer import cli
from explorer.cli.common import app
from explorer.tasks.preview import Question, TaskPreview
from tests import records

DOCUMENT = Path(__file__).parents[2] / "docs" / "json.md"
ROW = re.compile(r"^\| `([^`]+)` \| ([a-z, ]+) \|", re.M)
KINDS = {dict: "object", list: "list", str: "text", bool: "flag", int: "number", float: "number"}
OPEN = {
    "explorer show RUN --json": "explorer schema record prints what is inside",
    "explorer rank --json": "docs/measure.md has the documents that would tell two models apart",
    "explorer pick --json": "docs/pick.md has the facts of a run",
}
"""Sections whose objects are explained elsewhere: only the keys of their tables are checked."""


@pytest.fixture
def explorer(monkeypatch, capsys):
    """Run a command in this process and parse what it prints."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["explorer", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        assert stopped.value.code == 0, err
        return json.loads(out)

    return call


def sections():
    """Heading of each section to its table: key to the types it may have."""
    parts = re.split(r"^## `([^`]+)`\n", DOCUMENT.read_text(encoding="utf-8"), flags=re.M)
    return {
        heading: {key: set(kinds.split(", ")) for key, kinds in ROW.findall(body)}
        for heading, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def walk(value, table, *, is_open, path=""):
    """Each documented key of a value with its type; keys of unexplained objects end the walk."""
    if path:
        yield path, "null" if value is None else KINDS[type(value)]
    if isinstance(value, list):
        for each in value:
            inner = f"{path}[]"
            if inner in table or isinstance(each, dict | list):
                yield from walk(each, table, is_open=is_open, path=inner)
    elif isinstance(value, dict):
        for key, each in value.items():
            name = f"{path}.{key}" if path else key
            wild = f"{path}.*"
            inner = wild if wild in table else name
            if inner in table or not is_open:
                yield from walk(each, table, is_open=is_open, path=inner)


def check(heading, *outputs):
    """Every key that was printed is documented with its type, and every documented one printed."""
    table, is_open = sections()[heading], heading in OPEN
    seen = [
        (path, kind)
        for output in outputs
        for path, kind in walk(output, table, is_open=is_open)
        if not path.endswith("[]") or path in table
    ]
    wrong = sorted({pair for pair in seen if pair[1] not in table.get(pair[0], set())})
    assert not wrong, f"{heading} prints what docs/json.md does not say: {wrong}"
    unseen = set(table) - {path for path, _ in seen}
    assert not unseen, f"{heading} did not print {sorted(unseen)}"


def test_every_command_with_json_has_a_section():
    """A new one can't be forgotten."""
    group = typer.main.get_command(app)
    found = set()

    def visit(command, name):
        if any("--json" in getattr(option, "opts", ()) for option in command.params):
            found.add(name)
        for child, inner in getattr(command, "commands", {}).items():
            visit(inner, f"{name} {child}")

    visit(group, "explorer")
    documented = {re.sub(r" [A-Z]+", "", heading).removesuffix(" --json") for heading in sections()}
    assert len(found) >= 6
    assert found == documented


def test_ls_prints_what_the_table_says(explorer, store_root):
    """Of runs in every state."""
    records.write_every_state(store_root)

    check("explorer ls --json", explorer("ls", "--json"))


def test_show_prints_the_record(explorer, store_root):
    """Of a student and of a failed run; the schema has every key of the record."""
    student = records.write_study(store_root, layers=(15,))[1]
    failed = records.make_record(num_layers=12, status="failed")
    records.write_run(store_root, failed)

    shown = [explorer("show", run_id, "--json") for run_id in (student, failed.run_id)]

    check("explorer show RUN --json", *shown)
    assert set(shown[0]) <= set(explorer("schema", "record")["properties"])


def test_compare_prints_differences(explorer, store_root):
    """Of every student and its teacher."""
    records.write_study(store_root, layers=(20, 10))

    check("explorer compare --json", explorer("compare", "--json"))


def test_rank_prints_the_three_views(explorer, store_root):
    """The ranking, retention by task and times, with a run that has no place in any."""
    records.write_study(store_root)
    records.write_run(store_root, records.make_record(num_layers=12, status="failed"))

    check(
        "explorer rank --json",
        *(explorer("rank", "--by", by, "--json") for by in ("capability", "task", "time")),
    )


def test_pick_prints_a_decision(explorer, store_root):
    """With a pick, and with limits that nothing meets."""
    records.write_study(store_root, layers=(24, 10))

    check(
        "explorer pick --json",
        explorer("pick", "--min-retention", "0.1", "--objective", "smallest", "--json"),
        explorer("pick", "--max-tpot-ms", "0.001", "--json"),
    )


def test_check_prints_findings(explorer, store_root, tmp_path):
    """Of an order with a corpus that is not there."""
    spec = records.study()[1].with_(distill={"corpus": str(tmp_path / "none.txt")})
    path = tmp_path / "spec.yaml"
    path.write_text(spec.to_yaml(), encoding="utf-8")

    check("explorer check --json", explorer("check", str(path), "--quick", "--json"))


def test_targets_prints_caches(explorer, store_root, tiny_llama):
    """Of a whole cache, of one that lost a file, and of one that no version of today reads."""
    import torch

    from explorer.distill.teacher_cache import TeacherCache, local_teacher
    from explorer.models.loading import load

    folder = store_root / ".work" / "targets"
    blocks = torch.randint(0, 320, (4, 16), generator=torch.Generator().manual_seed(0))
    for top_k in (8, 4):
        identity = {"teacher": "t", "top_k": top_k, "temperature": 1.0, "vocab_size": 320}
        cache = TeacherCache(folder, blocks, identity)
        cache.fill(lambda: local_teacher(load(str(tiny_llama()))), [0, 1], lambda *_: None)
    next(cache.folder.glob("shard-*.bin")).unlink()
    (folder / "0123456789abcdef").mkdir()

    check("explorer targets ls --json", explorer("targets", "ls", "--json"))


def test_tasks_prints_the_list(explorer, store_root, known_tasks):
    """Every task, group and tag."""
    check("explorer tasks --json", explorer("tasks", "--json"))


def test_a_preview_prints_prompts():
    """The object that the command prints, for choices and for written answers."""
    questions = [
        Question(doc_id=0, prompt="2 + 2 =", choices=["3", "4"], right=[1]),
        Question(doc_id=1, prompt="Oslo is", target="a city", until=["\n"]),
    ]
    preview = TaskPreview(task="t", num_documents=2, num_fewshot=0, questions=questions)

    check("explorer tasks preview TASK --json", preview.model_dump(mode="json"))


def test_clean_prints_what_no_run_needs(explorer, store_root):
    """And why other things stay: runs of the store have not finished."""
    states = records.write_every_state(store_root)
    (store_root / states["finished"] / "record.1.json").write_text("{}")

    check("explorer clean --json", explorer("clean", "--json"))
