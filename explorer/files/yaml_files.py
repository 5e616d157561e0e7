"""YAML files that people write: read strictly, with line and column in each error.

Plain scalars are numbers, true, false, null or text, as in YAML 1.2. PyYAML follows YAML 1.1, where
no is false, 0123 is 83, 12:30 is 750 and 2026-11-24 is a date. A key may be there once, and is
always text. Anchors and merge keys work; what they expand to is limited.

    document = yaml_files.parse("kd_weight: 0.5", "study.yaml")
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from explorer.errors import BadInput, reason_of
from explorer.files import text_files

MAX_BYTES = 1_000_000
MAX_VALUES = 100_000
"""Values of a file with its aliases expanded."""
MAX_DEPTH = 100
_PLAIN = "tag:yaml.org,2002:"
_SCALARS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(0|[1-9][0-9_]*)",
    "float": r"[-+]?((0|[1-9][0-9_]*)?\.[0-9]+|(0|[1-9][0-9_]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    "merge": r"<<",
}
"""Plain scalars that are no text. The first that matches counts."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # C if it is there
    """PyYAML's parser with the scalars above; it only composes, and constructs nothing."""

    yaml_implicit_resolvers: dict[str, Any] = {}


class _Dumper(yaml.SafeDumper):
    """Quotes each text that YAML 1.1 or 1.2 would read as something else."""


def _as_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Unquoted, PyYAML folds the line ends beyond ASCII to spaces.
    style = '"' if re.search("[\x85\u2028\u2029\ufeff]", text) else None
    return dumper.represent_scalar(_PLAIN + "str", text, style=style)


_Dumper.add_representer(str, _as_text)
for _kind, _pattern in _SCALARS.items():
    _regex = re.compile(rf"^(?:{_pattern})$")
    _Loader.add_implicit_resolver(_PLAIN + _kind, _regex, None)
    _Dumper.add_implicit_resolver(_PLAIN + _kind, _regex, None)

KeyPath = tuple[str, ...]
Place = tuple[int, int]
"""Line and column, from 1."""


@dataclasses.dataclass(frozen=True)
class Places:
    """Where a document's keys and values are, by the keys and indices that lead to them."""

    keys: dict[KeyPath, Place]
    values: dict[KeyPath, Place]
    below: KeyPath = ()
    """The part of the document that a caller looks at."""

    def within(self, *path: str) -> "Places":
        """The places of one part of the document."""
        return dataclasses.replace(self, below=(*self.below, *path))

    def of(self, path: Sequence[str], *, key: bool = False) -> str:
        """`line 3, column 5` of a value or its key, or of the nearest part around it."""
        line, column = self.at(path, key=key)
        return f"line {line}, column {column}"

    def at(self, path: Sequence[str], *, key: bool = False) -> Place:
        """Line and column, from 1, of a value or its key, or of the nearest part around it."""
        full = (*self.below, *path)
        for end in range(len(full), -1, -1):
            found = self.keys if key and end == len(full) else self.values
            if place := found.get(full[:end]):
                return place
        return 1, 1


@dataclasses.dataclass(frozen=True)
class Document:
    """A YAML file's content."""

    data: Any
    places: Places


