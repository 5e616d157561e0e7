"""The order form's parts that have no widget: sizes, names of files, the order as a spec."""

import hashlib
import itertools
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd

from explorer.analysis.planning import run_time
from explorer.analysis.planning.run_time import num_documents, task_rows
from explorer.errors import BadInput
from explorer.models import sizes as model_sizes
from explorer.models.starter import STARTER_SIZES
from explorer.specs import RunSpec, Student, SweepSpec
from explorer.store import disk
from explorer.tasks.index import SHIPPED

UPLOAD_MB = 50
CORPUS_TYPES = ("txt", "jsonl", "parquet")
SHARES = (0.8, 2 / 3, 0.5, 1 / 3, 0.2)
"""Sizes on offer, as shares of the teacher's layers: 24, 20, 15, 10 and 6 of 30."""
TARGET_SHARES = (0.8, 0.7, 0.6, 0.5, 0.4)
"""Sizes on offer, as shares of the teacher's parameters."""
UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}


def teachers(root: Path, runs: pd.DataFrame) -> list[str]:
    """Models to suggest as a teacher: the starter, earlier teachers and students on this machine.

    A run in another number format (GGUF, int8) measures a student that often has a run of its own,
    and is suggested only where no such run is.
    """
    finished = runs[runs["status"] == "finished"]
    students: dict[Path, list[str]] = {}
    for as_it_is in (True, False):
        for run_id in finished.loc[finished["format"].isna() == as_it_is, "run_id"]:
            weights = disk.weights_folder(root, run_id)
            if weights and (as_it_is or weights not in students):
                students.setdefault(weights, []).append(f"run:{run_id}")
    used = [name for name in runs["teacher"].dropna().unique() if not name.startswith("run:")]
    return list(dict.fromkeys(["starter", *used, *itertools.chain(*students.values())]))


def layers_of(teacher: str, runs: pd.DataFrame) -> int | None:
    """The teacher's layers, where its configuration is here or a run has measured it."""
    known = model_sizes.read_sizes(teacher).num_layers or run_time.measured_value(
        teacher, runs, "num_layers"
    )
    return int(known) if known else None


def sizes(num_layers: int | None) -> list[int]:
    """Student sizes to offer for a teacher of so many layers, largest first."""
    of = num_layers or STARTER_SIZES["num_layers"]
    return sorted({max(1, round(share * of)) for share in SHARES} - {of}, reverse=True)


def other_sizes(text: str) -> list[int]:
    """Numbers of layers that were typed.

    Raises:
        BadInput: Something in it is no positive whole number.
    """
    return whole_numbers(text, "Other sizes are whole numbers of layers, as in 12, 8")


def whole_numbers(text: str, wanted: str) -> list[int]:
    """Positive whole numbers that were typed, separated by commas or spaces; `wanted` says so.

    Raises:
        BadInput: Something in it is none.
    """
    found = []
    for word in re.split(r"[\s,;]+", text.strip()):
        if not word:
            continue
        if not word.isdecimal() or int(word) == 0:
            raise BadInput(f"{wanted}; got {word!r}.")
        found.append(int(word))
    return found


def save_upload(folder: Path, name: str, content: bytes) -> Path:
    """Keep an uploaded corpus under a name that its content decides; it is never executed.

    Raises:
        BadInput: Another kind of file, an empty one, or one that is too large.
        NoRoom: It cannot be written.
    """
    kind = Path(name).suffix.lower().lstrip(".")
    if kind not in CORPUS_TYPES:
        raise BadInput(f"A corpus is a .txt, .jsonl or .parquet file, got {name!r}.")
    if not content:
        raise BadInput(f"The file {name!r} is empty. Upload one with text in it.")
    if len(content) > UPLOAD_MB * 2**20:
        raise BadInput(
            f"{name!r} is larger than {UPLOAD_MB} MB. Put it on this machine and give its path."
        )
    digest = hashlib.sha256(content).hexdigest()[:12]
    stem = re.sub(r"[^a-zA-Z0-9._-]+", "-", Path(name).stem)[:40] or "corpus"
    path = folder / f"{stem}-{digest}.{kind}"
    if not path.exists() or path.stat().st_size != len(content):
        disk.write_bytes(path, content)
    return path


def check_corpus(corpus: str) -> None:
    """Refuse a path that cannot be a corpus before anything is started.

    Raises:
        BadInput: No such file, or another kind of file.
    """
    if corpus in ("starter", "teacher"):
        return
    path = Path(corpus).expanduser()
    if path.suffix.lower().lstrip(".") not in CORPUS_TYPES:
        raise BadInput(f"A corpus is a .txt, .jsonl or .parquet file, got {corpus!r}.")
    if not path.is_file():
        raise BadInput(f"There is no file {corpus} on this machine. Check its path.")


