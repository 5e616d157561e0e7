"""Decides whether a task file may run Python code, before any of it runs.

Tasks that ship with the explorer or with lm-eval may. Any other file may only hold data and
plain templates, unless the user allowed its code as it is now (`consent.trust`). This module reads
files as data: it imports no function, renders no template and opens no dataset.

    from explorer.tasks import code_policy
    code_policy.refuse_code(Path("my-tasks/quiz.yaml"))

Source: github.com/EleutherAI/lm-evaluation-harness 0.4.13, `tasks/_yaml_loader.py`,
`api/task.py`; github.com/huggingface/datasets 5.2, `load.py`.
"""

import dataclasses
import difflib
import functools
import hashlib
import importlib.util
import os
import sysconfig
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import jinja2
import jinja2.nodes
import yaml

import explorer
from explorer.consent import trust
from explorer.errors import BadInput, CodeNotAllowed, reason_of
from explorer.files import yaml_files

SHIPPED = Path(str(explorer.__file__)).parent / "tasks" / "starter"
"""The folder of the starter suite."""
LOADER = "data.load"
"""The function with which a custom task loads its documents, from our module copied beside it."""
EARLIER_LOADERS = frozenset(
    {
        "6b2638977f7914d6f78a708eb7dc095a95ec3c798bcbb937ba260de7f736feaa",
        "da5c5629b5fbd62894b8298eac2c814c20a95fd64ad71f5899d760c1b1da826a",
    }
)
"""SHA-256 of earlier versions of data.py. Before changing that file, add its current hash."""
DATA_FORMATS = frozenset({"json", "csv", "parquet", "arrow", "text", "xml"})
"""Builders of `datasets` that read files without running code."""
OTHER_FORMATS = frozenset(
    {
        "pandas",
        "sql",
        "webdataset",
        "cache",
        "generator",
        "spark",
        "eval",
        "harbor",
        "hdf5",
        "iceberg",
        "lance",
        "vortex",
    }
)
"""Builders of `datasets` that unpickle, run queries, or open files that a file names."""
DATA_SUFFIXES = frozenset(
    {
        ".json",
        ".jsonl",
        ".ndjson",
        ".csv",
        ".tsv",
        ".txt",
        ".parquet",
        ".arrow",
        ".xml",
        ".md",
        ".gz",
        ".zst",
        ".lock",
    }
)
"""Suffixes of the files that a local dataset may contain."""
CODE_SUFFIXES = frozenset({".py", ".pkl", ".pickle", ".pt", ".pth", ".joblib", ".tar"})
DATASET_OPTIONS = frozenset(
    {
        "data_files",
        "data_dir",
        "split",
        "name",
        "revision",
        "field",
        "features",
        "columns",
        "file",
        "sep",
        "delimiter",
        "header",
        "names",
        "column_names",
        "index_col",
        "usecols",
        "dtype",
        "quotechar",
        "quoting",
        "doublequote",
        "escapechar",
        "skiprows",
        "nrows",
        "encoding",
        "encoding_errors",
        "keep_linebreaks",
        "newline",
        "sample_by",
        "chunksize",
        "streaming",
        "verification_mode",
        "download_mode",
        "trust_remote_code",
    }
)
"""Keys of `dataset_kwargs` that only select and parse data."""
WEB = ("http://", "https://", "hf://")
OWN_PROMPTS = frozenset({"qa-basic"})
"""Prompt collections inside lm-eval; others come from files and packages."""
HARMLESS = frozenset({"task_alias", "group", "group_alias", "num_fewshot"})
"""Keys of a task that a group may override without turning it into another task."""


class FunctionName(str):
    """The value of a `!function` tag in a task file: module.name."""


@dataclasses.dataclass(frozen=True)
class _TaskFile:
    """One task file, read as data."""

    config: dict[str, Any]
    functions: tuple[FunctionName, ...]
    """Every `!function` in the file, duplicate keys included: lm-eval imports both."""


