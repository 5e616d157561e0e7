"""The folders we write to, and the user's own configuration, each movable by one variable."""

import os
from pathlib import Path

import platformdirs


def store_root() -> Path:
    """The results folder: `EXPLORER_RESULTS`, or `results/` in the working directory."""
    return Path(os.environ.get("EXPLORER_RESULTS", "results"))


def own_tasks() -> Path:
    """Tasks of the user's own: in the store, so that every machine that works on it has them."""
    return store_root() / ".tasks"


def cache_dir() -> Path:
    """Downloads and other things that can be made again: `EXPLORER_CACHE` or the user's cache."""
    default = platformdirs.user_cache_dir("distill-explorer")
    return Path(os.environ.get("EXPLORER_CACHE", default))


def config_file() -> Path:
    """The user's own configuration: `EXPLORER_CONFIG`, or config.yaml in the user's own folder.

    It lies outside any store, since a store may come from somebody else.
    """
    default = Path(platformdirs.user_config_dir("distill-explorer")) / "config.yaml"
    return Path(os.environ.get("EXPLORER_CONFIG") or default)
