"""Uploaded files become a folder like the one that lm-eval wrote.

Only results and samples are unpacked from a zip, whichever system made it. Nothing in it can reach
outside the folder or bring a name that this system does not take, and a zip bomb is refused before
it fills the disk. The dashboard imports in a process of its own, as what is unpacked still takes
twenty times its size as Python's objects.
"""

import hashlib
import lzma
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from explorer.errors import BadInput
from explorer.lm_eval_io import import_run
from explorer.lm_eval_io.evaluations import SeveralEvaluations

ENDINGS = (".json", ".jsonl")
MAX_BYTES = 1_000_000_000
"""Limit of all files together, unpacked."""
MAX_RATIO = 200
"""Unpacked bytes for each byte of a zip. Samples of the starter suite unpack to 6, and prompts with
many examples to more."""
SMALL_BYTES = 20_000_000
"""Whatever the ratio, so much may be unpacked."""
MAX_FILES = 20_000
"""Limit for one zip."""
CHUNK_BYTES = 1 << 20
DRIVE = re.compile(r"^[A-Za-z]:")
STRANGE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]|^[-~. ]|[. ]$")
"""What no name of ours has: control characters, marks that turn the direction of writing, and what
hides a file or reads like an option."""
LONGEST_NAME = 200
"""Bytes of a file's name; most systems take 255."""


def import_uploads(
    root: str,
    files: Sequence[tuple[str, str]],
    run_name: str,
    teacher: str | None,
    only: str,
    combine: bool,
    device: str | None,
) -> dict[str, Any]:
    """Import uploaded files as `import_run.import_folder` does, with what JSON can say.

    Args:
        root: The store.
        files: Name of each upload, and where it lies.
        run_name: The run's name.
        teacher: The run of the model's teacher.
        only: The results file that is meant.
        combine: Whether several evaluations make one run.
        device: What served the model that was timed.

    Returns:
        `run_id` and `problems`, or what there is to choose from: `found`, `choices`, `can_combine`.

    Raises:
        BadInput: As `unpacked` and `import_folder`.
    """
    with ExitStack() as stack:
        uploads = [(named, stack.enter_context(Path(path).open("rb"))) for named, path in files]
        folder = stack.enter_context(unpacked(uploads))
        try:
            run_id, problems = import_run.import_folder(
                Path(root), folder, run_name, teacher, only=only, combine=combine, device=device
            )
        except SeveralEvaluations as error:
            return {
                "found": error.found,
                "choices": error.choices,
                "can_combine": error.can_combine,
            }
    return {"run_id": run_id, "problems": problems}


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
        named = [(plain_name(PurePosixPath(path).name), file) for path, file in uploads]
        folder = Path(temporary) / PurePosixPath(named[0][0] if named else "nothing").stem
        folder.mkdir()
        budget = _ByteBudget()
        for name, file in named:
            if name.lower().endswith(".zip"):
                budget.allow(file.seek(0, 2) * MAX_RATIO)
                file.seek(0)
                _unzip(name, file, folder / PurePosixPath(name).stem, budget)
                budget.allow(MAX_BYTES)
            elif name.lower().endswith(ENDINGS):
                budget.copy(file, folder / name)
            else:
                raise BadInput(
                    f"{name} is not a file of lm-eval's. Choose results_*.json and "
                    "samples_*.jsonl, or a zip of its output folder."
                )
        yield folder


def plain_name(name: str) -> str:
    """A name for a file of somebody else's: theirs, or one of our own where theirs is strange."""
    if name and not STRANGE.search(name) and len(name.encode(errors="replace")) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"file-{digest}{PurePosixPath(name).suffix.lower()[:8]}"


class _ByteBudget:
    """The bytes that may still be written, counted as they come: sizes in a zip can be false."""

    def __init__(self) -> None:
        self._left = MAX_BYTES
        self._left_of_zip = MAX_BYTES

    def allow(self, num_bytes: int) -> None:
        """Let the files of the next zip take so much."""
        self._left_of_zip = max(num_bytes, SMALL_BYTES)

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
                self._left_of_zip -= len(chunk)
                if self._left_of_zip < 0 <= self._left:
                    raise BadInput(
                        f"{path.name} unpacks to more than {MAX_RATIO} times the size of its zip, "
                        "which no results do. Unpack it, and use the shell: explorer import FOLDER "
                        "--as NAME"
                    )
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
                parts = [plain_name(p) for p in PurePosixPath(path).parts if p not in ("/", "..")]
                with archive.open(entry) as packed:
                    budget.copy(packed, folder.joinpath(*parts))
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
        raise BadInput(f"{name} could not be unpacked: {error}.") from error
    except (OSError, ValueError) as error:
        raise BadInput(f"{name} holds a file that cannot be written: {error}.") from error
