"""Loads the leaf tasks that a spec names, with their documents.

A name is a task, a group, a tag or a pattern such as `blimp_*`. It comes from
lm-evaluation-harness, the starter suite, the store's custom tasks, or the user's task folder.

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
from explorer.tasks import code_policy, dataset_cache, document_checks, index
from explorer.tasks.index_builder import list_data_files, read_task_rows
from explorer.tasks.safe_loading import SafeTaskManager


def load_tasks(names: Iterable[str], include_path: str | None = None) -> dict[str, Task]:
    """Load the leaf tasks of these names with their documents, without duplicates, in order.

    Reads all documents now, so missing data is noticed before hours of work.

    Raises:
        UnknownTask: A name matches nothing; the message lists close matches.
        BadInput: A task's documents are not on this machine, or the folder does not exist.
    """
    names = list(names)
    manager = _manager(names, include_path)
    index.refuse_left_out(names, manager.left_out, include_path)
    tasks: dict[str, Task] = {}
    for name in names:
        for match in _matching(name, manager):
            for leaf, task in _load(match, manager).items():
                _refuse_unsupported(leaf, task)
                tasks.setdefault(leaf, task)
    index.refuse_left_out(tasks, manager.left_out, include_path)
    return tasks


_checked: dict[tuple[tuple[str, ...], str | None, str], dict[str, Task]] = {}
"""The tasks that the last check has loaded."""


def load_to_check(names: Iterable[str], include_path: str | None = None) -> dict[str, Task]:
    """As `load_tasks`, which takes minutes for large suites; `take_checked` gets the same tasks."""
    tasks = load_tasks(names, include_path)
    _checked.clear()
    _checked[_state(names, include_path)] = tasks
    return tasks


def take_checked(names: Iterable[str], include_path: str | None = None) -> dict[str, Task]:
    """The tasks that were checked last if they are these, in unchanged files; else loaded now.

    They are given away once, because an evaluation changes their settings.
    """
    return _checked.pop(_state(names, include_path), None) or load_tasks(names, include_path)


def _state(
    names: Iterable[str], include_path: str | None
) -> tuple[tuple[str, ...], str | None, str]:
    return tuple(names), include_path, index.index_stamp(include_path)


def check_tasks(
    names: Iterable[str], include_path: str | None = None, *, quick: bool = False
) -> None:
    """Refuse tasks that can't run on this machine now. Reads task files but no documents.

    With `quick`, tasks are not looked at as long as the list of lm-eval's tasks, which takes 15
    seconds to build, is needed and not there.

    Raises:
        UnknownTask: A name matches nothing.
        BadInput: As `dataset_cache.refuse_missing`.
    """
    names = list(names)
    local = _local_index(include_path)
    is_complete = all(local.is_closed(name) for name in names)
    if quick and not is_complete and not index.is_current(include_path):
        return
    known = local if is_complete else index.build_index(include_path)
    tasks = [row.name for name in names for row in known.leaves(name)]
    index.refuse_left_out([*names, *tasks], known.left_out, include_path)
    dataset_cache.refuse_missing(names, known)


def _local_index(include_path: str | None) -> index.TaskIndex:
    """The index without lm-eval's own tasks, read from the files now."""
    parts = []
    for folder in index.search_folders(include_path):
        rows, problems = read_task_rows(folder)
        part = index.TaskIndex({row.name: row for row in rows}, problems)
        parts.append((folder == index.SHIPPED, part))
    return index.merge_parts(parts)


def load_task(name: str, include_path: str | None, source: str) -> Task:
    """Load one task with its documents.

    Args:
        name: The task's name.
        include_path: A folder with more tasks.
        source: The task's file; empty looks the name up in the index.

    Raises:
        UnknownTask: The name matches nothing.
        BadInput: As `load_tasks`.
    """
    if not source:
        return load_tasks([name], include_path)[name]
    if name in index.shipped_names() and not code_policy.is_shipped(Path(source)):
        raise BadInput(index.left_out_message(name, source))
    with quiet_lm_eval():
        local = SafeTaskManager(index.search_folders(include_path), lm_eval_files=())
    (task,) = _load(name, local, source).values()
    _refuse_unsupported(name, task)
    return task


