"""Reads task files as lm-eval does and caches what the list of tasks shows of them.

A process of its own, since it imports lm-eval; it says how far it is, a line at a time.

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

from explorer.lm_eval_io import metrics
from explorer.store import atomic
from explorer.tasks.index import FILE_FORMATS, FORMAT, OUTPUT_TYPES, OnProgress, TaskRow

LM_EVAL = Path(lm_eval.tasks.__file__).parent
KINDS = {Kind.TASK: "task", Kind.PY_TASK: "task", Kind.GROUP: "group", Kind.TAG: "tag"}
TELL_EVERY = 100


def rows_of(
    folder: Path, tell: OnProgress = lambda done, total: None
) -> tuple[list[TaskRow], list[str]]:
    """Every name of a folder's task files, and a sentence for each file that is no task."""
    files = list(TaskIndex._iter_yaml_files(folder))
    described = _families() if folder == LM_EVAL else {}
    entries: dict[str, Entry] = {}
    read: dict[Path, dict[str, Any]] = {}
    problems = []
    for number, path in enumerate(files):
        if number % TELL_EVERY == 0:
            tell(number, len(files))
        try:
            config = load(path, read)
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            problems.append(f"{path} is no task file: {reason}.")
            continue
        if {"task", "group", "class"} & config.keys():
            try:
                TaskIndex.process_cfg(config, path, entries)
            except Exception as error:
                problems.append(f"{path} is no task file: {error}.")
    tell(len(files), len(files))
    rows = [row for entry in entries.values() for row in _rows(entry, entries)]
    if described:
        rows = [_with_family(row, described) for row in rows]
    return rows, problems


def load(
    path: Path, read: dict[Path, dict[str, Any]], above: tuple[Path, ...] = ()
) -> dict[str, Any]:
    """As lm-eval's `load_yaml` without its functions; a file that many include is read once.

    Raises:
        ValueError: No mapping, or a file that includes itself.
    """
    if path in above:
        raise ValueError(f"it includes itself through {path}")
    if path not in read:
        found = load_yaml(path, resolve_func=False, recursive=False)
        includes = found.pop("include", [])
        merged: dict[str, Any] = {}
        for one in includes if isinstance(includes, list) else [includes]:
            included = Path(os.path.normpath(path.parent / one))
            merged |= load(included, read, (*above, path))
            merged.pop("task_list", None)
        read[path] = merged | found
    return dict(read[path])


def _rows(entry: Entry, entries: dict[str, Entry]) -> Iterator[TaskRow]:
    """The row of a name, and those of the parts that only it can ask."""
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
    said = config.get("task")
    members = []
    for item in said if isinstance(said, list) else [said]:
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
    """What a task's file says of it; its functions are not called."""
    way = config.get("output_type", "generate_until")
    if "class" in config or way not in OUTPUT_TYPES:
        way = None
    config = {**config, "output_type": way}
    metric = _headline(config)
    chance = None
    if metric is not None:
        choices = num_choices(config.get("doc_to_choice"))
        chance = metrics.chance_level(config, metric, choices)
    refused = None
    if config.get("unsafe_code"):
        refused = "It runs code that the model writes."
    elif config.get("doc_to_image") or config.get("doc_to_audio"):
        refused = "It shows pictures or sound."
    shots = config.get("num_fewshot")
    return TaskRow(
        name,
        kind,
        output_type=way,
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
    """The headline metric as far as the file tells: a task that is a Python class says nothing."""
    if "class" in config:
        return None
    listed = config.get("metric_list")
    if listed is None:
        names = DEFAULT_METRIC_REGISTRY.get(config["output_type"], [])
    else:
        entries = listed if isinstance(listed, list) else []
        names = [str(e["metric"]) for e in entries if isinstance(e, dict) and "metric" in e]
    return metrics.headline_metric(config, names)


def num_choices(said: Any) -> int | None:
    """How many choices every document has, where the file says so.

    A list or mapping has its length; a template that is one list, as in `{{[a, b]}}`, the
    list's. Anything else depends on the document.
    """
    if isinstance(said, list | dict):
        return len(said) or None
    if not isinstance(said, str):
        return None
    try:
        body = jinja2.Environment(autoescape=False).parse(said.strip()).body  # noqa: S701
    except jinja2.TemplateError:
        return None
    if len(body) == 1 and isinstance(body[0], jinja2.nodes.Output):
        parts = body[0].nodes
        if len(parts) == 1 and isinstance(parts[0], jinja2.nodes.List):
            return len(parts[0].items) or None
    return None


def _files(config: dict[str, Any], source: str) -> tuple[str, ...] | None:
    """Files that the task reads: of `data_files`, or of a loader that reads beside the YAML."""
    options = config.get("dataset_kwargs")
    options = options if isinstance(options, dict) else {}
    if config.get("custom_dataset"):
        file = options.get("file")
        beside = Path(source).parent / str(file)
        return (str(beside),) if isinstance(file, str) else None
    if config.get("dataset_path") not in FILE_FORMATS:
        return None
    found = [one for one in leaves_of(options.get("data_files")) if isinstance(one, str)]
    return tuple(found) if found and not any("://" in one for one in found) else None


def leaves_of(value: Any) -> list[Any]:
    """The files that `data_files` names, by split or not."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [leaf for one in value for leaf in leaves_of(one)]
    return [] if value is None else [value]


def _families() -> dict[str, str]:
    """What lm-eval's own README says of each folder of tasks."""
    try:
        text = (LM_EVAL / "README.md").read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = re.findall(r"^\| *\[[^\]]*\]\(([^/)]+)/[^)]*\) *\| *([^|]+?) *\|", text, re.MULTILINE)
    return {folder: said for folder, said in reversed(lines)}


def _with_family(row: TaskRow, described: dict[str, str]) -> TaskRow:
    try:
        folder = Path(row.source).relative_to(LM_EVAL).parts[0]
    except (ValueError, IndexError):
        return row
    return dataclasses.replace(row, description=described.get(folder) or row.description)


def write(out: Path, stamp: str, folder: Path | None, tell: OnProgress) -> None:
    """Make one cached part, unless another process has just made it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(out.with_suffix(".lock")):
        try:
            kept = json.loads(out.read_text(encoding="utf-8"))
            if (kept["format"], kept["stamp"]) == (FORMAT, stamp):
                return
        except (OSError, ValueError, KeyError, TypeError):
            pass
        rows, problems = rows_of(folder or LM_EVAL, tell)
        kept = {
            "format": FORMAT,
            "stamp": stamp,
            "problems": problems,
            "rows": [_plain(row) for row in rows],
        }
        atomic.write_text(out, json.dumps(kept, ensure_ascii=False))


def _plain(row: TaskRow) -> dict[str, Any]:
    """Without what is as by default, which is most of it."""
    found = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    return {key: value for key, value in found.items() if value not in (None, "", ())} | (
        {} if row.files is None else {"files": row.files}
    )


if __name__ == "__main__":
    import logging

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    write(
        Path(sys.argv[1]),
        sys.argv[2],
        Path(sys.argv[3]) if len(sys.argv) > 3 else None,
        lambda done, total: print(done, total, flush=True),
    )
