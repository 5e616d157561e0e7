"""Folders that no run wrote, among finished runs, with every page drawn beside them."""

import copy
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from explorer.store import disk
from tests import records
from tests.faults.faults import Bad, Fault
from tests.faults.stores import Stores, open_pages, shown

FOREIGN = "foreign-00000000"
Spoil = Callable[[Path, Path], None]
"""Makes a folder of a store foreign: the store, the folder, which holds a copy of a run."""

FIELDS: dict[str, tuple[str, Any]] = {
    "a date in words": ("finished_at", "yesterday"),
    "a date without a time zone": ("started_at", "2026-11-28T11:54:07"),
    "a date in the year 9999": ("finished_at", "9999-12-31T23:59:59+00:00"),
    "a date in the year 1": ("finished_at", "0001-01-01T00:00:00+00:00"),
    "a number for a date": ("finished_at", 1e300),
    "an unknown status": ("status", "done"),
    "no status": ("status", None),
    "a newer schema": ("schema_version", 99),
    "no schema": ("schema_version", None),
    "a schema in words": ("schema_version", "two"),
    "a foreign id": ("run_id", "../../etc"),
    "another's id": ("run_id", "other-12345678"),
    "an unknown key": ("verdict", "good"),
    "a spec that is a list": ("spec", []),
    "a spec without anything": ("spec", {}),
    "a model that is text": ("model", "llama"),
    "a negative size": ("model.num_parameters", -1),
    "a size beyond SQLite": ("model.num_parameters", 2**80),
    "a fractional size": ("model.num_layers", 2.5),
    "layers that are text": ("model.kept_layers", ["first"]),
    "a name of a million letters": ("model.name", "x" * 1_000_000),
    "a name with half a character": ("model.name", "\ud83d"),
    "a name of control characters": ("model.name", "\0\x1b[31m\u202e"),
    "a name with HTML": ("model.name", "<script>alert(1)</script>"),
    "a device with markdown": ("environment.device_name", "[x](javascript:alert(1)) $a$ :red[b]"),
    "a device without a name": ("environment.device_name", ""),
    "negative memory": ("environment.memory_bytes", -5),
    "a score that is not a number": ("capability.scores.0.score", float("nan")),
    "an infinite score": ("capability.scores.0.score", float("inf")),
    "a score in words": ("capability.scores.0.score", "good"),
    "a negative error": ("capability.scores.0.stderr", -1.0),
    "a chance above one": ("capability.scores.0.chance", 7.0),
    "no documents": ("capability.scores.0.num_documents", 0),
    "a task of another name": ("capability.scores.0.task", "unheard_of"),
    "a task without a name": ("capability.scores.0.task", ""),
    "no scores": ("capability.scores", []),
    "scores that are a mapping": ("capability.scores", {}),
    "a negative time": ("latency.own.turns.0.latency_ms", -3.0),
    "an infinite time": ("latency.own.turns.0.ttft_ms", float("inf")),
    "a time beyond reason": ("latency.own.turns.0.latency_ms", 1e300),
    "no turns": ("latency.own.turns", []),
    "no tokens": ("latency.own.turns.0.num_output_tokens", 0),
    "no time": ("latency.own.turns.0.latency_ms", 0.0),
    "a batch of none": ("latency.own.batch_size", 0),
    "a teacher without turns": ("latency.teacher.turns", []),
    "no curve": ("distillation.curve", []),
    "a loss that is not a number": ("distillation.curve.0.loss", float("nan")),
    "negative hours": ("distillation.device_hours", -1.0),
    "more tokens than there are": ("distillation.scored_tokens", 10**30),
    "a teacher of its own": ("teacher_run_id", FOREIGN),
    "a teacher that is not there": ("teacher_run_id", "gone-12345678"),
    "an error without words": ("error", {"kind": "", "message": "", "stage": ""}),
    "seconds below none": ("stage_seconds", {"distil": -1e9}),
}
"""A field of a record and what it is in the foreign one."""

