"""Small sets of tasks by purpose, from presets.yaml beside this file.

explorer tasks --preset common_sense
"""

import functools
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from explorer.errors import BadInput

FILE = Path(__file__).parent / "presets.yaml"


class Preset(BaseModel):
    """A set of tasks, its title and a sentence on what it is for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    says: str
    tasks: tuple[str, ...]


@functools.cache
def presets() -> dict[str, Preset]:
    """All presets by key, in the order of the file."""
    data = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {key: Preset.model_validate(value) for key, value in data.items()}


def find_preset(key: str) -> Preset:
    """Return the preset with this key.

    Raises:
        BadInput: No preset has this key.
    """
    known = presets()
    if key not in known:
        raise BadInput(f"preset knows {', '.join(known)}, got {key!r}.")
    return known[key]
