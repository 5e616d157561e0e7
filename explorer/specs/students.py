"""The kinds of students, their sizes, and their names in ids and labels."""

import abc
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import Discriminator, Field, NonNegativeInt, PositiveInt, Tag

from explorer.specs.base import Added, Spec

MAX_SHARE_PER_CUT = 0.5
"""The largest share of the parameters that one cut should remove; more works better in two."""


class StudentSpec(Spec):
    """What all kinds of students share."""

    kind: str

    @property
    def start(self) -> str | None:
        """The model that becomes the student. None is the teacher."""
        return None

    @abc.abstractmethod
    def slug(self) -> str:
        """Kind and size for a run's name, without a dash: `10l`, `60m_wide`."""

    @abc.abstractmethod
    def label(self, num_parameters: int | None = None) -> str:
        """Kind and size for people: `10 layers`, `60M wide`.

        Args:
            num_parameters: The measured size, if known.
        """


class DepthStudent(StudentSpec):
    """The teacher with fewer layers. Everything else is kept."""

    kind: Literal["depth"] = "depth"
    num_layers: PositiveInt
    """How many of the teacher's layers are kept."""
    choice: Literal["block_influence", "uniform", "greedy"] = "block_influence"
    """Which layers are kept. block_influence: those that change the hidden state most. uniform:
    evenly spaced ones. greedy (slow): drops the layer whose removal raises the KL to the teacher
    least, then repeats."""
    sample_blocks: PositiveInt = 16
    """Blocks of the corpus on which importance is measured."""
    start_from: Added[str | None] = None
    """The model to cut: None is the teacher; run:RUN_ID is an earlier student, as the second of two
    cuts."""

    @property
    def start(self) -> str | None:
        """The model that is cut. None is the teacher."""
        return self.start_from

    def slug(self) -> str:
        """`10l`."""
        return f"{self.num_layers}l"

    def label(self, num_parameters: int | None = None) -> str:
        """`10 layers`."""
        return f"{self.num_layers} layers"


class Widths(Spec):
    """Widths of a student. Those left out stay as the teacher has them."""

    hidden_size: PositiveInt | None = None
    """Width of the hidden state."""
    intermediate_size: PositiveInt | None = None
    """Channels of the MLP."""
    num_attention_heads: PositiveInt | None = None
    """Query heads."""
    num_key_value_heads: PositiveInt | None = None
    """Key-value heads of grouped-query attention. None keeps whole groups if possible, else equally
    many query heads in every group."""

    def given_widths(self) -> dict[str, int]:
        """The widths that are not left out."""
        widths = {name: getattr(self, name) for name in Widths.model_fields}
        return {name: width for name, width in widths.items() if width is not None}

    def _short_widths(self) -> str:
        letters = {
            "hidden_size": "h",
            "intermediate_size": "f",
            "num_attention_heads": "a",
            "num_key_value_heads": "k",
        }
        return "".join(f"{letters[name]}{size}" for name, size in self.given_widths().items())


class WidthStudent(StudentSpec, Widths):
    """The teacher with all its layers, each narrower: by widths, or to a number of parameters."""

    kind: Literal["width"]
    num_parameters: PositiveInt | None = None
    """Target size instead of widths; hidden size and MLP channels are chosen to come close."""
    min_width: float = Field(0.5, gt=0, le=1)
    """With num_parameters: the smallest share of the hidden size and of the channels to keep."""
    sample_blocks: PositiveInt = 16
    """Blocks of the corpus on which importance is measured."""
    start_from: str | None = None
    """The model to cut: None is the teacher; run:RUN_ID is an earlier student, as the second of two
    cuts."""

    @pydantic.model_validator(mode="after")
    def _take_one_of_size_and_widths(self) -> Self:
        if (self.num_parameters is None) == (not self.given_widths()):
            raise ValueError(
                "takes either num_parameters or widths "
                f"({', '.join(Widths.model_fields)}); write one of the two"
            )
        return self

    @property
    def start(self) -> str | None:
        """The model that is cut. None is the teacher."""
        return self.start_from

    def slug(self) -> str:
        """`60m_wide`, or the widths: `h384f960_wide`."""
        size = (
            format_count(self.num_parameters).lower()
            if self.num_parameters
            else self._short_widths()
        )
        return f"{size}_wide"

    def label(self, num_parameters: int | None = None) -> str:
        """`60M wide`."""
        known = self.num_parameters or num_parameters
        return f"{format_count(known) if known else self._short_widths()} wide"