STATUSES: dict[str, dict[str, Any]] = {
    "done is text": {"done": "many", "total": 2},
    "more done than there is": {"done": 7, "total": 2},
    "less done than nothing": {"done": -7, "total": 2},
    "not a number": {"done": float("nan"), "total": float("nan")},
    "beyond reason": {"done": 1e300, "total": 1e308, "seconds_left": 1e300},
    "a moment in the year 30000": {"updated_at": 9e11},
    "a moment before all others": {"updated_at": -9e15},
    "a moment in words": {"updated_at": "now"},
    "an unknown state": {"state": "sleeping"},
    "a stage of a million letters": {"stage": "x" * 1_000_000},
    "losses in words": {"losses": ["low", None], "loss": "low"},
    "endless losses": {"losses": [float("inf")] * 10, "loss": float("inf")},
    "a process that cannot be": {"pid": 2**70, "host": 5},
    "half a character": {"stage": "\ud83d", "unit": "\udc00"},
}


def faults(stores: Stores) -> Iterator[Fault]:
    """Every fault of this subject."""
    kinds: dict[str, Spoil] = {
        **{name: functools.partial(_with_field, *field) for name, field in FIELDS.items()},
        **{
            f"a status: {name}": functools.partial(_with_status, status)
            for name, status in STATUSES.items()
        },
        **{name: spoil for name, spoil in OTHERS.items()},
    }
    for name, spoil in kinds.items():
        yield Fault("a foreign folder, all pages", name, functools.partial(beside, stores, spoil))


def beside(stores: Stores, spoil: Spoil, folder: Path) -> None:
    """Draw every page of a store with two finished runs and a foreign folder."""
    root = stores.copy(stores.study, folder)
    finished = shown(root)
    shutil.rmtree(folder / f"index-of-{root.name}")
    foreign = root / FOREIGN
    student = records.study(layers=stores.STUDY_LAYERS)[1]
    shutil.copytree(root / student.run_id, foreign)
    record = json.loads((foreign / disk.RECORD).read_text())
    record["run_id"] = FOREIGN
    (foreign / disk.RECORD).write_text(json.dumps(record))
    (root / ".work").mkdir(exist_ok=True)
    spoil(root, foreign)
    open_pages(root)
    left = shown(root)
    for run_id, row in finished["rows"].items():
        if left["rows"].get(run_id) != row:
            raise Bad("untrue", f"{run_id} is shown as {left['rows'].get(run_id)!s:.200}")
    if FOREIGN in left["rows"] or not os.path.lexists(root / FOREIGN / disk.RECORD):
        return
    if not any(FOREIGN in problem for problem in left["problems"]):
        raise Bad("untrue", f"nobody says what is wrong; problems: {left['problems']}")


def _with_field(place: str, value: Any, root: Path, foreign: Path) -> None:
    path = foreign / disk.RECORD
    record = json.loads(path.read_text())
    holder: Any = record
    *parts, last = place.split(".")
    for part in parts:
        holder = holder[int(part)] if isinstance(holder, list) else holder[part]
    holder[last] = copy.deepcopy(value)
    path.write_text(json.dumps(record))


def _with_status(status: dict[str, Any], root: Path, foreign: Path) -> None:
    (foreign / disk.RECORD).unlink()
    usual = {"run_id": FOREIGN, "state": "running", "stage": "distil", "updated_at": 4e9}
    usual |= {"host": "elsewhere", "pid": 1, "losses": []}
    (foreign / disk.STATUS).write_text(json.dumps(usual | status))


def _text(name: str, content: str | bytes) -> Spoil:
    def write(root: Path, foreign: Path) -> None:
        path = foreign / name
        if path.is_dir():
            shutil.rmtree(path)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def _folder_for(name: str) -> Spoil:
    def make(root: Path, foreign: Path) -> None:
        (foreign / name).unlink(missing_ok=True)
        (foreign / name / "inner").mkdir(parents=True)

    return make


def _pipe_for(name: str) -> Spoil:
    def make(root: Path, foreign: Path) -> None:
        (foreign / name).unlink(missing_ok=True)
        os.mkfifo(foreign / name)

    return make


