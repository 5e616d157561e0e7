"""The study form's logic without widgets: sizes on offer, parsing, uploads, the spec."""

import difflib
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
from explorer.files import durable_files
from explorer.index import index_of
from explorer.models import sizes as model_sizes
from explorer.models.starter import STARTER_SIZES
from explorer.specs import RunSpec, Student, SweepSpec
from explorer.tasks.index import SHIPPED

UPLOAD_MB = 50
CORPUS_TYPES = ("txt", "jsonl", "parquet")
SHARES = (0.8, 2 / 3, 0.5, 1 / 3, 0.2)
"""Offered sizes as shares of the teacher's layers: 24, 20, 15, 10 and 6 of 30."""
TARGET_SHARES = (0.8, 0.7, 0.6, 0.5, 0.4)
"""Offered sizes as shares of the teacher's parameters."""
UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}


def teachers(root: Path, runs: pd.DataFrame) -> list[str]:
    """Suggested teachers: the starter, earlier teachers, and students on this machine.

    A run in another number format (GGUF, int8) is suggested only if the student has no run in its
    own format.
    """
    index = index_of(root)
    index.snapshot()  # looks at the store if the last look is old
    finished = runs[runs["status"] == "finished"]
    weights = index.weights(finished["run_id"].tolist())
    students: dict[Path, list[str]] = {}
    for original_format in (True, False):
        for run_id in finished.loc[finished["format"].isna() == original_format, "run_id"]:
            folder = weights.get(run_id)
            if folder and (original_format or folder not in students):
                students.setdefault(folder, []).append(f"run:{run_id}")
    used = [name for name in runs["teacher"].dropna().unique() if not name.startswith("run:")]
    return list(dict.fromkeys(["starter", *used, *itertools.chain(*students.values())]))


def layers_of(teacher: str, runs: pd.DataFrame) -> int | None:
    """The teacher's number of layers, from its configuration or an earlier run; else None."""
    known = model_sizes.read_sizes(teacher).num_layers or run_time.measured_value(
        teacher, runs, "num_layers"
    )
    return int(known) if known else None


def sizes(num_layers: int | None) -> list[int]:
    """Student sizes to offer for a teacher with `num_layers` layers, largest first."""
    total = num_layers or STARTER_SIZES["num_layers"]
    return sorted({max(1, round(share * total)) for share in SHARES} - {total}, reverse=True)


def other_sizes(text: str) -> list[int]:
    """Parse typed numbers of layers.

    Raises:
        BadInput: The text holds something other than positive whole numbers.
    """
    return whole_numbers(text, "Other sizes are whole numbers of layers, such as 12, 8")


def whole_numbers(text: str, rule: str) -> list[int]:
    """Parse positive whole numbers separated by commas or spaces.

    Raises:
        BadInput: The text holds something else; the message begins with `rule`.
    """
    values = []
    for word in re.split(r"[\s,;]+", text.strip()):
        if not word:
            continue
        if not word.isdecimal() or int(word) == 0:
            raise BadInput(f"{rule}; got {word!r}.")
        values.append(int(word))
    return values


def save_upload(folder: Path, name: str, content: bytes) -> Path:
    """Save an uploaded corpus under a name that includes its hash; it is never executed.

    Raises:
        BadInput: Another file type, an empty file, or one that is too large.
        NoRoom: The disk is full.
    """
    kind = Path(name).suffix.lower().lstrip(".")
    if kind not in CORPUS_TYPES:
        raise BadInput(f"A corpus is a .txt, .jsonl or .parquet file, got {name!r}.")
    if not content:
        raise BadInput(f"The file {name!r} is empty. Upload a file with text.")
    if len(content) > UPLOAD_MB * 2**20:
        raise BadInput(
            f"{name!r} is larger than {UPLOAD_MB} MB. Copy it to this machine and type its path."
        )
    digest = hashlib.sha256(content).hexdigest()[:12]
    stem = re.sub(r"[^a-zA-Z0-9._-]+", "-", Path(name).stem)[:40] or "corpus"
    path = folder / f"{stem}-{digest}.{kind}"
    if not path.exists() or path.stat().st_size != len(content):
        durable_files.write_bytes(path, content)
    return path


def parameters_of(teacher: str, runs: pd.DataFrame) -> int | None:
    """The teacher's number of parameters, from its files or an earlier run; else None."""
    teacher = teacher or "starter"
    known = model_sizes.read_sizes(teacher).num_parameters or run_time.measured_value(teacher, runs)
    return int(known) if known else None


