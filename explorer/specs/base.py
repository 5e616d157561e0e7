"""What every spec is: frozen, strict about its keys, YAML in and out, refused in words."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict

from explorer.errors import BadInput

Bits = Literal[8, 4]
"""Bits of a linear weight that torchao rounds; 4 only on CUDA."""


class Spec(BaseModel):
    """The base of every spec: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    added: ClassVar[Mapping[str, Any]] = {}
    """Fields younger than the first records, each with the value that changes nothing: a spec
    that leaves them so is the same run as before they came."""

    @classmethod
    def parse(cls, data: Any, source: str = "the spec") -> Self:
        """Build a spec from plain data; say in words what is wrong with it.

        Raises:
            BadInput: A key is unknown or a value impossible. The message names every one.
        """
        try:
            return cls.model_validate(data)
        except pydantic.ValidationError as error:
            raise BadInput(f"{source}: " + " ".join(_in_words(error, cls))) from error

    @classmethod
    def from_yaml(cls, text: str, source: str = "the spec") -> Self:
        """Read a spec from YAML text.

        Raises:
            BadInput: The text is no YAML mapping, or no valid spec.
        """
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise BadInput(f"{source} is not YAML: {str(error).splitlines()[0]}") from error
        if not isinstance(data, dict):
            raise BadInput(f"{source} should be a mapping of keys, got {type(data).__name__}.")
        return cls.parse(data, source)

    def to_yaml(self) -> str:
        """The whole spec, defaults included, so that a later default changes nothing."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def with_(self, **changes: Any) -> Self:
        """A copy with these fields changed, validated again."""
        return type(self).parse({**self.model_dump(), **changes})

    def decisive(self) -> dict[str, Any]:
        """Every field that makes this spec another run than one without it."""
        values = self.model_dump(mode="json")
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name in self.added and value == self.added[name]:
                del values[name]
            elif isinstance(value, Spec):
                values[name] = value.decisive()
        return values

    def digest(self) -> str:
        """Eight hex digits that differ when any field does."""
        text = json.dumps(self.decisive(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def text_of(path: Path) -> str:
    """The text of a spec's file.

    Raises:
        BadInput: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"Could not read the spec {path}: {error}") from error


def _in_words(error: pydantic.ValidationError, cls: type[BaseModel]) -> list[str]:
    """One sentence an error: the key, what it should be, what came."""
    sentences = []
    for problem in error.errors():
        parts, owner = _place(cls, problem["loc"])
        key = ".".join(parts)
        shown = repr(problem["input"])
        # A key that was written where its variable's name belongs is not repeated.
        secret = "key" in parts[-1] if parts else False
        got = f", got {shown}" if len(shown) < 80 and not secret else ""
        said = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
        if problem["type"] == "extra_forbidden":
            sentences.append(f"unknown key {key}; known here: {', '.join(owner.model_fields)}.")
        elif problem["type"] == "missing":
            sentences.append(f"{key} is missing; write a value for it.")
        elif problem["type"] == "union_tag_invalid":
            kinds = problem["ctx"]["expected_tags"].replace("'", "")
            sentences.append(f"{key}.kind should be one of {kinds}, got {problem['ctx']['tag']!r}.")
        elif problem["type"] == "string_pattern_mismatch":
            field = owner.model_fields[parts[-1]]
            meaning = (field.description or said).rstrip(".")
            sentences.append(f"{key} is not possible{got}. It is: {meaning}.")
        elif key:
            sentences.append(f"{key} {said}{got}.")
        else:
            sentences.append(f"{said}.")
    return sentences


def _place(cls: type[BaseModel], loc: tuple[Any, ...]) -> tuple[list[str], type[BaseModel]]:
    """An error's key as people write it, and the spec that owns the key.

    pydantic names the kind of a student as a step of its own; a file has no such step.
    """
    parts: list[str] = []
    owner, within = cls, [cls]
    for part in loc:
        kinds = {_default_kind(spec): spec for spec in within} if len(within) > 1 else {}
        if part in kinds:
            within = [kinds[part]]
            continue
        parts.append(str(part))
        if isinstance(part, int) or not within:
            continue
        owner = within[0]
        within = (
            _specs_in(owner.model_fields[part].annotation) if part in owner.model_fields else []
        )
    return parts, owner


def _default_kind(spec: type[BaseModel]) -> str:
    """The one value that this spec's `kind` may have."""
    return str(get_args(spec.model_fields["kind"].annotation)[0])


def _specs_in(annotation: Any) -> list[type[BaseModel]]:
    """The specs that a field may hold, wherever its annotation names them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [spec for one in get_args(annotation) for spec in _specs_in(one)]
