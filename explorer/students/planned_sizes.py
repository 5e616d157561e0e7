"""The sizes of a run's teacher and student before anything is loaded.

One function for the Run page, which never loads a model library, and for the check at the start
of a run. They differ only in how a model is outlined: the page reads configurations and headers
(`stated_outline`); the run can also build the model without weights.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from explorer.errors import UnknownModel
from explorer.models import endpoint, sizes
from explorer.models.families import (
    ModelOutline,
    ModelShape,
    count_parameters,
    shape_of,
    text_config,
)
from explorer.specs import BothStudent, CheckpointStudent, DepthStudent, FreshStudent, Student
from explorer.specs.model_size import NO_MODEL, ModelSize
from explorer.students.size_target import MIN_SHARE, requested_shape, shape_for_size


class CountedOutline(ModelOutline, Protocol):
    """An outline that also knows its number of parameters, as every model does."""

    def num_parameters(self) -> int:
        """Parameters, tied weights once."""


@dataclasses.dataclass(frozen=True)
class StatedOutline:
    """A model as its configuration and the headers of its weights describe it."""

    config: Any
    weights: Mapping[str, tuple[int, ...]]
    """Shape of each weight by its name, tied weights once; empty where only the count is known."""
    total: int

    def named_parameters(self) -> Iterable[tuple[str, Any]]:
        """Each weight's name and something with its `shape`."""
        return ((name, SimpleNamespace(shape=shape)) for name, shape in self.weights.items())

    def state_dict(self) -> Mapping[str, Any]:
        """The weights by name."""
        return self.weights

    def num_parameters(self) -> int:
        """Parameters, tied weights once."""
        return self.total


def stated_outline(name: str, root: Path | None = None) -> StatedOutline:
    """The outline of a model from files on this machine; nothing is fetched.

    Raises:
        UnknownModel: The files do not state every size, or the model runs in llama.cpp.
    """
    stated = sizes.UNKNOWN if name.startswith("llamacpp:") else sizes.read_sizes(name, root)
    if None in (
        stated.num_layers,
        stated.hidden_size,
        stated.vocab_size,
        stated.num_parameters,
    ):
        raise UnknownModel(f"The files of {name} on this machine do not state all of its sizes.")
    assert stated.num_parameters is not None, "checked above"
    config = SimpleNamespace(
        model_type=stated.model_type,
        num_hidden_layers=stated.num_layers,
        hidden_size=stated.hidden_size,
        intermediate_size=stated.intermediate_size,
        num_attention_heads=stated.num_attention_heads,
        num_key_value_heads=stated.num_key_value_heads,
        head_dim=stated.head_dim,
        vocab_size=stated.vocab_size,
    )
    return StatedOutline(config, sizes.read_weight_shapes(name, root), stated.num_parameters)


def planned_sizes(
    teacher: str, student: Student | None, outline: Callable[[str], CountedOutline]
) -> tuple[ModelSize, ModelSize]:
    """Sizes of the teacher and of the student; the teacher twice if there is no student.

    Args:
        teacher: The teacher's name.
        student: The student's spec; None for a run of the teacher alone.
        outline: Gives a model's outline by its name.

    Raises:
        ExplorerError: A model whose size is unknown, or a size that the student cannot have.
    """
    if student is not None and teacher.startswith(endpoint.PREFIX):
        assert student.start is not None, "checked when the spec was made"
        start, whole = outline(student.start), NO_MODEL
    else:
        start = outline(teacher)
        whole = _size(start)
        if student is None:
            return whole, whole
        if student.start:
            start = outline(student.start)
    if isinstance(student, CheckpointStudent):
        return whole, _size(start)
    if isinstance(student, DepthStudent):
        return whole, _size(start).with_layers(student.num_layers)
    if isinstance(start, StatedOutline) and not start.weights:
        raise UnknownModel("The shapes of this model's weights are not known here.")
    if student.num_parameters is not None:
        if isinstance(student, FreshStudent):
            depth = width = MIN_SHARE
        else:
            depth = student.min_depth if isinstance(student, BothStudent) else 1.0
            width = student.min_width
        shape = shape_for_size(start, student.num_parameters, min_depth=depth, min_width=width)
        return whole, _size(start, shape)
    shape = requested_shape(start, student)
    if isinstance(student, FreshStudent) and student.num_layers:
        shape = dataclasses.replace(shape, num_layers=student.num_layers)
    return whole, _size(start, shape)


def _size(model: CountedOutline, shape: ModelShape | None = None) -> ModelSize:
    own = shape or shape_of(model)
    return ModelSize(
        num_parameters=count_parameters(model, [own])[0] if shape else model.num_parameters(),
        num_layers=own.num_layers,
        hidden_size=own.hidden_size,
        intermediate_size=own.intermediate_size,
        vocab_size=int(text_config(model.config).vocab_size),
        kv_values_per_layer=2 * own.num_key_value_heads * own.head_dim,
    )