@contextlib.contextmanager
def quiet_lm_eval() -> Iterator[None]:
    """Silence the log messages and progress bars of lm-eval and datasets; we show our own.

    Errors still appear. Also keeps lm-eval's bootstrap in this process, which holds a model and
    must not fork.
    """
    logger = logging.getLogger("lm_eval")
    level, bar = logger.level, lm_eval.api.task.tqdm
    bars = datasets.are_progress_bars_disabled()
    multiproc = os.environ.get("DISABLE_MULTIPROC")
    logger.setLevel(logging.ERROR)
    # The progress bar of build_all_requests can't be switched off.
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
        if multiproc is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = multiproc


def _manager(names: list[str], include_path: str | None) -> SafeTaskManager:
    """A manager that knows all the names; of lm-eval's own tasks only these, if it can.

    Indexing lm-eval's 14,000 files takes about 15 seconds, and the task list knows which define
    a name.

    Raises:
        UnknownTask: A name matches nothing.
    """
    folders = index.search_folders(include_path)
    with quiet_lm_eval():
        local = SafeTaskManager(folders, lm_eval_files=())
        if all(_is_closed(name, local) for name in names):
            return local
        known = index.read_cached(include_path)
        if known is not None:
            own = code_policy.lm_eval_folder()
            files = {path for name in names for path in known.sources(name)}
            some = SafeTaskManager(
                folders, lm_eval_files=sorted(path for path in files if path.is_relative_to(own))
            )
            leaves = [leaf.name for name in names for leaf in known.leaves(name)]
            if all(_is_closed(name, some) for name in [*names, *leaves] if name in known.rows):
                return some
        return SafeTaskManager(folders)


def _is_closed(name: str, manager: SafeTaskManager) -> bool:
    """Whether this manager knows the name and everything it refers to."""
    entry = manager.task_index.get(name)
    if entry is None:
        return False
    if entry.kind is not Kind.GROUP:
        return True
    return _are_closed((entry.cfg or {}).get("task") or [], manager)


def _are_closed(members: Any, manager: SafeTaskManager) -> bool:
    """Whether this manager knows all members of a group, or the group defines them inline."""
    for member in members if isinstance(members, list) else [members]:
        inline = isinstance(member, dict)
        name = member.get("group", member.get("task")) if inline else member
        if not isinstance(name, str):
            return False
        if inline and name not in manager.task_index and name not in index.shipped_names():
            # lm-eval treats it as a separate task or group.
            closed = "group" not in member or _are_closed(member.get("task") or [], manager)
        else:
            closed = _is_closed(name, manager)
        if not closed:
            return False
    return True


def _matching(name: str, manager: SafeTaskManager) -> list[str]:
    """The known names that match a name or pattern.

    Raises:
        UnknownTask: Nothing matches.
    """
    if name in manager.task_index:
        return [name]
    matches: list[str] = []
    if any(sign in name for sign in "*?["):
        matches = fnmatch.filter(manager.all_subtasks, name)
    if not matches:
        # The user may have meant a file that is broken.
        problems = [
            problem
            for folder in manager.include_path
            for problem in read_task_rows(Path(folder))[1]
        ]
        raise index.unknown_task_error(name, manager.all_tasks, problems)
    return matches


def _load(name: str, manager: SafeTaskManager, source: str = "") -> dict[str, Task]:
    """The leaf tasks of a known name, or the task in a file.

    Raises:
        BadInput: The task file is invalid or its documents can't be read; the message says which.
    """
    try:
        with quiet_lm_eval():
            leaves: dict[str, Task] = manager.load([source or name])["tasks"]
    except ExplorerError:
        raise
    except Exception as error:
        task = _task_being_loaded(error)
        reason = _why_no_documents(task, name, error) if task else _why_no_task(name, error)
        raise BadInput(reason) from error
    for task in leaves.values():
        # A path on this machine, which must not become part of the task's identity.
        if isinstance(task.config.metadata, dict):
            task.config.metadata.pop("config_source", None)
    return leaves


