"""Files of a run's folder, where the folder or the names in it may come from somebody else.

A record, a marker or an index of a foreign store can name any path, and a file of its folder can
be a link to any place. Only plain names of files that lie in the folder count.

    inside.file_in(folder, marker["samples"])
"""

from pathlib import Path
from typing import Any


def is_plain_name(name: Any) -> bool:
    """Whether this is the name of a file or folder, without any way to another folder."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and Path(name).name == name
        and "\0" not in name
    )


def file_in(folder: Path, name: Any) -> Path | None:
    """The file of this name in a folder, there or not; None for a path or a link."""
    if not is_plain_name(name):
        return None
    path = folder / name
    return None if path.is_symlink() else path
