"""Builds a part of the task index: reads task files as lm-eval does, and caches the result.

Runs in its own process because it imports lm-eval. Prints its progress, one line at a time.

    python -m explorer.tasks.index_builder OUT STAMP [FOLDER]

Source: github.com/EleutherAI/lm-evaluation-harness, `tasks/_index.py`.
"""

import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import jinja2.nodes
import lm_eval.tasks
from filelock import FileLock
from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY
from lm_eval.tasks._index import Entry, Kind, TaskIndex
from lm_eval.tasks._yaml_loader import load_yaml

from explorer.errors import BadInput
from explorer.files import durable_files
from explorer.lm_eval_io import metrics
from explorer.processes import child_process
from explorer.tasks import code_policy
from explorer.tasks.index import (
    FILE_FORMATS,
    FORMAT,
    OUTPUT_TYPES,
    OnProgress,
    TaskRow,
    task_files,
)

LM_EVAL = Path(lm_eval.tasks.__file__).parent
KINDS = {Kind.TASK: "task", Kind.PY_TASK: "task", Kind.GROUP: "group", Kind.TAG: "tag"}
PROGRESS_EVERY = 100
"""Files between two progress reports."""


def read_task_rows(
    folder: Path, on_progress: OnProgress = lambda done, total: None
) -> tuple[list[TaskRow], list[str]]:
    """Every name that a folder's task files define, and a sentence per invalid file."""
    described = _families() if folder == LM_EVAL else {}
    entries, problems = read_entries(folder, on_progress)
    rows = [row for entry in entries.values() for row in _rows(entry, entries)]
    if described:
        rows = [_with_family(row, described) for row in rows]
    return rows, problems


def read_entries(
    folder: Path, on_progress: OnProgress = lambda done, total: None
) -> tuple[dict[str, Entry], list[str]]:
    """lm-eval's entry of every name that a folder's task files define.

    Files outside lm-eval and the starter suite are read strictly: what lm-eval would skip or
    misread without a word is left out, too, but with a sentence.

    Returns:
        The entries, and a sentence for each invalid file or name.
    """
    files = task_files(folder)
    strict = not code_policy.is_shipped(folder)
    entries: dict[str, Entry] = {}
    read: dict[Path, dict[str, Any]] = {}
    problems: list[str] = []
    defined: dict[str, Path] = {}
    twice: set[str] = set()
    for number, path in enumerate(files):
        if number % PROGRESS_EVERY == 0:
            on_progress(number, len(files))
        try:
            config = load_task_yaml(path, read, strict=strict)
            if not {"task", "group", "class"} & config.keys():
                continue
            if strict:
                name = _checked_name(config)
                if first := defined.get(name):
                    twice.add(name)
                    raise ValueError(f"it defines {name!r} again, after {first}; rename one")
                defined[name] = path
            TaskIndex.process_cfg(config, path, entries)
        except BadInput as error:
            problems.append(str(error))
        except Exception as error:
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            problems.append(f"{path} is not a task file: {reason}.")
    on_progress(len(files), len(files))
    for name in twice:
        del entries[name]
    for name in _endless_groups(entries):
        problems.append(f"The group {name!r} in {entries[name].yaml_path} contains itself.")
        del entries[name]
    return entries, problems


def _checked_name(config: dict[str, Any]) -> str:
    """The name that a task or group file defines.

    Raises:
        ValueError: It or a tag is no text, or the group's tasks are no list.
    """
    key = "group" if "group" in config and "class" not in config else "task"
    name = config.get(key)
    if not isinstance(name, str) or not name.strip():
        quotes = "; put it in quotes" if isinstance(name, bool | int | float) else ""
        raise ValueError(f"its {key} should be a name, got {name!r:.80}{quotes}")
    tags = config.get("tag") or []
    if not all(isinstance(tag, str) for tag in (tags if isinstance(tags, list) else [tags])):
        raise ValueError(f"its tag should be a name or a list of names, got {tags!r:.80}")
    tasks = config.get("task")
    if key == "group" and not (isinstance(tasks, list) and tasks):
        raise ValueError(f"the task of a group should be a list of names, got {tasks!r:.80}")
    return name


