"""The user's configuration: which task folders to offer, what may run, which servers to start.

The file must lie outside any store, so that people who can write to a store can't change it.

    # ~/.config/distill-explorer/config.yaml, or the file that EXPLORER_CONFIG names
    task_folders: [/data/my-tasks]
    allowed_task_code: [/data/my-tasks]
    servers: {vllm: /opt/vllm/bin/vllm}
    allowed_server_arguments: [--chat-template=/data/chat.jinja]
"""

from pathlib import Path
from typing import Any

import pydantic

from explorer import paths
from explorer.errors import BadInput
from explorer.files import yaml_files
from explorer.specs.base import Spec
from explorer.specs.serve import Engine


class UserConfig(Spec):
    """The keys of the configuration file. A missing file is an empty configuration."""

    task_folders: tuple[str, ...] = ()
    """Folders of lm-eval tasks that the Tasks and Run pages offer."""
    allowed_task_code: tuple[str, ...] = ()
    """Files and folders whose tasks may run Python code, as they are at the first use; a change
    asks again (`trust`)."""
    servers: dict[Engine, str] = {}
    """Programs of servers that are not on PATH, such as those in an environment of their own."""
    allowed_server_arguments: tuple[str, ...] = ()
    """Arguments that specs may pass to servers although they can read files or run code: `--name`
    with any value, or `--name=VALUE`."""

    @pydantic.field_validator("task_folders", "allowed_task_code", "servers", mode="before")
    @classmethod
    def _are_absolute(cls, value: Any) -> Any:
        named = value.values() if isinstance(value, dict) else value
        for path in named if isinstance(value, list | tuple | dict) else []:
            if isinstance(path, str) and not Path(path).expanduser().is_absolute():
                raise ValueError(
                    f"should hold absolute paths, or paths that start with ~; {path!r} is neither"
                )
        return value


def beside_config(name: str) -> Path:
    """A file in the folder of the configuration.

    Raises:
        BadInput: It lies in the store.
    """
    return _outside_the_store(paths.config_file().with_name(name))


def _outside_the_store(path: Path) -> Path:
    if path.resolve().is_relative_to(paths.store_root().resolve()):
        raise BadInput(
            f"The configuration {path} lies in the store, where others may write to it. Move it "
            "elsewhere, and set EXPLORER_CONFIG to its path."
        )
    return path


def read_config() -> UserConfig:
    """Read the configuration file.

    Raises:
        BadInput: The file cannot be read, holds an unknown key, or lies in the store.
    """
    path = paths.config_file()
    if not path.exists():
        return UserConfig()
    _outside_the_store(path)
    document = yaml_files.read(path, "the configuration")
    # A file with only comments is an empty configuration.
    if document.data is None:
        return UserConfig()
    return UserConfig.from_document(document, f"The configuration {path}")


def task_folders() -> dict[str, Path]:
    """The configured task folders, by the name that pages show: the last part of the path.

    Raises:
        BadInput: As `read_config`.
    """
    folders = list(dict.fromkeys(Path(path).expanduser() for path in read_config().task_folders))
    names = [folder.name for folder in folders]
    return {
        folder.name if names.count(folder.name) == 1 else str(folder): folder for folder in folders
    }


def allowed_task_code() -> list[Path]:
    """The files and folders whose tasks may run code, with symbolic links resolved.

    Raises:
        BadInput: As `read_config`.
    """
    return [Path(path).expanduser().resolve() for path in read_config().allowed_task_code]
