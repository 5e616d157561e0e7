"""Refuse impossible student sizes from what the model's files state, before anything is loaded.

The dashboard and the queue call these while a size is typed or a run is submitted. If the sizes
of the model cannot be read on this machine, nothing is refused.
"""

from collections.abc import Iterable
from pathlib import Path

from explorer.errors import BadInput
from explorer.models.sizes import read_sizes
from explorer.specs import DepthStudent, FreshStudent, RunSpec, StudentSpec, Widths

MODEL_TYPES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "smollm3")
"""Model types whose widths can be cut: the keys of `families.FAMILIES`, which needs torch."""


def check_students(specs: Iterable[RunSpec], root: Path | None = None) -> None:
    """Refuse students that are not smaller than the model they are cut from.

    Raises:
        BadInput: An impossible size; the message has the model's own size and what to choose.
    """
    for spec in specs:
        if spec.student is not None:
            check_student(spec.student, spec.teacher, root)


def check_student(student: StudentSpec, teacher: str, root: Path | None = None) -> None:
    """Refuse one student that is not smaller than the model it is cut from.

    Raises:
        BadInput: An impossible size; the message has the model's own size and what to choose.
    """
    start = student.start or teacher
    if student.kind == "checkpoint" or start.startswith("endpoint:"):
        return
    whose = f"the teacher {teacher}" if student.start is None else start
    whole = read_sizes(start, root)
    if not isinstance(student, DepthStudent) and whole.model_type not in (None, *MODEL_TYPES):
        raise BadInput(
            f"The widths of {whose} (model type {whole.model_type}) cannot be cut; supported types "
            f"are {', '.join(MODEL_TYPES)}. Choose a depth student, or kind: checkpoint."
        )
    fresh = isinstance(student, FreshStudent)
    if isinstance(student, DepthStudent | FreshStudent):
        check_num_layers(student.num_layers, whole.num_layers, whose, allow_equal=fresh)
    num_parameters = getattr(student, "num_parameters", None)
    total = whole.num_parameters
    # A cut needs fewer parameters; a fresh model of the teacher's size is a valid baseline.
    if num_parameters and total and num_parameters > total - (not fresh):
        raise BadInput(
            f"{num_parameters:,} parameters requested, but {whose} has {total:,}. "
            f"Choose {'at most' if fresh else 'fewer than'} {total:,}."
        )
    for size in sorted(Widths.model_fields):
        requested, limit = getattr(student, size, None), getattr(whole, size)
        if requested and limit and requested > limit:
            raise BadInput(
                f"{size} {requested:,} requested, but {whose} has {limit:,}. Choose at most "
                f"{limit:,}."
            )


def check_num_layers(
    num_layers: int | None, num_available: int | None, whose: str, *, allow_equal: bool = False
) -> None:
    """Refuse a student with as many layers as the model it is cut from, or more.

    Args:
        num_layers: The student's layers; None if the spec names none.
        num_available: The model's layers; None if they are unknown.
        whose: The model in words, as in `the teacher starter`.
        allow_equal: Whether as many layers are fine, because the student differs otherwise.

    Raises:
        BadInput: The student has too many layers.
    """
    if num_layers is None or num_available is None or num_layers < num_available + allow_equal:
        return
    choose = f"at most {num_available}" if allow_equal else f"fewer than {num_available}"
    if num_available == 1 and not allow_equal:
        choose = "another kind of student"
    raise BadInput(
        f"{num_layers} layers requested, but {whose} has {num_available}. Choose {choose}."
    )
