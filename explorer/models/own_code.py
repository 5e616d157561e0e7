"""Python code that a model brings, and whether it may run: no model library is loaded here.

transformers imports such code if it is told `trust_remote_code`. A spec says so too, but a spec may
come from anybody: the code runs only if this user allowed the bytes of its files (`consent.trust`).

    own_code.refuse("org/name", folder)
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from explorer.consent import trust
from explorer.errors import BadInput, CodeNotAllowed
from explorer.models import hub
from explorer.paths import store_root
from explorer.store import disk
from explorer.tasks import code_policy


def files_that_run(source: str) -> list[Path]:
    """The files whose code runs if a source is allowed; empty if it brings none.

    Args:
        source: A task file, a folder of tasks, a model's folder, a hub id, or run:RUN_ID.

    Raises:
        ExplorerError: There is no such source, or it can't be read.
    """
    path = Path(source).expanduser()
    if source.startswith("run:"):
        weights = disk.weights_folder(store_root(), source.removeprefix("run:"))
        if weights is None:
            raise BadInput(f"The student of {source} is not on this machine.")
        return code_files(weights)
    if path.is_file():
        return [path] if path.suffix == ".py" else code_policy.code_files(path)
    if path.is_dir():
        return code_files(path) if (path / "config.json").is_file() else trust.code_below(path)
    if source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise BadInput(
            f"There is no file or folder {source}. Name a task file, a folder of tasks, a model's "
            "folder, a hub id (org/name) or run:RUN_ID."
        )
    folder = hub.fetch(source, weights=False)
    others = [hub.fetch(other, weights=False) for other in other_repositories(folder)]
    return [path for place in (folder, *others) for path in code_files(place)]


def source_key(source: str) -> Path | str:
    """A source as its permission names it: an absolute path, a hub id or a run."""
    path = Path(source).expanduser()
    return path.resolve() if path.exists() and not source.startswith("run:") else source


def code_files(folder: Path) -> list[Path]:
    """The Python files of a model's folder."""
    return sorted(path for path in folder.rglob("*.py") if path.is_file())


def other_repositories(folder: Path) -> list[str]:
    """Hub ids of other repositories whose code a model's configuration names."""
    named = (name.partition("--") for name in _classes(folder))
    return list(dict.fromkeys(repository for repository, other, _ in named if other))


def _classes(folder: Path) -> Iterator[str]:
    """The classes that the configurations in a folder take from code of their own."""
    for path in sorted(folder.glob("*.json")):
        # The vocabulary and the index of the weights are large, and have no such key.
        if path.name in ("tokenizer.json", "vocab.json") or path.name.endswith(".index.json"):
            continue
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(config, dict):
            yield from _texts(config.get("auto_map"))


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def refuse(name: str, folder: Path) -> None:
    """Refuse a model with code of its own that was not allowed, before any of it runs.

    Args:
        name: The model, as `explorer trust` takes it.
        folder: Its files.

    Raises:
        CodeNotAllowed: The message names the files, and the command that shows and allows them.
    """
    if not any(_classes(folder)):
        return
    files = code_files(folder)
    asking = [path for path in files if not trust.allowed_anywhere(path)]
    if asking:
        raise refusal(name, asking)


def refuse_files(files: Iterable[Path]) -> None:
    """Refuse to import these files unless all of them are allowed; called as transformers imports.

    Raises:
        CodeNotAllowed: One is not, as in code that another repository brings.
    """
    asking = [path for path in files if not trust.allowed_anywhere(path)]
    if asking:
        raise refusal(str(asking[0].parent), asking)


def refusal(name: str, asking: list[Path]) -> CodeNotAllowed:
    """The error for a model's code that may not run."""
    names = ", ".join(path.name for path in asking[:3])
    more = f" and {len(asking) - 3} more files" if len(asking) > 3 else ""
    return trust.refusal(
        f"{name} brings Python code of its own ({names}{more}), which nobody allowed to run here.",
        name,
        asking[0],
    )
