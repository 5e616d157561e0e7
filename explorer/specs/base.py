"""The base of every spec: frozen, strict about its keys, YAML in and out, errors in words."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict

from explorer.errors import BadInput

Bits = Literal[8, 4]
"""Bits of a linear weight that torchao quantises; 4 only on CUDA."""

_ADDED = object()
ValueT = TypeVar("ValueT")
Added = Annotated[ValueT, _ADDED]
"""The type of a field that is younger than the first records, as in `Added[int]`.

At its default such a field is left out of the spec's hash, so older runs keep their ids. Its
default may therefore never change.
"""


class Spec(BaseModel):
    """The base of every spec: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def parse(cls, data: Any, source: str = "the spec") -> Self:
        """Build a spec from plain data.

        Raises:
            BadInput: A key is unknown or a value impossible. The message names each of them.
        """
        try:
            return cls.model_validate(data)
        except pydantic.ValidationError as error:
            raise BadInput(f"{source}: " + " ".join(_in_words(error, cls))) from error

    @classmethod
    def from_yaml(cls, text: str, source: str = "the spec") -> Self:
        """Read a spec from YAML text.

        Raises:
            BadInput: The text is not a YAML mapping, or not a valid spec.
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

    @classmethod
    def default(cls, name: str) -> Any:
        """The default of a field."""
        return cls.model_fields[name].default

    def identity(self) -> dict[str, Any]:
        """The fields that count in the hash: all but `Added` ones at their default."""
        values = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if _ADDED in field.metadata and value == field.default:
                del values[name]
            elif isinstance(value, Spec):
                values[name] = value.identity()
        return values

    def digest(self) -> str:
        """Eight hex digits that differ when any field differs."""
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def read_spec_text(path: Path) -> str:
    """The text of a spec's file.

    Raises:
        BadInput: The file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"Could not read the spec {path}: {error}") from error


def _in_words(error: pydantic.ValidationError, cls: type[BaseModel]) -> list[str]:
    """One sentence per error: the key, what it should be, what came."""
    sentences = []
    for problem in error.errors():
        parts, owner = _key_and_owner(cls, problem["loc"])
        key = ".".join(parts)
        shown = repr(problem["input"])
        # Somebody may have written an API key where the name of its variable belongs.
        may_be_secret = "key" in parts[-1] if parts else False
        got = f", got {shown}" if len(shown) < 80 and not may_be_secret else ""
        reason = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
        if problem["type"] == "extra_forbidden":
            sentences.append(f"unknown key {key}; known here: {', '.join(owner.model_fields)}.")
        elif problem["type"] == "missing":
            sentences.append(f"{key} is missing; write a value for it.")
        elif problem["type"] == "union_tag_invalid":
            kinds = problem["ctx"]["expected_tags"].replace("'", "")
            sentences.append(f"{key}.kind should be one of {kinds}, got {problem['ctx']['tag']!r}.")
        elif problem["type"] == "string_pattern_mismatch":
            field = owner.model_fields[parts[-1]]
            meaning = (field.description or reason).rstrip(".")
            sentences.append(f"{key} is not possible{got}. It is: {meaning}.")
        elif key:
            sentences.append(f"{key} {reason}{got}.")
        else:
            sentences.append(f"{reason}.")
    return sentences


def _key_and_owner(cls: type[BaseModel], loc: tuple[Any, ...]) -> tuple[list[str], type[BaseModel]]:
    """The parts of an error's key as people write it, and the spec that has the key.

    pydantic puts a student's kind into the key as a part of its own; a file does not.
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
    """The only value that this spec's `kind` may have."""
    return str(get_args(spec.model_fields["kind"].annotation)[0])


def _specs_in(annotation: Any) -> list[type[BaseModel]]:
    """The specs that a field may hold, at any depth of its annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [spec for part in get_args(annotation) for spec in _specs_in(part)]