def targets(num_parameters: int | None) -> list[int]:
    """Student sizes to offer for a teacher with `num_parameters`, rounded up to two digits."""
    if num_parameters is None:
        return []
    # Rounded up, so that the half-size student never loses more than half.
    unit = 10 ** max(0, len(str(num_parameters // 2)) - 2)
    return [math.ceil(share * num_parameters / unit) * unit for share in TARGET_SHARES]


def other_targets(text: str) -> list[int]:
    """Parse typed numbers of parameters, such as 60M, 1.5B.

    Raises:
        BadInput: The text holds something else.
    """
    values = []
    for word in re.split(r"[\s;]+|,\s", text.strip()):
        if not word:
            continue
        parts = re.fullmatch(r"(\d+(?:\.\d+)?)([KMB]?)", word.strip(",").upper())
        if not parts or not float(parts[1]):
            raise BadInput(
                f"Other sizes are numbers of parameters, such as 60M, 1.5B; got {word!r}."
            )
        values.append(round(float(parts[1]) * UNITS[parts[2]]))
    return values


def starts(root: Path, teacher: str, runs: pd.DataFrame) -> list[str]:
    """This teacher's students whose weights are on this machine: possible starts of a cut."""
    own = runs[(runs["teacher"] == teacher) & (runs["role"] == "student")]
    return [name for name in teachers(root, own) if name.startswith("run:")]


def students(
    kind: str,
    sizes: list[Any],
    choice: str,
    start_from: str | None = None,
    *,
    sample_blocks: int | None = None,
) -> tuple[Student, ...]:
    """One student per distinct size, largest first.

    Args:
        kind: Kind of the students.
        sizes: Layers, parameters or names of models, depending on the kind.
        choice: How the layers to keep are chosen.
        start_from: The model to cut from; None for the teacher.
        sample_blocks: Blocks of text by which the layers to keep are judged; None for the default.

    Raises:
        BadInput: A size or a name is invalid.
    """
    fields: list[dict[str, Any]] = []
    for size in sorted(set(sizes), reverse=kind != "checkpoint"):
        if kind == "checkpoint":
            fields.append({"model": str(size).strip()})
        elif kind == "depth":
            fields.append({"num_layers": size, "choice": choice, "start_from": start_from})
        else:
            fields.append({"num_parameters": size})
            if kind != "fresh":
                fields[-1]["start_from"] = start_from
            if kind == "both":
                fields[-1]["choice"] = choice
    if not fields:
        return ()
    if sample_blocks is not None and kind in ("depth", "both"):
        fields = [{**each, "sample_blocks": sample_blocks} for each in fields]
    return SweepSpec.parse(
        {"students": [{"kind": kind, **each} for each in fields]}, "Sizes"
    ).students


def from_yaml(text: str) -> SweepSpec | RunSpec:
    """A study that was edited as YAML: a sweep if it has students, else a run.

    Raises:
        BadInput: The YAML is not a valid spec.
    """
    keys = re.findall(r"^(\w+)\s*:", text, re.MULTILINE)
    # Misspelt, too, so that the error speaks of the spec that was meant.
    nearest = [difflib.get_close_matches(key, ("student", "students"), n=1) for key in keys]
    kind = SweepSpec if ["students"] in nearest else RunSpec
    return kind.from_yaml(text, "The YAML")


def runs_of(study: SweepSpec | RunSpec) -> list[RunSpec]:
    """The runs of a study, each student's teacher included."""
    if isinstance(study, SweepSpec):
        return study.runs()
    teacher = study.teacher_run()
    return [study] if teacher is None else [teacher, study]


def num_documents_per_run(specs: list[RunSpec], scores: pd.DataFrame) -> int | None:
    """Documents that one run evaluates; None if not known yet.

    Task sizes come from earlier runs, and for tasks that ship with us from their files.
    """
    capability = specs[0].capability
    if capability is None:
        return None
    total = 0
    for name in capability.tasks:
        rows = task_rows(name, scores[scores["headline"]])
        if not rows.empty:
            total += num_documents(rows, capability.limit)
            continue
        shipped = shipped_task_sizes(name)
        if not shipped:
            return None
        total += sum(min(n, capability.limit) if capability.limit else n for n in shipped)
    return total


def shipped_task_sizes(name: str) -> list[int]:
    """Documents of the shipped task of this name, or of each task of this group."""
    files = [file for file in SHIPPED.glob("*.jsonl") if f"{file.stem}_".startswith(f"{name}_")]
    return [len(file.read_bytes().splitlines()) for file in files]


def not_finished(specs: list[RunSpec], runs: pd.DataFrame) -> list[RunSpec]:
    """The specs whose runs are not finished yet."""
    done = set(runs.loc[runs["status"] == "finished", "run_id"])
    return [spec for spec in specs if spec.run_id not in done]
