"""Students: the kinds there are, their sizes, and what a run and a person call them."""

import abc
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import Discriminator, Field, NonNegativeInt, PositiveInt, Tag

from explorer.specs.base import Spec

ONE_STEP = 0.5
"""The largest share of the parameters that one cut should take; more goes better in two."""


class StudentSpec(Spec):
    """What all kinds of students have in common: a kind, a size, a name for people."""

    kind: str

    @property
    def start(self) -> str | None:
        """The model that becomes the student; None is the teacher."""
        return None

    @abc.abstractmethod
    def slug(self) -> str:
        """Kind and size in a run's name, without a dash: `10l`, `60m_wide`."""

    @abc.abstractmethod
    def label(self, num_parameters: int | None = None) -> str:
        """Kind and size for people: `10 layers`, `60M wide`; the measured size where known."""


class DepthStudent(StudentSpec):
    """The teacher with fewer layers; everything else is kept."""

    added = {"start_from": None}

    kind: Literal["depth"] = "depth"
    num_layers: PositiveInt
    """Layers kept of the teacher's."""
    choice: Literal["block_influence", "uniform", "greedy"] = "block_influence"
    """Which layers stay: the ones that change the hidden state most, evenly spaced ones, or what
    is left after the layer whose loss raises the KL to the teacher least was dropped, again and
    again (slow)."""
    sample_blocks: PositiveInt = 16
    """Blocks of the corpus on which the importance is measured."""
    start_from: str | None = None
    """A smaller model to cut from, as in run:RUN_ID: the second of two steps. None is the
    teacher."""

    @property
    def start(self) -> str | None:
        """The model that is cut; None is the teacher."""
        return self.start_from

    def slug(self) -> str:
        """`10l`."""
        return f"{self.num_layers}l"

    def label(self, num_parameters: int | None = None) -> str:
        """`10 layers`."""
        return f"{self.num_layers} layers"


class Sizes(Spec):
    """Widths of a student; what is left out stays as the teacher has it."""

    hidden_size: PositiveInt | None = None
    """Width of the hidden state."""
    intermediate_size: PositiveInt | None = None
    """Channels of the MLP."""
    num_attention_heads: PositiveInt | None = None
    """Query heads."""
    num_key_value_heads: PositiveInt | None = None
    """Key-value heads of grouped-query attention; None keeps whole groups where that is possible,
    else as many query heads in every group."""

    def asked(self) -> dict[str, int]:
        """The sizes that are named."""
        named = {name: getattr(self, name) for name in Sizes.model_fields}
        return {name: size for name, size in named.items() if size is not None}

    def _short(self) -> str:
        letters = {
            "hidden_size": "h",
            "intermediate_size": "f",
            "num_attention_heads": "a",
            "num_key_value_heads": "k",
        }
        return "".join(f"{letters[name]}{size}" for name, size in self.asked().items())


class WidthStudent(StudentSpec, Sizes):
    """The teacher with all its layers, each narrower: by sizes, or to a number of parameters."""

    kind: Literal["width"]
    num_parameters: PositiveInt | None = None
    """The size to come close to in place of widths: hidden size and MLP channels are chosen."""
    min_width: float = Field(0.5, gt=0, le=1)
    """With num_parameters: the least share that stays of the hidden size and of the channels."""
    sample_blocks: PositiveInt = 16
    """Blocks of the corpus on which the importance is measured."""
    start_from: str | None = None
    """A smaller model to cut from, as in run:RUN_ID: the second of two steps. None is the
    teacher."""

    @pydantic.model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.num_parameters is None) == (not self.asked()):
            raise ValueError(
                "takes either num_parameters or widths "
                f"({', '.join(Sizes.model_fields)}); write one of the two"
            )
        return self

    @property
    def start(self) -> str | None:
        """The model that is cut; None is the teacher."""
        return self.start_from

    def slug(self) -> str:
        """`60m_wide`, or the widths: `h384f960_wide`."""
        size = rounded(self.num_parameters).lower() if self.num_parameters else self._short()
        return f"{size}_wide"

    def label(self, num_parameters: int | None = None) -> str:
        """`60M wide`."""
        known = self.num_parameters or num_parameters
        return f"{rounded(known) if known else self._short()} wide"


