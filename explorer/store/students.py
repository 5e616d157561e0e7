"""Finished students: their weights, how they were trained, and checksums that tell them whole.

FOLDER/model/        the weights, their tokenizer and a card
FOLDER/student.json  written last: the training, or null, and the checksum of each file
"""

import shutil
from pathlib import Path

import pydantic

from explorer.errors import CannotRead, DamagedStore
from explorer.files import durable_files
from explorer.files.durable_files import FileSum
from explorer.records import Distillation

MODEL, FACTS = "model", "student.json"


class StoredStudent(pydantic.BaseModel):
    """What `FACTS` holds."""

    model_config = pydantic.ConfigDict(extra="forbid")

    distillation: Distillation | None
    """None if the student was not trained."""
    files: dict[str, FileSum] = {}
    """Size and checksum of each file of the model. Empty in students older than this field."""


def write_facts(folder: Path, distillation: Distillation | None) -> None:
    """Write how the student in this folder was trained, and the checksums of its model."""
    facts = StoredStudent(distillation=distillation, files=durable_files.file_sums(folder / MODEL))
    durable_files.write_json(folder / FACTS, facts.model_dump(mode="json"))


def read_facts(folder: Path) -> StoredStudent | None:
    """How the student in this folder was trained; None if it is not finished.

    Raises:
        DamagedStore: A file is not the one that was written.
    """
    try:
        stored = durable_files.read_json(folder / FACTS, StoredStudent | Distillation | None)
    except FileNotFoundError:
        return None
    if not isinstance(stored, StoredStudent):
        stored = StoredStudent(distillation=stored)
    durable_files.check_files(folder / MODEL, stored.files)
    return stored if (folder / MODEL / "config.json").is_file() else None


def find(folder: Path) -> StoredStudent | None:
    """The student in this folder; None if it is not finished, or damaged and now set aside.

    Raises:
        CannotRead: Permission is missing.
    """
    try:
        return read_facts(folder)
    except CannotRead:
        raise
    except DamagedStore as error:
        set_aside(folder, str(error))
        return None


def set_aside(folder: Path, reason: str) -> None:
    """Put a damaged student out of the way, and leave the checkpoint that may lie beside it."""
    (folder / FACTS).unlink(missing_ok=True)
    durable_files.set_aside(folder / MODEL, reason)


def check_weights(weights: Path) -> None:
    """Refuse the weights of a student of the store that are not those that were written.

    Raises:
        DamagedStore: A file differs; the message names it and says what to do.
    """
    try:
        read_facts(weights.parent)
    except DamagedStore as error:
        raise DamagedStore(
            f"{error} Train this student again: explorer run RUN_ID --again sets it aside."
        ) from error


def forget_training(folder: Path) -> None:
    """Delete checkpoints and half-written weights beside a complete student."""
    for path in folder.iterdir():
        if path.name not in (FACTS, MODEL):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
