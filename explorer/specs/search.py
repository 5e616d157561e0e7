"""A search over variants of one run: the better ones get more training."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pydantic
from pydantic import Field

from explorer.errors import BadInput
from explorer.files import yaml_files
from explorer.specs.base import Spec
from explorer.specs.runs import RunSpec

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,76}$"
"""What a search may be called: a run's name is this one and the number of a round."""

UNCHANGED = "as it is"
"""What the run without changes is called."""

FIXED = {
    "distill": (
        "corpus",
        "block_tokens",
        "heldout_blocks",
        "seed",
        "temperature",
        "top_k",
        "teacher_bits",
        "max_tokens",
    ),
    "student": (),
}
"""The parts of a run that a variant may change, each with the fields that it may not: those decide
what the held-out KL is measured on."""


class TuneSpec(Spec):
    """Successive halving over variants of a run.

    Source: Jamieson and Talwalkar 2016, arXiv:1502.07943.
    """

    name: str = Field("tune", pattern=NAME_PATTERN)
    """The beginning of every run's id."""
    run: RunSpec
    """The run to improve. It takes part unchanged, and its budget is that of the last round."""
    variants: tuple[dict[str, Any], ...] = Field(min_length=1)
    """Changes to the run's spec, as in {distill: {learning_rate: 0.001}}."""
    rounds: int = Field(3, ge=1, le=10)
    """Number of rounds. Each trains the surviving variants `keep` times longer than the last."""
    keep: int = Field(2, ge=2, le=10)
    """Keeps 1 in N variants each round and trains the survivors N times longer."""

    @pydantic.model_validator(mode="after")
    def _refuse_variants_that_cannot_be_compared(self) -> Self:
        if self.run.distill is None:
            raise ValueError("run needs distill: a tournament compares ways of training")
        for changes in self.variants:
            for part, fields in changes.items():
                if part not in FIXED or not isinstance(fields, Mapping):
                    raise ValueError(
                        f"variants may change distill and student, as in distill: "
                        f"{{learning_rate: 0.001}}; got {part}: {fields}"
                    )
                if fixed := [name for name in fields if name in FIXED[part]]:
                    raise ValueError(
                        f"variants may not change {part}.{fixed[0]}: the held-out KLs of two "
                        "variants would not be comparable; change it in run"
                    )
        self.contenders()
        return self

    def contenders(self) -> dict[str, RunSpec]:
        """Each contender's changes in words to its whole spec; the unchanged run comes first.

        Raises:
            ValueError: A variant makes an impossible spec.
        """
        specs = {UNCHANGED: self.run}
        for changes in self.variants:
            try:
                specs[_in_words(changes)] = RunSpec.parse(_merged(self.run, changes), "variants")
            except BadInput as error:
                raise ValueError(str(error)) from error
        return specs

    @property
    def tune_id(self) -> str:
        """Name and hash of the spec: the same spec is the same tournament."""
        return f"{self.name}-{self.digest()}"

    def in_round(self, contender: RunSpec, number: int) -> RunSpec:
        """A contender's run in a round, counted from 0: training alone, with the round's budget."""
        assert contender.distill is not None, "checked by the validator"
        distill = contender.distill.with_(max_tokens=self.tokens_of_round(number))
        return contender.with_(
            name=f"{self.name}-{number + 1}",
            distill=distill.model_dump(),
            capability=None,
            latency=None,
        )

    def last_round(self) -> list[RunSpec]:
        """Every contender's run as the last round would have it, the longest that it can get."""
        return [self.in_round(run, self.rounds - 1) for run in self.contenders().values()]

    def tokens_of_round(self, number: int) -> int:
        """Scored tokens of each run in a round, counted from 0. The last round has them all."""
        assert self.run.distill is not None, "checked by the validator"
        return max(1, self.run.distill.max_tokens // int(self.keep ** (self.rounds - 1 - number)))

    def survivors(self, num_contenders: int) -> int:
        """How many of this many contenders go on to the next round."""
        return math.ceil(num_contenders / self.keep)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a tournament from its YAML file.

        Raises:
            BadInput: No such file, or no valid tournament in it.
        """
        return cls.from_document(yaml_files.read(path, "the spec"), str(path))


def _merged(run: RunSpec, changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The run's plain data with the changes. A student with a `kind` replaces the whole student."""
    data = run.model_dump()
    for part, fields in changes.items():
        unchanged = {} if "kind" in fields else data[part]
        data[part] = {**unchanged, **fields}
    return data


def _in_words(changes: Mapping[str, Mapping[str, Any]]) -> str:
    pairs = [f"{name} {value}" for fields in changes.values() for name, value in fields.items()]
    return ", ".join(pairs) or UNCHANGED
