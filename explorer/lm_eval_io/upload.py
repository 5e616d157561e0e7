"""Files that somebody hands over become a folder, as lm-eval would have left it.

A zip is opened for its results and samples alone: nothing in it can reach outside the folder,
and one that grows without measure is refused before it fills the disk.
"""

import lzma
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from explorer.errors import BadInput

ENDINGS = (".json", ".jsonl")
MAX_BYTES = 1_000_000_000
"""Of everything together, unpacked."""
MAX_FILES = 20_000
"""In one zip."""
PIECE_BYTES = 1 << 20


@contextmanager
def unpacked(uploads: Mapping[str, IO[bytes]]) -> Iterator[Path]:
    """A folder with these files, gone when the block ends.

    Args:
        uploads: Name to content: results_*.json, samples_*.jsonl, or zips of them.

    Raises:
        BadInput: A file of another kind, a zip that is damaged, locked or far too large.
    """
    with tempfile.TemporaryDirectory(prefix="explorer-import-") as made:
        # Its name goes into the record; that of the temporary folder says nothing.
        folder = Path(made) / PurePosixPath(next(iter(uploads), "nothing")).stem
        folder.mkdir()
        room = _Room()
        for path, file in uploads.items():
            name = PurePosixPath(path).name
            if name.endswith(".zip"):
                _unzip(name, file, folder / PurePosixPath(name).stem, room)
            elif name.endswith(ENDINGS):
                room.copy(file, folder / name)
            else:
                raise BadInput(
                    f"{name} is none of lm-eval's files. Choose results_*.json and "
                    "samples_*.jsonl, or a zip of its output folder."
                )
        yield folder


class _Room:
    """The bytes that are left, counted as they come: a zip's own sizes need not be true."""

    def __init__(self) -> None:
        self._left = MAX_BYTES

    def copy(self, file: IO[bytes], path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as out:
            while piece := file.read(PIECE_BYTES):
                self._left -= len(piece)
                if self._left < 0:
                    raise BadInput(
                        f"{path.name}: with it the files have more than {MAX_BYTES / 1e9:g} GB. "
                        "Use the shell, unpacked: explorer import FOLDER --as NAME"
                    )
                out.write(piece)


def _unzip(name: str, file: IO[bytes], folder: Path, room: _Room) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = [one for one in archive.infolist() if one.filename.endswith(ENDINGS)]
            if len(entries) > MAX_FILES:
                raise BadInput(f"{name} holds {len(entries):,} files; {MAX_FILES:,} are taken.")
            for entry in entries:
                parts = [p for p in PurePosixPath(entry.filename).parts if p not in ("/", "..")]
                with archive.open(entry) as packed:
                    room.copy(packed, folder.joinpath(*parts))
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
        raise BadInput(f"{name} could not be unpacked: {error}.") from error
    except (OSError, ValueError) as error:
        raise BadInput(f"{name} holds a file that cannot be kept: {error}.") from error
