"""Uploaded files become a folder like the one that lm-eval wrote.

Only results and samples are unpacked from a zip, whichever system made it. Nothing in it can reach
outside the folder, and a zip bomb is refused before it fills the disk.
"""

import lzma
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from explorer.errors import BadInput

ENDINGS = (".json", ".jsonl")
MAX_BYTES = 1_000_000_000
"""Limit of all files together, unpacked."""
MAX_FILES = 20_000
"""Limit for one zip."""
CHUNK_BYTES = 1 << 20
DRIVE = re.compile(r"^[A-Za-z]:")


@contextmanager
def unpacked(uploads: Iterable[tuple[str, IO[bytes]]]) -> Iterator[Path]:
    """A folder with these files, deleted when the block ends.

    Args:
        uploads: Names and contents: results_*.json, samples_*.jsonl, or zips of them.

    Raises:
        BadInput: A file is of another kind or there twice, or a zip is damaged, encrypted or far
            too large.
    """
    with tempfile.TemporaryDirectory(prefix="explorer-import-") as temporary:
        # This folder's name goes into the record; the temporary one says nothing.
        named = [(PurePosixPath(path).name, file) for path, file in uploads]
        folder = Path(temporary) / PurePosixPath(named[0][0] if named else "nothing").stem
        folder.mkdir()
        budget = _ByteBudget()
        for name, file in named:
            if name.lower().endswith(".zip"):
                _unzip(name, file, folder / PurePosixPath(name).stem, budget)
            elif name.lower().endswith(ENDINGS):
                budget.copy(file, folder / name)
            else:
                raise BadInput(
                    f"{name} is not a file of lm-eval's. Choose results_*.json and "
                    "samples_*.jsonl, or a zip of its output folder."
                )
        yield folder


class _ByteBudget:
    """The bytes that may still be written, counted as they come: sizes in a zip can be false."""

    def __init__(self) -> None:
        self._left = MAX_BYTES

    def copy(self, file: IO[bytes], path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            raise BadInput(
                f"{path.name} is there twice, and a run is one evaluation. Choose the files of "
                "one, or a zip of the whole output folder."
            )
        with path.open("wb") as out:
            while chunk := file.read(CHUNK_BYTES):
                self._left -= len(chunk)
                if self._left < 0:
                    raise BadInput(
                        f"{path.name} takes the files above {MAX_BYTES / 1e9:g} GB. Unpack them "
                        "and use the shell: explorer import FOLDER --as NAME"
                    )
                out.write(chunk)


def _unzip(name: str, file: IO[bytes], folder: Path, budget: _ByteBudget) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = [
                info for info in archive.infolist() if info.filename.lower().endswith(ENDINGS)
            ]
            if len(entries) > MAX_FILES:
                raise BadInput(f"{name} holds {len(entries):,} files; the limit is {MAX_FILES:,}.")
            for entry in entries:
                # Some Windows programs write backslashes, and drives.
                path = DRIVE.sub("", entry.filename.replace("\\", "/"))
                parts = [p for p in PurePosixPath(path).parts if p not in ("/", "..")]
                with archive.open(entry) as packed:
                    budget.copy(packed, folder.joinpath(*parts))
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
        raise BadInput(f"{name} could not be unpacked: {error}.") from error
    except (OSError, ValueError) as error:
        raise BadInput(f"{name} holds a file that cannot be written: {error}.") from error