class BothStudent(StudentSpec):
    """The teacher with fewer and narrower layers, to a number of parameters."""

    kind: Literal["both"]
    num_parameters: PositiveInt
    """The size to come close to; layers, hidden size and MLP channels keep about equal shares."""
    min_depth: float = Field(0.5, gt=0, le=1)
    """The least share of the layers that stays."""
    min_width: float = Field(0.5, gt=0, le=1)
    """The least share that stays of the hidden size and of the MLP channels."""
    choice: Literal["block_influence", "uniform", "greedy"] = "block_influence"
    """Which layers stay; as for a depth student."""
    sample_blocks: PositiveInt = 16
    """Blocks of the corpus on which the importance is measured."""
    start_from: str | None = None
    """A smaller model to cut from, as in run:RUN_ID: the second of two steps. None is the
    teacher."""

    @property
    def start(self) -> str | None:
        """The model that is cut; None is the teacher."""
        return self.start_from

    def slug(self) -> str:
        """`60m`."""
        return rounded(self.num_parameters).lower()

    def label(self, num_parameters: int | None = None) -> str:
        """`60M both ways`."""
        return f"{rounded(self.num_parameters)} both ways"


class CheckpointStudent(StudentSpec):
    """A smaller model that exists already; nothing is cut."""

    kind: Literal["checkpoint"]
    model: str = Field(min_length=1)
    """The model: a hub id, a folder, gguf:FILE or run:RUN_ID, with the teacher's tokenizer."""

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


class FreshStudent(StudentSpec, Sizes):
    """The teacher's architecture at other sizes, with random weights."""

    added = {"start_from": None}

    kind: Literal["fresh"]
    num_layers: PositiveInt | None = None
    """Layers; None is as many as the teacher has."""
    num_parameters: PositiveInt | None = None
    """The size to come close to in place of sizes, shared out as for `both`."""
    seed: NonNegativeInt = 0
    """Start of the random weights."""
    start_from: str | None = None
    """The model whose architecture and tokenizer it takes; None is the teacher."""

    @property
    def start(self) -> str | None:
        """The model whose architecture it takes; None is the teacher."""
        return self.start_from

    @pydantic.model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.num_parameters is not None and (self.asked() or self.num_layers is not None):
            raise ValueError("takes either num_parameters or sizes; write one of the two")
        return self

    def slug(self) -> str:
        """`60m_fresh`, or the sizes: `10lh384_fresh`."""
        layers = f"{self.num_layers}l" if self.num_layers else ""
        sizes = rounded(self.num_parameters).lower() if self.num_parameters else self._short()
        return f"{layers}{sizes}_fresh".removeprefix("_")

    def label(self, num_parameters: int | None = None) -> str:
        """`60M fresh`."""
        known = self.num_parameters or num_parameters
        return f"{rounded(known)} fresh" if known else "fresh"


def rounded(num_parameters: int) -> str:
    """A number of parameters in three digits at most: `60M`, `1.5B`, `61.4k`."""
    for factor, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if num_parameters >= 0.9995 * factor:
            return f"{float(f'{num_parameters / factor:.3g}'):g}{unit}"
    return str(num_parameters)


def _kind_of(student: Any) -> str:
    """A student without a kind is a depth student, as all were before there were kinds."""
    found = student.get("kind", "depth") if isinstance(student, Mapping) else None
    return str(found or getattr(student, "kind", "depth"))


Student = Annotated[
    Annotated[DepthStudent, Tag("depth")]
    | Annotated[WidthStudent, Tag("width")]
    | Annotated[BothStudent, Tag("both")]
    | Annotated[CheckpointStudent, Tag("checkpoint")]
    | Annotated[FreshStudent, Tag("fresh")],
    Discriminator(_kind_of),
]
"""A student of any kind; `kind` says which."""