def _endless_groups(entries: dict[str, Entry]) -> list[str]:
    """The groups that contain themselves, directly or through others."""

    def members(name: str) -> list[str]:
        entry = entries.get(name)
        if entry is None or entry.kind is not Kind.GROUP:
            return []
        listed = (entry.cfg or {}).get("task")
        names = [
            item.get("group", item.get("task")) if isinstance(item, dict) else item
            for item in (listed if isinstance(listed, list) else [])
        ]
        return [inner for inner in names if isinstance(inner, str)]

    def reaches_itself(start: str) -> bool:
        waiting, seen = members(start), set()
        while waiting:
            name = waiting.pop()
            if name == start:
                return True
            if name not in seen:
                seen.add(name)
                waiting += members(name)
        return False

    return [name for name in entries if reaches_itself(name)]


def load_task_yaml(
    path: Path,
    read: dict[Path, dict[str, Any]],
    above: tuple[Path, ...] = (),
    *,
    strict: bool = False,
) -> dict[str, Any]:
    """Load a task file as lm-eval's `load_yaml` does, but import no functions.

    Args:
        path: The task file.
        read: The files read so far; a file that several include is read once.
        above: The chain of files that include this one.
        strict: Refuse what lm-eval's parser would misread.

    Raises:
        ValueError: The file is not a mapping, includes itself, or includes what is no file.
        BadInput: A strictly read file is not clean YAML.
    """
    if path in above:
        raise ValueError(f"it includes itself through {above[-1]}")
    if path not in read:
        if strict:
            code_policy.refuse_unsafe_yaml(path)
        config = load_yaml(path, resolve_func=False, recursive=False)
        includes = config.pop("include", [])
        merged: dict[str, Any] = {}
        for include in includes if isinstance(includes, list) else [includes]:
            if not isinstance(include, str):
                raise ValueError(f"its include should be a file, got {include!r:.80}")
            included = Path(os.path.normpath(path.parent / include))
            if not included.exists():
                raise ValueError(f"it includes {included}, which does not exist")
            merged |= load_task_yaml(included, read, (*above, path), strict=strict)
            merged.pop("task_list", None)
        read[path] = merged | config
    return dict(read[path])


def _rows(entry: Entry, entries: dict[str, Entry]) -> Iterator[TaskRow]:
    """The row of a name, and the rows of members that only exist inside it."""
    source = str(entry.yaml_path or "")
    if entry.kind is Kind.TAG:
        yield TaskRow(entry.name, "tag", tuple(sorted(entry.tags)))
    elif entry.kind is Kind.GROUP:
        yield from _group(entry.name, "group", entry.cfg or {}, entries, source)
    else:
        yield task_row(entry.name, entry.cfg or {}, source)


def _group(
    name: str, kind: str, config: dict[str, Any], entries: dict[str, Entry], source: str
) -> Iterator[TaskRow]:
    tasks = config.get("task")
    members = []
    for item in tasks if isinstance(tasks, list) else [tasks]:
        if isinstance(item, dict) and "group" in item:
            member = str(item["group"])
            if member not in entries:
                member = f"{name}::{member}"
                yield from _group(member, "part", item, entries, source)
        elif isinstance(item, dict):
            member = str(item.get("task"))
            if member not in entries:
                member = f"{name}::{member}"
                yield task_row(member, item, source, kind="part")
        else:
            member = str(item)
        members.append(member)
    alias = _text(config.get("group_alias"))
    yield TaskRow(name, kind, tuple(members), description=alias, source=source)


def task_row(name: str, config: dict[str, Any], source: str, kind: str = "task") -> TaskRow:
    """The row of a task, from its file alone; no function is called."""
    output_type = config.get("output_type", "generate_until")
    if "class" in config or output_type not in OUTPUT_TYPES:
        output_type = None
    config = {**config, "output_type": output_type}
    metric = _headline(config)
    chance = None
    if metric is not None:
        choices = num_choices(config.get("doc_to_choice"))
        chance = metrics.chance_level(config, metric, choices)
    refused = None
    if config.get("unsafe_code"):
        refused = "It runs code that the model writes."
    elif config.get("doc_to_image") or config.get("doc_to_audio"):
        refused = "It uses images or audio."
    shots = config.get("num_fewshot")
    return TaskRow(
        name,
        kind,
        output_type=output_type,
        num_fewshot=shots if isinstance(shots, int) else None if "class" in config else 0,
        chance=chance,
        metric=metric,
        dataset_path=_text(config.get("dataset_path")) or None,
        dataset_name=_text(config.get("dataset_name")) or None,
        files=_files(config, source),
        description=_text(config.get("description")),
        refused=refused,
        source=source,
    )


