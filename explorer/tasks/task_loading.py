"""The leaf tasks behind the names of a spec, with their documents.

A name is a task, a group, a tag or a pattern such as `blimp_*` of lm-evaluation-harness,
of our own folder `tasks/`, or of a folder that the user gives.

    explorer tasks fetch NAME
"""

import contextlib
import dataclasses
import difflib
import fnmatch
import logging
import os
import re
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import lm_eval.api.task
from lm_eval.api.registry import metric_registry
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.config.task import TaskConfig
from lm_eval.tasks._index import Kind

from explorer.errors import BadInput, ExplorerError
from explorer.lm_eval_io import metrics
from explorer.tasks import code_policy, dataset_cache, index
from explorer.tasks.index_builder import leaves_of, rows_of
from explorer.tasks.safe_loading import SafeTaskManager


def load_tasks(names: Iterable[str], include_path: str | None = None) -> dict[str, Task]:
    """The leaf tasks of these names with their documents, each once, in the order asked.

    All documents are read here, so that missing data is found before hours of work.

    Raises:
        UnknownTask: A name means nothing; the message names close ones.
        BadInput: A task's documents are not on this machine, or the folder does not exist.
    """
    names = list(names)
    manager = _manager(names, include_path)
    index.refuse_left_out(names, manager.left_out, include_path)
    tasks: dict[str, Task] = {}
    for name in names:
        for found in _matching(name, manager):
            for leaf, task in _load_one(found, manager).items():
                _refuse_what_we_cannot_run(leaf, task)
                tasks.setdefault(leaf, task)
    index.refuse_left_out(tasks, manager.left_out, include_path)
    return tasks


def check_tasks(names: Iterable[str], include_path: str | None = None) -> None:
    """Refuse tasks that cannot be asked on this machine now; reads files, loads no documents.

    Raises:
        UnknownTask: A name means nothing.
        BadInput: As `here.refuse_missing`.
    """
    names = list(names)
    local = _local(include_path)
    closed = all(local.is_closed(name) for name in names)
    known = local if closed else index.build_index(include_path)
    tasks = [row.name for name in names for row in known.leaves(name)]
    index.refuse_left_out([*names, *tasks], known.left_out, include_path)
    dataset_cache.refuse_missing(names, known)


def _local(include_path: str | None) -> index.TaskIndex:
    """The list without lm-eval's own tasks, read now."""
    parts = []
    for folder in index.folders(include_path):
        rows, problems = rows_of(folder)
        part = index.TaskIndex({row.name: row for row in rows}, problems)
        parts.append((folder == index.SHIPPED, part))
    return index.merge_parts(parts)


def load_task(name: str, include_path: str | None, source: str) -> Task:
    """One task with its documents, read from its own file where that is given.

    Raises:
        UnknownTask: The name means nothing.
        BadInput: As `load`.
    """
    if not source:
        return load_tasks([name], include_path)[name]
    if name in index.shipped_names() and not code_policy.is_shipped(Path(source)):
        raise BadInput(index.left_out_message(name, source))
    with quiet():
        local = SafeTaskManager(index.folders(include_path), include_defaults=False)
    (task,) = _load_one(name, local, source).values()
    _refuse_what_we_cannot_run(name, task)
    return task


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """lm-eval and datasets without their notes and bars: our own progress says what goes on.

    Errors still come through. Bootstrapped standard errors stay in this process, which
    holds a model and must not be forked.
    """
    logger = logging.getLogger("lm_eval")
    level, bar = logger.level, lm_eval.api.task.tqdm
    bars = datasets.are_progress_bars_disabled()
    alone = os.environ.get("DISABLE_MULTIPROC")
    logger.setLevel(logging.ERROR)
    # The bar of build_all_requests has no switch of its own.
    lm_eval.api.task.tqdm = lambda documents, **options: documents
    datasets.disable_progress_bars()
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        yield
    finally:
        logger.setLevel(level)
        lm_eval.api.task.tqdm = bar
        if not bars:
            datasets.enable_progress_bars()
        if alone is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = alone


def _manager(names: list[str], include_path: str | None) -> SafeTaskManager:
    """An index that knows all the names: the local folders' when that is enough.

    lm-eval's own 14,000 files take a quarter of a minute to index.
    """
    folders = index.folders(include_path)
    with quiet():
        local = SafeTaskManager(folders, include_defaults=False)
        if all(_is_closed(name, local) for name in names):
            return local
        return SafeTaskManager(folders, include_defaults=True)


def _is_closed(name: str, manager: SafeTaskManager) -> bool:
    """Whether the name and all it refers to lie in this index."""
    entry = manager.task_index.get(name)
    if entry is None:
        return False
    if entry.kind is not Kind.GROUP:
        return True
    return _are_closed((entry.cfg or {}).get("task") or [], manager)


