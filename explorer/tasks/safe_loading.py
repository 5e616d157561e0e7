"""Loads lm-eval task files so that only allowed code runs, and renders templates in a sandbox.

`SafeTaskManager` differs from lm-eval's manager in three ways. It checks every task or group file
before loading it (`explorer.tasks.code_policy`). Other folders can't redefine our names or
lm-eval's. A group can't turn an included task into a different one. Importing this module
replaces lm-eval's Jinja environment with the sandbox for the whole process.

    SafeTaskManager([Path("my-tasks")]).load(["my_task"])
"""

import contextlib
import functools
import importlib.machinery
import importlib.util
import json
import re
import sys
import types
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import lm_eval.api.metrics  # registers lm-eval's own metrics
import lm_eval.tasks._yaml_loader as yaml_loader
import lm_eval.utils
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from lm_eval.api.registry import metric_registry
from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._index import Entry, Kind, TaskIndex

from explorer import paths
from explorer.consent import trust
from explorer.errors import BadInput
from explorer.tasks import code_policy, index
from explorer.tasks.index_builder import read_entries

PLAIN_MODULES = frozenset(
    {
        "builtins",
        "collections",
        "datetime",
        "decimal",
        "fractions",
        "uuid",
        "markupsafe",
        "jinja2.runtime",
        "jinja2.utils",
    }
)
"""Modules that define the types of values in documents and templates."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, further restricted to plain values.

    A decoded image or array has methods that write files.
    """

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may read this attribute."""
        plain = type(obj).__module__ in PLAIN_MODULES
        return plain and super().is_safe_attribute(obj, attr, value)


def _with_lm_evals_settings(environment: jinja2.Environment) -> jinja2.Environment:
    environment.filters["regex_replace"] = lm_eval.utils.regex_replace
    return environment


_SETTINGS: dict[str, Any] = {
    "loader": jinja2.BaseLoader(),
    "undefined": jinja2.StrictUndefined,
    "keep_trailing_newline": True,
}
SANDBOX = _with_lm_evals_settings(Sandbox(**_SETTINGS))
_LOAD_MODULE = yaml_loader._load_module_with_cache
PLAIN = lm_eval.utils.env
"""lm-eval's own environment."""
_FILES: dict[str, Path] = {}
"""The file of each loaded template, for error messages."""
_ALLOWED: set[str] = set()
"""Templates that use Python attributes, from files whose code may run."""


@functools.lru_cache(maxsize=1024)
def _compiled(template: str) -> jinja2.Template:
    environment: jinja2.Environment = PLAIN if template in _ALLOWED else SANDBOX
    return environment.from_string(template)


def apply_template(template: str, doc: dict[str, Any]) -> str:
    """Render a task's template for a document as lm-eval does, but in the sandbox.

    Raises:
        BadInput: The template uses something that the sandbox forbids.
    """
    try:
        return _compiled(template).render(**doc)
    except SecurityError as error:
        where = _FILES.get(template)
        raise BadInput(
            f"A template in {where or 'a task file'} reaches into Python, which is not allowed: "
            f"{str(error).rstrip('.')}. Use a !function instead, or remove it."
        ) from error


# lm-eval looks up both names in its module on each call.
lm_eval.utils.env = SANDBOX
lm_eval.utils.apply_template = apply_template