def _text(value: Any) -> str:
    return " ".join(str(value).split())[:300] if value is not None else ""


def _headline(config: dict[str, Any]) -> str | None:
    """The headline metric that the file implies; None for a task that is a Python class."""
    if "class" in config:
        return None
    listed = config.get("metric_list")
    if listed is None:
        names = DEFAULT_METRIC_REGISTRY.get(config["output_type"], [])
    else:
        entries = listed if isinstance(listed, list) else []
        names = [str(e["metric"]) for e in entries if isinstance(e, dict) and "metric" in e]
    return metrics.headline_metric(config, names)


def num_choices(doc_to_choice: Any) -> int | None:
    """The number of choices of every document; None if it depends on the document.

    Args:
        doc_to_choice: The task file's value. A list or mapping fixes the number, and so does a
            template that is a single list, like `{{[a, b]}}`.
    """
    if isinstance(doc_to_choice, list | dict):
        return len(doc_to_choice) or None
    if not isinstance(doc_to_choice, str):
        return None
    try:
        body = jinja2.Environment(autoescape=False).parse(doc_to_choice.strip()).body  # noqa: S701 - parsed only
    except jinja2.TemplateError:
        return None
    if len(body) == 1 and isinstance(body[0], jinja2.nodes.Output):
        parts = body[0].nodes
        if len(parts) == 1 and isinstance(parts[0], jinja2.nodes.List):
            return len(parts[0].items) or None
    return None


def _files(config: dict[str, Any], source: str) -> tuple[str, ...] | None:
    """The task's local files: from `data_files`, or read by a loader beside the YAML file."""
    options = config.get("dataset_kwargs")
    options = options if isinstance(options, dict) else {}
    if config.get("custom_dataset"):
        file = options.get("file")
        beside = Path(source).parent / str(file)
        return (str(beside),) if isinstance(file, str) else None
    if config.get("dataset_path") not in FILE_FORMATS:
        return None
    files = [file for file in list_data_files(options.get("data_files")) if isinstance(file, str)]
    return tuple(files) if files and not any("://" in file for file in files) else None


def list_data_files(value: Any) -> list[Any]:
    """Flatten `data_files`, which may be a name, a list, or either of them by split."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [file for item in value for file in list_data_files(item)]
    return [] if value is None else [value]


def _families() -> dict[str, str]:
    """The description of each task folder in lm-eval's README."""
    try:
        text = (LM_EVAL / "README.md").read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = re.findall(r"^\| *\[[^\]]*\]\(([^/)]+)/[^)]*\) *\| *([^|]+?) *\|", text, re.MULTILINE)
    return {folder: description for folder, description in reversed(lines)}


def _with_family(row: TaskRow, described: dict[str, str]) -> TaskRow:
    try:
        folder = Path(row.source).relative_to(LM_EVAL).parts[0]
    except (ValueError, IndexError):
        return row
    return dataclasses.replace(row, description=described.get(folder) or row.description)


def write_index(out: Path, stamp: str, folder: Path | None, on_progress: OnProgress) -> None:
    """Write one part's cache file, unless another process has just written it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(out.with_suffix(".lock")):
        try:
            cached = json.loads(out.read_text(encoding="utf-8"))
            if (cached["format"], cached["stamp"]) == (FORMAT, stamp):
                return
        except (OSError, ValueError, KeyError, TypeError):
            pass
        rows, problems = read_task_rows(folder or LM_EVAL, on_progress)
        cached = {
            "format": FORMAT,
            "stamp": stamp,
            "problems": problems,
            "rows": [_plain(row) for row in rows],
        }
        durable_files.write_text(out, json.dumps(cached, ensure_ascii=False))


def _plain(row: TaskRow) -> dict[str, Any]:
    """The row's fields without empty values, which are most of them."""
    fields = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    return {key: value for key, value in fields.items() if value not in (None, "", ())} | (
        {} if row.files is None else {"files": row.files}
    )


if __name__ == "__main__":
    import logging

    child_process.end_with_parent()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    write_index(
        Path(sys.argv[1]),
        sys.argv[2],
        Path(sys.argv[3]) if len(sys.argv) > 3 else None,
        lambda done, total: print(done, total, flush=True),
    )