def parameters_of(teacher: str, runs: pd.DataFrame) -> int | None:
    """The teacher's parameters, where its files are here or a run has measured it."""
    teacher = teacher or "starter"
    known = model_sizes.read_sizes(teacher).num_parameters or run_time.measured_value(teacher, runs)
    return int(known) if known else None


def targets(num_parameters: int | None) -> list[int]:
    """Numbers of parameters to offer for a teacher of so many, rounded up to two digits."""
    if num_parameters is None:
        return []
    # Up, so that half of the teacher is no more than a cut of half.
    unit = 10 ** max(0, len(str(num_parameters // 2)) - 2)
    return [math.ceil(share * num_parameters / unit) * unit for share in TARGET_SHARES]


def other_targets(text: str) -> list[int]:
    """Numbers of parameters that were typed, as in 60M, 1.5B.

    Raises:
        BadInput: Something in it is no such number.
    """
    found = []
    for word in re.split(r"[\s;]+|,\s", text.strip()):
        if not word:
            continue
        parts = re.fullmatch(r"(\d+(?:\.\d+)?)([KMB]?)", word.strip(",").upper())
        if not parts or not float(parts[1]):
            raise BadInput(f"Other sizes are numbers of parameters, as in 60M, 1.5B; got {word!r}.")
        found.append(round(float(parts[1]) * UNITS[parts[2]]))
    return found


def starts(root: Path, teacher: str, runs: pd.DataFrame) -> list[str]:
    """This teacher's students that left their weights here: where a second cut can start."""
    mine = runs[(runs["teacher"] == teacher) & (runs["role"] == "student")]
    return [name for name in teachers(root, mine) if name.startswith("run:")]


def students(
    kind: str, sizes: list[Any], choice: str, start_from: str | None = None
) -> tuple[Student, ...]:
    """One student for each size, each once: layers, parameters or names of models.

    Raises:
        BadInput: A size or a name cannot be.
    """
    made: list[dict[str, Any]] = []
    for size in sorted(set(sizes), reverse=kind != "checkpoint"):
        if kind == "checkpoint":
            made.append({"model": str(size).strip()})
        elif kind == "depth":
            made.append({"num_layers": size, "choice": choice, "start_from": start_from})
        else:
            made.append({"num_parameters": size})
            if kind != "fresh":
                made[-1]["start_from"] = start_from
            if kind == "both":
                made[-1]["choice"] = choice
    if not made:
        return ()
    return SweepSpec.parse({"students": [{"kind": kind, **one} for one in made]}, "Sizes").students


def from_yaml(text: str) -> SweepSpec | RunSpec:
    """An order that was edited as YAML: a sweep when it has students, else a run.

    Raises:
        BadInput: No valid spec.
    """
    kind = SweepSpec if re.search(r"^students\s*:", text, re.MULTILINE) else RunSpec
    return kind.from_yaml(text, "The YAML")


def runs_of(asked: SweepSpec | RunSpec) -> list[RunSpec]:
    """The runs that an order stands for, each student's teacher among them."""
    if isinstance(asked, SweepSpec):
        return asked.runs()
    teacher = asked.teacher_run()
    return [asked] if teacher is None else [teacher, asked]


def documents_asked(specs: list[RunSpec], scores: pd.DataFrame) -> int | None:
    """Documents that one run will be asked; None where their number is not known yet.

    Earlier runs tell how many documents a task has; of our own tasks the files do.
    """
    asked = specs[0].capability
    if asked is None:
        return None
    total = 0
    for name in asked.tasks:
        rows = task_rows(name, scores[scores["headline"]])
        if not rows.empty:
            total += num_documents(rows, asked.limit)
            continue
        sizes_here = shipped(name)
        if not sizes_here:
            return None
        total += sum(min(n, asked.limit) if asked.limit else n for n in sizes_here)
    return total


def shipped(name: str) -> list[int]:
    """Documents of our own task of that name, or of each task of that group."""
    files = [file for file in SHIPPED.glob("*.jsonl") if f"{file.stem}_".startswith(f"{name}_")]
    return [len(file.read_bytes().splitlines()) for file in files]


def not_finished(specs: list[RunSpec], runs: pd.DataFrame) -> list[RunSpec]:
    """The runs of an order that nobody has finished yet."""
    done = set(runs.loc[runs["status"] == "finished", "run_id"])
    return [spec for spec in specs if spec.run_id not in done]