def read(path: Path, what: str) -> Document:
    """Read a YAML file.

    Args:
        path: The file.
        what: What it is, for errors, as in "the spec".

    Raises:
        BadInput: It can't be read, or as `parse`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadInput(f"Could not read {what} {path}: {reason_of(error)}.") from error
    if len(content) > MAX_BYTES:
        raise BadInput(f"{path} is larger than {MAX_BYTES:,} bytes. Is it {what}?")
    return parse(text_files.decode(content, str(path)), str(path))


def parse(text: str, source: str) -> Document:
    """Parse YAML text.

    Args:
        text: The whole file.
        source: The file's name, for errors.

    Raises:
        BadInput: It is not YAML, a key is there twice, a tag or alias is not allowed, or it is too
            large; the message names line and column.
    """
    node, places = _compose(text, source), Places({}, {})
    value = None if node is None else _Builder(source, places).value(node, ())
    return Document(value, places)


def refuse_unsafe(content: bytes, source: str) -> None:
    """Refuse a file of another reader, such as lm-eval, that `parse` would refuse but for its tags.

    Raises:
        BadInput: It is not YAML, a key is there twice, or it is too deep or too large.
    """
    if node := _compose(content, source):
        _Builder(source, Places({}, {}), any_tag=True).value(node, ())


def refuse_deep(content: str | bytes, source: str) -> None:
    """Refuse a file that is nested so deeply that libyaml would end the process.

    Raises:
        BadInput: It is, or it is not YAML.
    """
    depth = 0
    try:
        for event in yaml.parse(content, Loader=_Loader):  # noqa: S506 - a safe loader
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise BadInput(
                    f"{source}, line {line}: nested more than {MAX_DEPTH} levels deep. Write it "
                    "flatter."
                )
    except (yaml.YAMLError, UnicodeError) as error:
        raise BadInput(_not_yaml(source, error, content)) from error


def dump(data: Any) -> str:
    """YAML text that `parse` and YAML 1.1 readers read alike."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _compose(content: str | bytes, source: str) -> yaml.Node | None:
    refuse_deep(content, source)
    try:
        return yaml.compose(content, Loader=_Loader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise BadInput(_not_yaml(source, error, content)) from error


class _Builder:
    """Builds plain values from PyYAML's nodes, and notes where each is."""

    def __init__(self, source: str, places: Places, *, any_tag: bool = False) -> None:
        self._any_tag = any_tag
        self._source = source
        self._places = places
        self._open: set[int] = set()
        self._num_values = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        """The value of a node, with all below it."""
        self._places.values.setdefault(path, _place(node))
        self._num_values += 1
        if self._num_values > MAX_VALUES:
            raise self._refusal(node, f"more than {MAX_VALUES:,} values, with aliases expanded")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            raise self._refusal(node, "an anchor that contains itself; remove the alias to it")
        if len(self._open) > MAX_DEPTH:
            raise self._refusal(node, f"aliases that nest more than {MAX_DEPTH} levels deep")
        self._open.add(id(node))
        result: Any
        tag = node.tag
        if self._any_tag:
            tag = _PLAIN + ("map" if isinstance(node, yaml.MappingNode) else "seq")
        if tag == _PLAIN + "seq":
            result = [self.value(item, (*path, str(i))) for i, item in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode) and tag == _PLAIN + "map":
            result = self._mapping(node, path)
        else:
            raise self._unknown_tag(node)
        self._open.remove(id(node))
        return result

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        _refuse_twins(self._source, node)
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._refusal(key, "a list or mapping as a key; keys are text")
            if key.tag == _PLAIN + "merge":
                merged = {**self._merge(value, path), **merged}
                continue
            inner = (*path, key.value)
            self._places.keys[inner] = _place(key)
            self._places.values[inner] = _place(value)
            own[key.value] = self.value(value, inner)
        return {**merged, **own}

    def _merge(self, node: yaml.Node, path: KeyPath) -> dict[str, Any]:
        """The keys that `<<` takes from a mapping, or from a list of them; the first one counts."""
        value = self.value(node, (*path, "<<"))
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, dict) for part in parts):
            raise self._refusal(node, "<< without a mapping; write an alias of one, as in *base")
        return {key: value for part in reversed(parts) for key, value in part.items()}

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text = str(node.value)
        match node.tag.removeprefix(_PLAIN):
            case "str" | "merge":
                return text
            case "null":
                return None
            case "bool" if text.lower() in ("true", "false"):
                return text.lower() == "true"
            case "int" if re.fullmatch(r"[-+]?[0-9_]{1,300}", text):
                return int(text)
            case "float" if re.fullmatch(_SCALARS["float"], text):
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if self._any_tag:
            return text
        raise self._unknown_tag(node)

    def _unknown_tag(self, node: yaml.Node) -> BadInput:
        tag = node.tag.replace(_PLAIN, "!!")
        shown = f" {node.value[:40]!r}" if isinstance(node, yaml.ScalarNode) else ""
        return self._refusal(node, f"{tag}{shown}, which is not plain data")

    def _refusal(self, node: yaml.Node, found: str) -> BadInput:
        line, column = _place(node)
        return BadInput(f"{self._source}, line {line}, column {column}: found {found}.")


def _place(node: yaml.Node) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _refuse_twins(source: str, mapping: yaml.MappingNode) -> None:
    first: dict[str, yaml.Node] = {}
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _PLAIN + "merge":
            continue
        if key.value in first:
            line, column = _place(key)
            raise BadInput(
                f"{source}, line {line}, column {column}: expected each key once, found "
                f"{key.value!r:.80} again, which is in line {_place(first[key.value])[0]} already. "
                "Keep one of them."
            )
        first[key.value] = key


def _not_yaml(source: str, error: Exception, content: str | bytes) -> str:
    """What is wrong with a file that is no YAML, in one line."""
    mark = getattr(error, "problem_mark", None)
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    lines = (content if isinstance(content, str) else content.decode("utf-8", "replace")).split(
        "\n"
    )
    hint = ""
    if mark and "\t" in lines[min(mark.line, len(lines) - 1)][: mark.column + 1]:
        hint = " Indent with spaces."
    elif mark and re.match(r".?[@`*&%]", lines[min(mark.line, len(lines) - 1)][mark.column - 1 :]):
        hint = " Put a text that begins with a sign in quotes."
    elif "mapping values are not allowed" in problem:
        hint = " Put a text with a colon in quotes."
    if "another document" in problem:
        return f"{source}{where}: expected one document, found a second one. Keep one of them."
    return f"{source}{where}: expected YAML, but {problem}.{hint}"