def refuse_unsafe_yaml(path: Path) -> None:
    """Refuse a task file that lm-eval's parser would misread, or that would end the process.

    Raises:
        BadInput: It can't be read, or as `yaml_files.refuse_unsafe`.
    """
    try:
        if path.exists() and not path.is_file():
            raise BadInput(f"{path} should be a task file, but is a folder or a device.")
        content = path.read_bytes()
    except (OSError, RuntimeError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else "a loop of links"
        raise BadInput(f"{path} can't be read: {reason}.") from error
    yaml_files.refuse_unsafe(content, str(path))


def _parse(path: Path) -> _TaskFile:
    """Read a task file with lm-eval's YAML parser, but import nothing.

    Raises:
        BadInput: The file can't be read, is not a mapping, or has a key twice, of which lm-eval
            would take the last without a word.
    """
    if not is_shipped(path):
        refuse_unsafe_yaml(path)
    functions: list[FunctionName] = []

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # C if it is there
        pass

    def function(loader: Any, node: Any) -> FunctionName:
        functions.append(FunctionName(loader.construct_scalar(node)))
        return functions[-1]

    Loader.add_constructor("!function", function)
    try:
        config = yaml.load(path.read_bytes(), Loader=Loader)  # noqa: S506 - a safe loader
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{path} is not a task file: {reason}.") from error
    if not isinstance(config, dict):
        raise BadInput(f"{path} is not a task file: it should be a mapping of keys.")
    return _TaskFile(config, tuple(functions))


@functools.cache
def lm_eval_folder() -> Path:
    """The folder of lm-eval's own tasks, found without importing lm-eval."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None, "lm-eval is installed with us"
    return Path(str(spec.origin)).resolve().parent / "tasks"


def is_shipped(source: Path) -> bool:
    """Whether a file ships with us or with lm-eval, after resolving symbolic links."""
    resolved = source.resolve()
    return any(resolved.is_relative_to(folder) for folder in (SHIPPED.resolve(), lm_eval_folder()))


def may_run_code(source: Path) -> bool:
    """Whether Python code in this file may run.

    It may if the file ships with us or with lm-eval, or if the user allowed it and it has not
    changed since. Symbolic links are resolved first, so a link in a listed folder does not allow
    its target.

    Raises:
        BadInput: The configuration can't be read.
    """
    return is_shipped(source) or trust.allowed(source)


def refuse_code(source: Path, *, known_metrics: Collection[str] | None = None) -> None:
    """Refuse a task file that would run Python code without permission.

    Args:
        source: A task or group file.
        known_metrics: lm-eval's own metrics; it would load any other as a script. None skips
            the check of metrics, for callers that have not imported lm-eval and load nothing.

    Raises:
        BadInput: The file would run code; the message names it, and says how to allow it.
    """
    if is_shipped(source):
        return
    files = _files(source)
    foreign = [path for path in files if not may_run_code(path)]
    for path, file in files.items():
        for function in file.functions:
            module = module_file(function, path.parent)
            if module is None:
                raise BadInput(
                    f"{path} names the function {function}, but its module does not exist."
                )
            what = f"the function {function} of {module}"
            if foreign and not (function == LOADER and is_our_loader(module)):
                blamed = path if path in foreign else foreign[0]
                raise code_refusal(what, blamed, source, blamed)
            if not foreign and (other := not_allowed_for(module)):
                raise code_refusal(what, path, source, other)
    for path in foreign:
        config = files[path].config
        for what in _values(config):
            raise code_refusal(what, path, source, path)
        for metric in _metrics(config) if known_metrics else ():
            if known_metrics and metric not in known_metrics:
                name = str(config.get("task", path))
                raise trust.refusal(
                    f"{unknown_metric(name, metric, known_metrics)} Metrics of the evaluate "
                    "library are scripts.",
                    source,
                    path,
                )
    for path, file in files.items() if not foreign else ():
        for code in _local_code(file.config):
            if not may_run_code(code):
                raise code_refusal(f"the dataset {code}, which is code", path, source, code)


def code_refusal(what: str, path: Path, source: Path, blamed: Path) -> CodeNotAllowed:
    """The error for code that may not run: what it is, where, and how to allow it.

    Args:
        what: The code, a noun phrase.
        path: The file that has it.
        source: The task file that was asked for; `explorer trust` shows all that it runs.
        blamed: The file that is not allowed, which may be one that the task file names.
    """
    return trust.refusal(
        f"The task file {path} would run Python code: it has {what}.", source, blamed
    )


def code_files(source: Path) -> list[Path]:
    """The files whose code a task file runs: itself, what it includes, and modules.

    Raises:
        BadInput: A file can't be read.
    """
    found: dict[Path, None] = {}
    for path, file in _files(source).items():
        found[path] = None
        for function in file.functions:
            module = module_file(function, path.parent)
            if module and not is_our_loader(module) and not is_installed(module):
                found |= dict.fromkeys(_importable_with(module))
        found |= dict.fromkeys(path.resolve() for path in _local_code(file.config))
    return [path for path in found if not is_shipped(path)]


def _importable_with(module: Path) -> list[Path]:
    """A module, and the modules beside it, which it may import."""
    if module.is_dir():
        return sorted(module.rglob("*.py"))
    return [module, *(path for path in sorted(module.parent.glob("*.py")) if path != module)]


def _local_code(config: dict[str, Any]) -> Iterator[Path]:
    """The files of this machine that a task file's data would run: scripts and pickles."""
    for key, value in _walk(config):
        if key == "dataset_path" and isinstance(value, str) and value not in DATA_FORMATS:
            path = Path(value)
            inside = sorted(path.rglob("*")) if path.is_dir() else [path]
            yield from (file for file in inside if file.is_file() and _runs(file))
        elif key == "use_prompt" and isinstance(value, str):
            path = Path(value.rpartition(":")[0])
            yield from [path] if path.is_file() else []
        elif key in ("data_files", "data_dir"):
            named = (Path(text) for text in _texts(value))
            yield from (file for file in named if _runs(file) and file.is_file())


def unknown_metric(task: str, metric: str, known: Collection[str]) -> str:
    """The message for a metric that lm-eval does not have, with close matches."""
    close = difflib.get_close_matches(metric, known) or sorted(known)
    return (
        f"The file of the task {task} names the metric {metric!r}, which lm-eval does not "
        f"know; it knows {', '.join(close)}. Correct its metric_list."
    )


def refuse_changes(config: Any, group_file: Path, task: str, task_file: Path) -> None:
    """Refuse a group that changes what a trusted task does while keeping its name.

    Args:
        config: What the group sets for the task.
        group_file: The file that sets it.
        task: The task's name.
        task_file: Where the task is defined.

    Raises:
        BadInput: The group changes the task, and only the task's file may run code.
    """
    changed = sorted(
        str(key)
        for key, value in (config or {}).items()
        if key not in HARMLESS and not (key == "task" and value == task)
    )
    if changed and may_run_code(task_file) and not may_run_code(group_file):
        raise trust.refusal(
            f"The group in {group_file} changes {', '.join(changed)} of the task {task}, which is "
            "not its own.",
            group_file,
            group_file,
        )


def is_our_loader(module: Path) -> bool:
    """Whether a module beside a task is a copy of our loader, of this or an earlier version."""
    try:
        content = module.read_bytes()
    except OSError:
        return False
    ours = (SHIPPED / "data.py").read_bytes()
    return content == ours or hashlib.sha256(content).hexdigest() in EARLIER_LOADERS


def module_file(function: str, folder: Path) -> Path | None:
    """The file that defines a function, found as lm-eval finds it, but not imported.

    A module beside the task file takes precedence over an installed one. None if there is none.
    """
    module, _, _ = function.rpartition(".")
    if not module:
        return None
    beside = (folder / f"{module.replace('.', '/')}.py").resolve()
    if beside.exists():
        return beside
    try:
        # Only the first part of the name: looking up the rest would import it.
        spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.has_location and spec.origin:
        return Path(spec.origin).resolve()
    # A package without __init__.py has only a folder; a built-in module has no file.
    places = list(spec.submodule_search_locations or ())
    return Path(places[0]).resolve() if places else Path(os.devnull)


def not_allowed_for(module: Path) -> Path | None:
    """The first file that stands against importing a module; None if it may be imported.

    An allowed task file may import what is installed or allowed. A module may import the modules
    beside it, so these have to be allowed, too.
    """
    if is_installed(module):
        return None
    return next((path for path in _importable_with(module) if not may_run_code(path)), None)


def is_installed(module: Path) -> bool:
    """Whether a module is part of Python, of an installed package, or of our tasks."""
    if module == Path(os.devnull) or is_shipped(module):
        return True
    places = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return any(module.is_relative_to(Path(place).resolve()) for place in places)


def _files(source: Path) -> dict[Path, _TaskFile]:
    """A task file and all the files it includes, after resolving symbolic links.

    Raises:
        BadInput: A file can't be read or is not a mapping.
    """
    files: dict[Path, _TaskFile] = {}
    waiting = [source]
    while waiting:
        path = waiting.pop(0).expanduser().resolve()
        if path in files:
            continue
        files[path] = _parse(path)
        includes = files[path].config.get("include") or []
        for include in includes if isinstance(includes, list) else [includes]:
            waiting.append(path.parent / str(include))
    return files


def jinja_templates(source: Path) -> dict[str, Path]:
    """Every Jinja template in a task file and the files it includes, with its file.

    Raises:
        BadInput: A file can't be read.
    """
    return {
        text: path
        for path, file in _files(source).items()
        for text in _texts(file.config)
        if _is_template(text)
    }


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value at any depth, except under metadata, which lm-eval does not use."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key != "metadata":
                yield str(key), inner
                yield from _walk(inner)
    elif isinstance(value, list | tuple | set):
        for inner in value:
            yield from _walk(inner)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, at any depth."""
    if isinstance(value, str):
        yield str(value)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple | set):
        for inner in value:
            yield from _texts(inner)


def _values(config: dict[str, Any]) -> Iterator[str]:
    """Everything else in a file that would run code, as noun phrases for an error."""
    for key, value in _walk(config):
        match key, value:
            case "class", _:
                yield f"the Python class {value}"
            case "trust_remote_code", _ if value:
                yield "trust_remote_code"
            case "dataset_path", str():
                yield from _dataset(value)
            case "dataset_kwargs", dict():
                yield from _dataset_options(value)
            case "hf_evaluate", _ if value:
                yield "a metric of the evaluate library (hf_evaluate)"
            case "use_prompt", str() if value.partition(":")[0] not in OWN_PROMPTS:
                yield f"prompts from elsewhere (use_prompt: {value})"
            case "generation_kwargs", dict() if "custom_generate" in value:
                yield "custom_generate"
    for text in _texts(config):
        if _is_template(text) and (attribute := python_attribute(text)):
            yield f"a template that reaches into Python ({attribute})"


def _dataset(name: str) -> Iterator[str]:
    path = Path(name)
    if name in DATA_FORMATS:
        return
    if name in OTHER_FORMATS or "::" in name or "://" in name:
        yield f"the dataset {name!r}, which is not plain data"
    elif path.suffix == ".py" or path.is_file():
        yield f"the dataset {name!r}, which is a script"
    elif path.is_dir():
        for folder, inner, files in os.walk(path, followlinks=True):
            # `datasets` skips hidden folders, such as .git.
            inner[:] = [name for name in inner if not name.startswith(".")]
            for file in files:
                if not _is_data(Path(folder) / file):
                    yield f"the dataset {name!r}, which holds {file}"
                    return


def _is_data(file: Path) -> bool:
    """Whether a local dataset's file is plain data, not a card that points to remote files."""
    if file.name == ".gitattributes":
        return True
    if _runs(file) or file.suffix.lower() not in DATA_SUFFIXES:
        return False
    if file.suffix.lower() != ".md":
        return True
    text = file.read_text(encoding="utf-8", errors="replace")
    card = text.split("---")[1] if text.startswith("---") else ""
    return "data_files" not in card or not ("://" in card or "::" in card)


def _runs(file: Path) -> bool:
    """Whether reading a file may run code, judged by its suffixes, compressed or not."""
    return bool(CODE_SUFFIXES & {suffix.lower() for suffix in file.suffixes})


def _dataset_options(options: dict[str, Any]) -> Iterator[str]:
    for key in sorted(set(map(str, options)) - DATASET_OPTIONS):
        yield f"the option {key} of dataset_kwargs, which is not among the allowed options"
    for key in ("data_files", "data_dir"):
        for file in _texts(options.get(key)):
            chained = "::" in file or ("://" in file and not file.startswith(WEB))
            if chained or _runs(Path(file)):
                yield f"the data file {file}, which is not plain data"


def _metrics(config: dict[str, Any]) -> Iterator[str]:
    """The names in the file's metric lists."""
    for key, listed in _walk(config):
        for inner, value in _walk(listed) if key == "metric_list" else ():
            if inner == "metric" and isinstance(value, str):
                yield str(value)


def _is_template(text: str) -> bool:
    return "{{" in text or "{%" in text


@functools.lru_cache(maxsize=4096)
def python_attribute(template: str) -> str:
    """The first dunder attribute that a template uses, such as __class__; empty if none.

    This only gives an early, clear error. The sandbox that renders templates is the protection.
    """
    try:
        parsed = jinja2.Environment(autoescape=False).parse(template)  # noqa: S701 - parsed only
    except jinja2.TemplateError:
        return ""
    attributes: list[Any] = [node.attr for node in parsed.find_all(jinja2.nodes.Getattr)]
    keys: list[jinja2.nodes.Expr] = [node.arg for node in parsed.find_all(jinja2.nodes.Getitem)]
    for node in parsed.find_all(jinja2.nodes.Filter):
        keys += node.args if node.name == "attr" else []
    attributes += [key.value for key in keys if isinstance(key, jinja2.nodes.Const)]
    return next(
        (name for name in attributes if isinstance(name, str) and name.startswith("__")), ""
    )
