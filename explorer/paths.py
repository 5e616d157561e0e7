"""The folders we write to: the store and the cache, each movable by one variable."""

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