class BothStudent(StudentSpec):
    """The teacher with fewer and narrower layers, to a number of parameters."""

    kind: Literal["both"]
    num_parameters: PositiveInt
    """Target size; about equal shares of layers, hidden size and MLP channels are kept."""
    min_depth: float = Field(0.5, gt=0, le=1)
    """The smallest share of the layers to keep."""
    min_width: float = Field(0.5, gt=0, le=1)
    """The smallest share of the hidden size and of the MLP channels to keep."""
    choice: Literal["block_influence", "uniform", "greedy"] = "block_influence"
    """Which layers are kept, as for a depth student."""
    sample_blocks: PositiveInt = 16
    """Blocks of the corpus on which importance is measured."""
    start_from: str | None = None
    """The model to cut: None is the teacher; run:RUN_ID is an earlier student, as the second of two
    cuts."""

    @property
    def start(self) -> str | None:
        """The model that is cut. None is the teacher."""
        return self.start_from

    def slug(self) -> str:
        """`60m`."""
        return format_count(self.num_parameters).lower()

    def label(self, num_parameters: int | None = None) -> str:
        """`60M both ways`."""
        return f"{format_count(self.num_parameters)} both ways"


class CheckpointStudent(StudentSpec):
    """A smaller model that already exists. Nothing is cut."""

    kind: Literal["checkpoint"]
    model: str = Field(min_length=1)
    """A hub id, a folder, gguf:FILE or run:RUN_ID, with the teacher's tokenizer."""

    @property
    def start(self) -> str | None:
        """The model itself."""
        return self.model

    def slug(self) -> str:
        """The end of the model's name, as in `smollm2_360m`."""
        return re.sub(r"[^a-z0-9._]+", "_", self._end().lower()).strip("._")[:40] or "model"

    def label(self, num_parameters: int | None = None) -> str:
        """The end of the model's name, as in `SmolLM2-360M`."""
        return self._end()

    def _end(self) -> str:
        return self.model.rstrip("/").rpartition("/")[2].removeprefix("run:")


class FreshStudent(StudentSpec, Widths):
    """The teacher's architecture at other sizes, with random weights."""

    kind: Literal["fresh"]
    num_layers: PositiveInt | None = None
    """Number of layers. None is as many as the teacher has."""
    num_parameters: PositiveInt | None = None
    """Target size instead of widths, divided among layers and widths as for `both`."""
    seed: NonNegativeInt = 0
    """Decides the random weights."""
    start_from: Added[str | None] = None
    """The model whose architecture and tokenizer it copies. None is the teacher."""

    @property
    def start(self) -> str | None:
        """The model whose architecture it copies. None is the teacher."""
        return self.start_from

    @pydantic.model_validator(mode="after")
    def _take_one_of_size_and_widths(self) -> Self:
        if self.num_parameters is not None and (self.given_widths() or self.num_layers is not None):
            raise ValueError("takes either num_parameters or sizes; write one of the two")
        return self

    def slug(self) -> str:
        """`60m_fresh`, or the sizes: `10lh384_fresh`."""
        layers = f"{self.num_layers}l" if self.num_layers else ""
        sizes = (
            format_count(self.num_parameters).lower()
            if self.num_parameters
            else self._short_widths()
        )
        return f"{layers}{sizes}_fresh".removeprefix("_")

    def label(self, num_parameters: int | None = None) -> str:
        """`60M fresh`."""
        known = self.num_parameters or num_parameters
        return f"{format_count(known)} fresh" if known else "fresh"


def format_count(num_parameters: int) -> str:
    """A number of parameters in at most three digits: `60M`, `1.5B`, `61.4k`."""
    for factor, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if num_parameters >= 0.9995 * factor:
            return f"{float(f'{num_parameters / factor:.3g}'):g}{unit}"
    return str(num_parameters)


def _kind_of(student: Any) -> str:
    """The kind that data or a student names; without one it is a depth student, the first kind."""
    named = student.get("kind") if isinstance(student, Mapping) else getattr(student, "kind", None)
    return str(named or "depth")


Student = Annotated[
    Annotated[DepthStudent, Tag("depth")]
    | Annotated[WidthStudent, Tag("width")]
    | Annotated[BothStudent, Tag("both")]
    | Annotated[CheckpointStudent, Tag("checkpoint")]
    | Annotated[FreshStudent, Tag("fresh")],
    Discriminator(_kind_of),
]
"""A student of any kind; `kind` says which."""