class CheckedTaskFactory(TaskFactory):
    """Builds tasks, and checks each file just before it is loaded."""

    def __init__(self) -> None:
        """Create a factory without metadata from the caller."""
        super().__init__(meta=None)
        self._groups: list[Path] = []
        """The files of the groups being built, outermost first."""

    def build(
        self, entry: Entry, *, overrides: dict[str, Any] | None = None, registry: dict[str, Entry]
    ) -> Any:
        """Build a task, a group, or the tasks of a tag.

        Raises:
            BadInput: Its file would run code that is not allowed.
        """
        if entry.kind is not Kind.GROUP or entry.yaml_path is None:
            return super().build(entry, overrides=overrides, registry=registry)
        self._refuse_changes(entry, overrides)
        self._groups.append(entry.yaml_path)
        try:
            return super().build(entry, overrides=overrides, registry=registry)
        finally:
            self._groups.pop()

    def _load_full_config(
        self, entry: Entry, overrides: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        self._refuse_changes(entry, overrides)
        if entry.yaml_path is not None:
            code_policy.refuse_code(entry.yaml_path, known_metrics=list(metric_registry))
            _remember(entry.yaml_path)
        with _imports_checked():
            loaded: dict[str, Any] = super()._load_full_config(entry, overrides)
        return _by_fields(loaded, entry.yaml_path)

    def _refuse_changes(self, entry: Entry, overrides: dict[str, Any] | None) -> None:
        # Overrides from outer groups were checked when this group was built.
        if overrides and self._groups and entry.yaml_path:
            code_policy.refuse_changes(overrides, self._groups[-1], entry.name, entry.yaml_path)


def _by_fields(config: dict[str, Any], path: Path | None) -> dict[str, Any]:
    """Name the fields of a custom task's documents where an earlier version wrote templates.

    lm-eval evaluates a rendered template that looks like a list or a number as Python. Tasks whose
    texts don't look so stay as they are, and so do their stored answers.
    """
    file = (config.get("dataset_kwargs") or {}).get("file")
    if path is None or path.parent.resolve() != paths.own_tasks().resolve() or not file:
        return config
    fields = {
        key: str(config[key])[2:-2]
        for key in ("doc_to_text", "doc_to_target")
        if config.get(key) in ("{{question}}", "{{prompt}}", "{{target}}")
    }
    if not fields:
        return config
    with (path.parent / str(file)).open(encoding="utf-8") as lines:
        texts = [json.loads(line)[field] for line in lines for field in fields.values()]
    misread = any(re.fullmatch(r"\d+|\[.*\]", text, re.DOTALL) for text in texts)
    return config | fields if misread else config


def _remember(path: Path) -> None:
    """Remember a file's templates, for error messages and for the exemption from the sandbox."""
    if code_policy.is_shipped(path):
        return
    for template, file in code_policy.jinja_templates(path).items():
        _FILES[template] = file
        # In other files refuse_code has already rejected such templates.
        if code_policy.python_attribute(template) and code_policy.may_run_code(file):
            _ALLOWED.add(template)


@contextlib.contextmanager
def _imports_checked() -> Iterator[None]:
    """Check the module of each `!function` again at the moment of import."""
    original = yaml_loader._import_func_in_yml

    def checked(function: str, folder: Path) -> Any:
        module = code_policy.module_file(function, folder)
        if (
            module is not None
            and function == code_policy.LOADER
            and code_policy.is_our_loader(module)
        ):
            return _our_loader(module)
        blamed = folder if module is None else code_policy.not_allowed_for(module)
        if blamed is not None:
            what = f"the function {function} of {module}"
            raise code_policy.code_refusal(what, folder, folder, blamed)
        return original(function, folder)

    yaml_loader._import_func_in_yml = checked
    yaml_loader._load_module_with_cache = _load_allowed
    try:
        yield
    finally:
        yaml_loader._import_func_in_yml = original
        yaml_loader._load_module_with_cache = _LOAD_MODULE


class _AllowedSource(importlib.machinery.SourceFileLoader):
    """Runs a module from its source: a compiled copy beside it may be of other code."""

    def get_code(self, fullname: str) -> types.CodeType:
        """The code of the source as it is now."""
        path = self.get_filename(fullname)
        code: types.CodeType = self.source_to_code(self.get_data(path), path)
        return code


def _load_allowed(path: Path) -> Any:
    """A module beside a task file, which was checked; as lm-eval's own function otherwise."""
    if code_policy.is_shipped(path):
        return _LOAD_MODULE(path)
    name, digest = str(path.with_suffix("")), trust.CodeFile.of(path).sha256
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__sha256__", None) == digest:
        return loaded
    loader = _AllowedSource(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None, "a file with a loader has one"
    assert spec.loader is not None, "given"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.__dict__["__sha256__"] = digest
    sys.modules[name] = module
    return module


def _our_loader(copy: Path) -> Any:
    """Our loader, pointed at the documents beside the copy. The copy itself never runs."""
    spec = importlib.util.spec_from_file_location("own_task_data", code_policy.SHIPPED / "data.py")
    assert spec is not None, "data.py ships with the explorer"
    assert spec.loader is not None, "data.py is a Python file"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.__file__ = str(copy)
    return module.load


class SafeTaskManager(TaskManager):
    """lm-eval's task manager for its own tasks, the starter suite and other folders."""

    def __init__(
        self, folders: Sequence[Path], *, lm_eval_files: Collection[Path] | None = None
    ) -> None:
        """Read the names in task files, without running anything.

        Args:
            folders: Other folders. A later folder overrides an earlier one; none overrides the
                starter suite or lm-eval.
            lm_eval_files: Which of lm-eval's own task files; None reads all of them, which takes
                about 15 seconds.
        """
        super().__init__(include_path=None, include_defaults=False)
        self.left_out: dict[str, str] = {}
        """Reserved names (ours and lm-eval's) that another file redefines, with that file."""
        self.include_path = [str(folder) for folder in folders]
        self._factory = CheckedTaskFactory()
        entries: dict[str, Entry] = {}
        if lm_eval_files is None:
            entries = TaskIndex.build([code_policy.lm_eval_folder()])
        for path in lm_eval_files or ():
            TaskIndex.process_cfg(yaml_loader.load_yaml(path, resolve_func=False), path, entries)
        entries |= TaskIndex.build([code_policy.SHIPPED])
        others = [folder for folder in folders if folder.resolve() != code_policy.SHIPPED.resolve()]
        for folder in others:
            # Not lm-eval's TaskIndex, which skips damaged files and second names without a word.
            defined, _ = read_entries(folder)
            names = index.shipped_names() if defined else {}
            for name, entry in defined.items():
                if name not in names or (
                    entry.yaml_path and code_policy.is_shipped(entry.yaml_path)
                ):
                    entries[name] = entry
                else:
                    self.left_out[name] = str(entry.yaml_path or "")
        self._index = entries
        kinds = (Kind.TASK, Kind.PY_TASK)
        self._all_tasks = sorted(entries)
        self._all_subtasks = sorted(name for name in entries if entries[name].kind in kinds)
        self._all_groups = sorted(name for name in entries if entries[name].kind is Kind.GROUP)
        self._all_tags = sorted(name for name in entries if entries[name].kind is Kind.TAG)