def _are_closed(members: Any, manager: SafeTaskManager) -> bool:
    """Whether a group's members lie in this index, or are defined by the group itself."""
    for member in members if isinstance(members, list) else [members]:
        inline = isinstance(member, dict)
        name = member.get("group", member.get("task")) if inline else member
        if not isinstance(name, str):
            return False
        if inline and name not in manager.task_index and name not in index.shipped_names():
            # lm-eval reads it as a task or group of its own.
            closed = "group" not in member or _are_closed(member.get("task") or [], manager)
        else:
            closed = _is_closed(name, manager)
        if not closed:
            return False
    return True


def _matching(name: str, manager: SafeTaskManager) -> list[str]:
    """The names in the index that a name or pattern means.

    Raises:
        UnknownTask: None.
    """
    if name in manager.task_index:
        return [name]
    found: list[str] = []
    if any(sign in name for sign in "*?["):
        found = fnmatch.filter(manager.all_subtasks, name)
    if not found:
        # A file that is no task may be the one that was meant.
        broken = [one for folder in manager.include_path for one in rows_of(Path(folder))[1]]
        raise index.unknown_task(name, manager.all_tasks, broken)
    return found


def _load_one(name: str, manager: SafeTaskManager, source: str = "") -> dict[str, Task]:
    """The leaf tasks of one name of the index, or the one task of a file.

    Raises:
        BadInput: The file is no task, or its documents could not be read; the message names both.
    """
    try:
        with quiet():
            leaves: dict[str, Task] = manager.load([source or name])["tasks"]
    except ExplorerError:
        raise
    except Exception as error:
        task = _task_being_loaded(error)
        said = _why_no_documents(task, name, error) if task else _why_no_task(name, error)
        raise BadInput(said) from error
    for task in leaves.values():
        # The path of a file on this machine: no part of what the task is.
        if isinstance(task.config.metadata, dict):
            task.config.metadata.pop("config_source", None)
    return leaves


def _task_being_loaded(error: Exception) -> ConfigurableTask | None:
    """The task whose download raised; lm-eval's own error names neither it nor its group."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if frame.f_code.co_name == "download" and isinstance(owner, ConfigurableTask):
            return owner
    return None


def _why_no_documents(task: ConfigurableTask, asked: str, error: Exception) -> str:
    config = task.config
    name = config.task or asked
    files = [str(file) for file in leaves_of((config.dataset_kwargs or {}).get("data_files"))]
    remote = [file for file in files if "://" in file]
    if files and not remote:
        where = ""
        if missing := [file for file in files if not Path(file).exists()]:
            where = (
                f" There is no file {missing[0]}. A relative path in a task's data_files counts "
                f"from the working directory, which is {Path.cwd()}."
            )
        return (
            f"The documents of the task {name} could not be read from {', '.join(files[:3])}: "
            f"{_reason(error)}.{where}"
        )
    parts = (
        getattr(task, "DATASET_PATH", None) or config.dataset_path,
        getattr(task, "DATASET_NAME", None) or config.dataset_name,
    )
    data = remote[0] if remote else " ".join(part for part in parts if part)
    if variable := dataset_cache.offline_variable():
        return dataset_cache.missing_message([name], [data], variable, name)
    return f"The task {name} needs the data set {data}, and it could not be had: {_reason(error)}."


def _reason(error: BaseException) -> str:
    """The first line of an error; of one that only says that there was an error, of its cause."""
    if error.__cause__ is not None and type(error).__name__ == "DatasetGenerationError":
        return _reason(error.__cause__)
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.rstrip(".")


def _why_no_task(name: str, error: Exception) -> str:
    """What is wrong with a task's file; lm-eval's own errors name neither task nor key."""
    key = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if isinstance(error, TypeError) and key:
        known = [field.name for field in dataclasses.fields(TaskConfig)]
        close = difflib.get_close_matches(key[1], known, n=3) or known
        return (
            f"The file of the task {name} has the key {key[1]!r}, which lm-eval does not know; "
            f"it knows {', '.join(close)}. Correct the key or put it under metadata."
        )
    if isinstance(error, KeyError) and error.args == (None,):
        metrics = [
            f.f_locals["metric_name"]
            for f, _ in traceback.walk_tb(error.__traceback__)
            if "metric_name" in f.f_locals
        ]
        asked = str(metrics[-1]) if metrics else "None"
        return code_policy.unknown_metric(name, asked, list(metric_registry))
    if isinstance(error, ModuleNotFoundError):
        return (
            f"The task {name} needs the Python package {error.name}, which is not installed: "
            f"pip install {error.name}"
        )
    return (
        f"lm-eval could not make the task {name} of its file: {type(error).__name__}: "
        f"{_reason(error)}. Correct the file, or leave the task out."
    )


def _refuse_what_we_cannot_run(name: str, task: Task) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise BadInput(
            f"The task {name} runs code that the model writes, which the explorer does not do. "
            "Leave it out."
        )
    if getattr(task, "MULTIMODAL", False):
        raise BadInput(f"The task {name} shows pictures or sound; choose tasks of text only.")
    metrics.check_headline(
        name, {"metadata": metadata(task)}, list(getattr(task, "_metric_fn_list", ()))
    )


def metadata(task: Task) -> dict[str, Any]:
    """What a task file says about itself: version, and for ours headline_metric and chance."""
    found = task.config.metadata
    return found if isinstance(found, dict) else {}