def _task_being_loaded(error: Exception) -> ConfigurableTask | None:
    """The task whose download failed; lm-eval's error names neither the task nor its group."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if frame.f_code.co_name == "download" and isinstance(owner, ConfigurableTask):
            return owner
    return None


def _why_no_documents(task: ConfigurableTask, requested: str, error: Exception) -> str:
    config = task.config
    name = config.task or requested
    files = [str(file) for file in list_data_files((config.dataset_kwargs or {}).get("data_files"))]
    remote = [file for file in files if "://" in file]
    if files and not remote:
        where = ""
        if missing := [file for file in files if not Path(file).exists()]:
            where = (
                f" There is no file {missing[0]}. Relative paths in a task's data_files start at "
                f"the working directory, which is {Path.cwd()}."
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
    if not data:
        return (
            f"The documents of the task {name}, which has no dataset_path, could not be made: "
            f"{_reason(error)}. Correct the name or the file."
        )
    if variable := dataset_cache.offline_variable():
        return dataset_cache.missing_message([name], [data], variable, name)
    return f"The task {name} needs the dataset {data}, which could not be loaded: {_reason(error)}."


def _reason(error: BaseException) -> str:
    """The first line of an error; for a DatasetGenerationError, that of its cause."""
    if error.__cause__ is not None and type(error).__name__ == "DatasetGenerationError":
        return _reason(error.__cause__)
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.rstrip(".")


def _why_no_task(name: str, error: Exception) -> str:
    """What is wrong with a task file; lm-eval's own errors name neither the task nor the key."""
    key = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if isinstance(error, TypeError) and key:
        known = [field.name for field in dataclasses.fields(TaskConfig)]
        close = difflib.get_close_matches(key[1], known, n=3) or known
        return (
            f"The file of the task {name} has the key {key[1]!r}, which lm-eval does not know; "
            f"it knows {', '.join(close)}. Correct the key or put it under metadata."
        )
    if isinstance(error, KeyError) and error.args == (None,):
        metric_names = [
            f.f_locals["metric_name"]
            for f, _ in traceback.walk_tb(error.__traceback__)
            if "metric_name" in f.f_locals
        ]
        metric = str(metric_names[-1]) if metric_names else "None"
        return code_policy.unknown_metric(name, metric, list(metric_registry))
    if isinstance(error, ModuleNotFoundError):
        return (
            f"The task {name} needs the Python package {error.name}, which is not installed: "
            f"pip install {error.name}"
        )
    if twice := re.match(r"Include cycle at (.*)", str(error)):
        return (
            f"The file of the task {name} includes {twice[1]} in two ways, which lm-eval takes for "
            "a cycle. Include it once."
        )
    if isinstance(error, KeyError) and (splits := _splits_without(error)):
        return (
            f"The task {name} reads the split {error.args[0]!r}, but its data has "
            f"{', '.join(splits)}. Correct the split in its file."
        )
    if problem := _first_document_problem(error):
        return f"The task {name} can't be evaluated: {problem}. Correct its documents or its file."
    return (
        f"lm-eval could not load the task {name} from its file: {type(error).__name__}: "
        f"{_reason(error)}. Correct the file, or remove the task from the list."
    )


def _splits_without(error: KeyError) -> list[str]:
    """The splits of a task's data if it lacks the one whose absence is this error; else empty."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        task = frame.f_locals.get("self")
        data = getattr(task, "dataset", None) if isinstance(task, ConfigurableTask) else None
        if isinstance(data, dict) and error.args[0] not in data:
            return [str(split) for split in data]
    return []


def _first_document_problem(error: Exception) -> str:
    """What is wrong with the first document, on which lm-eval tries out a task; or empty."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        task, found = frame.f_locals.get("self"), frame.f_locals
        if frame.f_code.co_name == "__init__" and isinstance(task, ConfigurableTask):
            if "test_doc" in found:
                problem = document_checks.document_problem(task, found["test_doc"], strict=True)
                return f"document 0 {problem}" if problem else ""
            if hasattr(task, "task_docs") and not len(task.task_docs):
                return "it has no documents"
    return ""


def _refuse_unsupported(name: str, task: Task) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise BadInput(
            f"The task {name} runs code that the model writes, which the explorer does not "
            "support. Remove it from the list."
        )
    if getattr(task, "MULTIMODAL", False):
        raise BadInput(f"The task {name} uses images or audio; choose text-only tasks.")
    metrics.check_headline(
        name, {"metadata": task_metadata(task)}, list(getattr(task, "_metric_fn_list", ()))
    )


def task_metadata(task: Task) -> dict[str, Any]:
    """The metadata in a task's file: version, and in our own headline_metric and chance."""
    metadata = task.config.metadata
    return metadata if isinstance(metadata, dict) else {}
