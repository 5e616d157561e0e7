"""The base of every spec: frozen, strict about its keys, YAML in and out, errors in words."""

import difflib
import hashlib
import json
import operator
import re
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import pydantic
from pydantic import BaseModel, ConfigDict

from explorer.errors import BadInput
from explorer.files import yaml_files
from explorer.files.yaml_files import Document, Places

Bits = Literal[8, 4]
"""Bits of a linear weight that torchao quantises; 4 only on NVIDIA GPUs."""

_ADDED = object()
ValueT = TypeVar("ValueT")
Added = Annotated[ValueT, _ADDED]
"""The type of a field that is younger than the first records, as in `Added[int]`.

At its default such a field is left out of the spec's hash, so older runs keep their ids. Its
default may therefore never change.
"""


class Spec(BaseModel):
    """The base of every spec: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @classmethod
    def parse(cls, data: Any, source: str = "the spec", places: Places | None = None) -> Self:
        """Build a spec from plain data.

        Args:
            data: Keys and values.
            source: What to call the data in an error.
            places: Where the values are in their file.

        Raises:
            BadInput: A key is unknown or a value impossible. The message names each of them.
        """
        try:
            return cls.model_validate(data)
        except pydantic.ValidationError as error:
            sentences = " ".join(_in_words(error, cls, places))
            raise BadInput(f"{source}{', ' if places else ': '}{sentences}") from error

    @classmethod
    def from_yaml(cls, text: str, source: str = "the spec") -> Self:
        """Read a spec from YAML text.

        Raises:
            BadInput: The text is not a YAML mapping, or not a valid spec.
        """
        return cls.from_document(yaml_files.parse(text, source), source)

    @classmethod
    def from_document(cls, document: Document, source: str = "the spec") -> Self:
        """Build a spec from a YAML file.

        Raises:
            BadInput: It is not a mapping, or not a valid spec.
        """
        if not isinstance(document.data, dict):
            found = "nothing" if document.data is None else type(document.data).__name__
            raise BadInput(f"{source} should be a mapping of keys, got {found}.")
        return cls.parse(document.data, source, document.places)

    def to_yaml(self) -> str:
        """The whole spec, defaults included, so that a later default changes nothing."""
        return yaml_files.dump(self.model_dump(mode="json"))

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


def _in_words(
    error: pydantic.ValidationError, cls: type[BaseModel], places: Places | None
) -> list[str]:
    """One sentence per error: where it is, the key, what it should be, what came.

    By their lines, but last what is missing, whose line is that of the part around it.
    """
    sentences = []
    for problem in error.errors():
        parts, owner = _key_and_owner(cls, problem["loc"])
        unknown = problem["type"] == "extra_forbidden"
        where = f"{places.of(parts, key=unknown)}: " if places else ""
        order = problem["type"] == "missing", places.at(parts, key=unknown) if places else ()
        sentences.append((order, where + _sentence(problem, cls, parts, owner)))
    return [sentence for _, sentence in sorted(sentences, key=operator.itemgetter(0))]


def _sentence(problem: Any, cls: type[BaseModel], parts: list[str], owner: type[BaseModel]) -> str:
    key = ".".join(parts)
    shown = repr(problem["input"])
    # Somebody may have written an API key where the name of its variable belongs.
    may_be_secret = "key" in parts[-1] if parts else False
    got = f", got {shown}" if len(shown) < 80 and not may_be_secret else ""
    reason = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    context = problem.get("ctx", {})
    if problem["type"] == "extra_forbidden":
        meant = _meant(parts[-1], parts[:-1], owner, cls)
        known = f"known here: {', '.join(owner.model_fields)}."
        hint = f"did you mean {meant}? K" if meant else "k"
        return f"unknown key {key}; {hint}{known[1:]}"
    if problem["type"] == "missing":
        return f"{key} is missing; write a value for it."
    if problem["type"] == "union_tag_invalid":
        kinds = context["expected_tags"].replace("'", "")
        meant = _close(context["tag"], kinds.split(", "))
        hint = f" Did you mean {meant}?" if meant else ""
        return f"{key}.kind should be one of {kinds}, got {context['tag']!r}.{hint}"
    if problem["type"] == "string_pattern_mismatch":
        field = owner.model_fields[parts[-1]]
        meaning = (field.description or reason).rstrip(".")
        return f"{key} is not possible{got}. It is: {meaning}."
    if not key:
        return f"{reason}."
    if problem["type"] == "literal_error":
        meant = _close(problem["input"], re.findall(r"'([^']*)'", context["expected"]))
        return f"{key} {reason}{got}." + (f" Did you mean {meant}?" if meant else "")
    if problem["type"] == "tuple_type":
        return f"{key} should be a list{got}. Put its items in brackets, as in [a, b]."
    if problem["type"] == "string_type" and isinstance(problem["input"], int | float):
        return f"{key} {reason}{got}. Put it in quotes."
    return f"{key} {reason}{got}."


def _close(word: Any, known: list[str]) -> str:
    """The known word that a misspelt one may mean; empty if none is close."""
    plain = {re.sub(r"[^a-z0-9]", "", name.casefold()): name for name in known}
    wanted = re.sub(r"[^a-z0-9]", "", str(word).casefold())
    close = difflib.get_close_matches(wanted, plain, n=1, cutoff=0.7)
    return plain[close[0]] if close else ""


def _meant(key: str, above: list[str], owner: type[BaseModel], cls: type[BaseModel]) -> str:
    """The key that an unknown one may mean: a close one here, or the same in another part."""
    if close := _close(key, list(owner.model_fields)):
        return ".".join([*above, close])
    if key in cls.model_fields:
        return f"{key} at the top"
    within = [
        f"{name}.{key}"
        for name, field in cls.model_fields.items()
        for spec in _specs_in(field.annotation)
        if key in spec.model_fields
    ]
    return within[0] if within else ""


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
