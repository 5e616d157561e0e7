"""What the names and links of a store from elsewhere can reach: nothing but its own files."""

import json
import logging

import pytest

from explorer import jobs
from explorer.errors import DamagedStore, UnknownModel
from explorer.evaluate.backends.api_cost import UsageLog
from explorer.evaluate.task_output import FinishedTask, TaskFiles
from explorer.files import durable_files
from explorer.models import hub
from explorer.pipeline import run_guard
from explorer.records import Usage
from explorer.specs import RunSpec
from explorer.store import disk, inside

ELSEWHERE = ["", ".", "..", "/etc/passwd", "../x", "a/b", "a/../b", "./a", "a\0b", None, 3, ["a"]]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_only_plain_names_are_names(tmp_path, name):
    """A path, an empty name or another type names no file."""
    assert not inside.is_plain_name(name)
    assert inside.file_in(tmp_path, name) is None


def test_a_link_is_no_file_of_the_folder(tmp_path):
    """A file that is not there yet is, one that is a link is not."""
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")

    assert inside.file_in(tmp_path, "link") is None
    assert inside.file_in(tmp_path, "plain") == tmp_path / "plain"


@pytest.mark.parametrize(
    "named",
    ["/{outside}", "../victim.txt", "kept.txt", "finished_other.json", "usage.jsonl", "link.jsonl"],
)
def test_a_marker_reads_and_deletes_only_its_own_files(tmp_path, named):
    """Whatever a marker names, only the samples and results that we wrote are read or replaced."""
    folder, victim = tmp_path / "capability", tmp_path / "victim.txt"
    folder.mkdir()
    victim.write_text('{"doc_id": 0}\n', encoding="utf-8")
    for name in ("kept.txt", "finished_other.json", "usage.jsonl"):
        (folder / name).write_text('{"doc_id": 0}\n', encoding="utf-8")
    (folder / "link.jsonl").symlink_to(victim)
    before = {path: path.read_bytes() for path in [victim, *folder.iterdir()]}
    files = TaskFiles(folder, "t", "key")
    name = named.replace("/{outside}", str(victim))
    marker = {"key": "key", "samples": name, "results": name, "scores": []}
    files.marker.write_text(json.dumps(marker), encoding="utf-8")

    assert files.read() is None
    files.write({}, FinishedTask([], [{"doc_id": 1}], {}, []))

    assert {path: path.read_bytes() for path in before} == before
    again = files.read()
    assert again is not None
    assert again.samples == [{"doc_id": 1}]


def test_a_task_that_is_finished_again_replaces_its_files(tmp_path):
    """The files that the marker named before are gone, also of a task with an odd name."""
    folder = tmp_path / "capability"
    files = TaskFiles(folder, "org/task::x", "key")
    files.write({}, FinishedTask([], [{"doc_id": 1}], {}, []))
    first = {path.name for path in folder.iterdir()}

    files.write({}, FinishedTask([], [{"doc_id": 2}], {}, []))

    second = {path.name for path in folder.iterdir()}
    assert len(first) == len(second) == 3
    assert first & second == {files.marker.name}


def test_nothing_is_appended_through_a_link(tmp_path):
    """Tokens, answers and the log: one sentence names the link, and its target is untouched."""
    target = tmp_path / "target"
    target.write_text("mine\n", encoding="utf-8")
    link = tmp_path / "log.txt"
    link.symlink_to(target)

    for append in (
        lambda: UsageLog(link).add(Usage(num_replies=1)),
        lambda: durable_files.append_object(link, {"a": 1}),
        lambda: durable_files.refuse_link(link),
    ):
        with pytest.raises(DamagedStore, match=r"log\.txt is a link to .*target.*Remove it"):
            append()
    with pytest.raises(DamagedStore, match="is a link"), run_guard.logged(link):
        logging.getLogger("explorer").warning("never")

    assert target.read_text(encoding="utf-8") == "mine\n"


def test_a_log_that_is_a_link_is_not_shown(store_root, tmp_path):
    """A run from elsewhere cannot show a file of this machine on the page."""
    (tmp_path / "secret").write_text("a key", encoding="utf-8")
    spec = RunSpec(name="a")
    folder = disk.open_run(store_root, spec)
    (folder / disk.LOG).symlink_to(tmp_path / "secret")

    assert "key" not in jobs.log_tail(store_root, spec.run_id)


def test_an_index_of_weights_names_only_files_beside_it(tmp_path):
    """The downloader asks for no file that the index puts elsewhere."""
    index = {"weight_map": {"a": "../../../x.safetensors"}}
    (tmp_path / hub.INDEX).write_text(json.dumps(index), encoding="utf-8")

    with pytest.raises(UnknownModel, match="not a file beside it"):
        hub._weight_files(tmp_path)