def _loop_for(name: str) -> Spoil:
    def make(root: Path, foreign: Path) -> None:
        (foreign / name).unlink(missing_ok=True)
        (foreign / name).symlink_to(foreign / name)

    return make


def _samples_pipe(root: Path, foreign: Path) -> None:
    folder = foreign / disk.CAPABILITY
    folder.mkdir(exist_ok=True)
    os.mkfifo(folder / "samples_starter_facts_2026-11-29T00-00-00.000000.jsonl")
    os.mkfifo(folder / "results_2026-11-29T00-00-00.000000.json")


def _looping_folder(root: Path, foreign: Path) -> None:
    (root / "aloop").symlink_to(root / "aloop")


def _link_to_all(root: Path, foreign: Path) -> None:
    (root / "whole").symlink_to("/")


def _answers(frame: pd.DataFrame) -> Spoil:
    return lambda root, foreign: frame.to_parquet(foreign / disk.ANSWERS)


def _in_store(name: str, content: str) -> Spoil:
    def write(root: Path, foreign: Path) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    return write


def _odd_names(root: Path, foreign: Path) -> None:
    for name in ("UPPER", "with space", "ünï", "a" * 200, "<b>x", "-rf", "con.", "a\nb"):
        shutil.copytree(foreign, root / name)


OTHERS: dict[str, Spoil] = {
    "a record nested too deeply": _text(disk.RECORD, "[" * 200_000),
    "a record that is a list": _text(disk.RECORD, "[]"),
    "a record in Latin-1": _text(disk.RECORD, '{"näme": 1}'.encode("latin-1")),
    "a record with a byte order mark": _text(disk.RECORD, "\ufeff{}"),
    "a record that is a folder": _folder_for(disk.RECORD),
    "a record that is a pipe": _pipe_for(disk.RECORD),
    "a record that is a link to itself": _loop_for(disk.RECORD),
    "a status that is a pipe": _pipe_for(disk.STATUS),
    "a status that is a list": _text(disk.STATUS, "[1]"),
    "a spec that is a pipe": _pipe_for(disk.SPEC),
    "a spec that is no YAML": _text(disk.SPEC, "a: [b"),
    "a folder that is a link to itself": _looping_folder,
    "a folder that is a link to everything": _link_to_all,
    "folders of odd names": _odd_names,
    "answers of other columns": _answers(pd.DataFrame({"a": [1]})),
    "answers in words": _answers(
        pd.DataFrame(
            {
                "task": ["tiny_pairs"],
                "metric": ["acc"],
                "doc_id": ["x"],
                "doc_hash": [1],
                "value": ["yes"],
            }
        )
    ),
    "answers without rows": _answers(
        pd.DataFrame(columns=["task", "metric", "doc_id", "doc_hash", "value"])
    ),
    "answers that are no parquet": _text(disk.ANSWERS, b"PAR1" + bytes(99) + b"PAR1"),
    "answers that are a pipe": _pipe_for(disk.ANSWERS),
    "samples that are a pipe": _samples_pipe,
    "prices that are a pipe": lambda root, foreign: os.mkfifo(root / "prices.yaml"),
    "weights elsewhere": _text(disk.WEIGHTS, "/etc"),
    "weights in bytes": _text(disk.WEIGHTS, b"\xff\xfe\0"),
    "lm-eval's files that are none": _text(disk.CAPABILITY, "not a folder"),
    "hidden runs that are a mapping": _in_store("hidden.json", '{"a": 1}'),
    "hidden runs that are numbers": _in_store("hidden.json", "[1, null]"),
    "prices in words": _in_store("prices.yaml", "a device: cheap\n"),
    "prices that are a list": _in_store("prices.yaml", "- 1\n- 2\n"),
    "own tasks that are no YAML": _in_store(".tasks/own/own.yaml", "task: [x"),
    "a trash of odd names": _in_store(".trash/a~b/record.json", "{}"),
    "a search that is no spec": _in_store(".work/tournaments/x-12345678/spec.yaml", "run: 5\n"),
    "a working folder that is a file": lambda root, foreign: (
        (
            shutil.rmtree(root / ".work"),
            (root / ".work").write_text("a file"),
        )[-1]
        and None
    ),
}
