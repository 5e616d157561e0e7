"""The folders that we write to, and the user's configuration. A variable moves each of them."""

import os
from collections.abc import Iterator
from pathlib import Path

import platformdirs

APP_NAME = "distill-explorer"


def files_below(folder: Path) -> Iterator[Path]:
    """Every file in a folder and the folders in it, links to other disks included, each once."""
    seen = set()
    for name, inner, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(name)
        if real in seen:  # a link back
            inner.clear()
            continue
        seen.add(real)
        yield from (Path(name) / file for file in files)


def follow_umask(folder: Path) -> None:
    """Let others read the files of a folder as far as the user's umask does.

    Libraries that write through a temporary file leave it to its owner alone, as safetensors does
    with weights. A colleague would see a student's name and could not load it.
    """
    # Nothing that is made meanwhile is open to more than its owner.
    mask = os.umask(0o077)
    os.umask(mask)
    for path in files_below(folder):
        if not path.is_symlink():
            path.chmod(0o666 & ~mask)


def store_root() -> Path:
    """The results folder of every command and page.

    `EXPLORER_RESULTS` where it is set, else `results/` in the working directory where there is
    one, else the user's own store.
    """
    if stated := os.environ.get("EXPLORER_RESULTS"):
        return Path(stated)
    local = Path("results")
    return local if local.is_dir() else user_store()


def user_store() -> Path:
    """The store in the user's data folder, for work from a folder without `results/`."""
    return Path(platformdirs.user_data_dir(APP_NAME)) / "results"


def own_tasks() -> Path:
    """The user's own tasks. In the store, so that every machine that works on it has them."""
    return store_root() / ".tasks"


def cache_dir() -> Path:
    """Downloads and whatever can be made again: `EXPLORER_CACHE` or the user's cache folder."""
    return Path(os.environ.get("EXPLORER_CACHE", platformdirs.user_cache_dir(APP_NAME)))


def index_dir() -> Path:
    """Indexes of stores: `EXPLORER_INDEX`, or `index/` in the cache. Best on a local disk."""
    return Path(os.environ.get("EXPLORER_INDEX") or cache_dir() / "index")


def device_locks() -> Path:
    """Locks of devices, for all users of the machine: `EXPLORER_DEVICE_LOCKS`, or below /tmp.

    Not below TMPDIR, which may be another folder for each user.
    """
    default = f"/tmp/{APP_NAME}-locks"  # noqa: S108 - device_lock.py follows no link
    return Path(os.environ.get("EXPLORER_DEVICE_LOCKS") or default)


def config_file() -> Path:
    """The user's configuration: `EXPLORER_CONFIG`, or config.yaml in the user's own folder.

    It lies outside every store, since a store may come from somebody else.
    """
    default = Path(platformdirs.user_config_dir(APP_NAME)) / "config.yaml"
    return Path(os.environ.get("EXPLORER_CONFIG") or default)
