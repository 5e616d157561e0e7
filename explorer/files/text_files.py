"""Text files that people bring: their encoding, their lines, and JSON Lines.

UTF-8 is expected; a byte order mark says what else it is, and is no part of the text. Only a line
feed ends a line of JSON Lines: JSON need not escape U+2028, U+2029 or U+0085 within a string, at
which `str.splitlines` would cut it.
"""

import codecs
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from explorer.errors import BadInput, reason_of

CHUNK_BYTES = 1 << 20
LONGEST_LINE = 64 << 20
"""Characters of a line above which a file is not read as lines."""
# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def encoding_of(start: bytes) -> str:
    """The encoding that a file's byte order mark names; UTF-8 without one."""
    return next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8")


def decode(content: bytes, name: str) -> str:
    """The text of a whole file, without its byte order mark; line ends stay as they are.

    Raises:
        BadInput: It is not text; the message names file and line.
    """
    return "".join(_decoded([content], name))


def read_chunks(path: Path) -> Iterator[str]:
    """The text of a file, about a megabyte at a time, as `decode` gives it.

    Raises:
        BadInput: It is not text, or cannot be opened; the message names file and line.
    """
    try:
        with path.open("rb") as file:
            yield from _decoded(iter(lambda: file.read(CHUNK_BYTES), b""), str(path))
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {reason_of(error)}.") from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not blank; only a line feed ends one.

    Raises:
        BadInput: As `read_chunks`, or a line is longer than `LONGEST_LINE`.
    """
    number, rest = 1, ""
    for chunk in read_chunks(path):
        *whole, rest = (rest + chunk).split("\n")
        for line in whole:
            if line and not line.isspace():
                yield number, line
            number += 1
        if len(rest) > LONGEST_LINE:
            raise BadInput(
                f"{path}, line {number}: longer than {LONGEST_LINE >> 20} million characters. "
                "Write one document a line, each ended by a line feed."
            )
    if rest.strip():
        yield number, rest


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line of a JSON Lines file; blank lines are skipped.

    Raises:
        BadInput: As `read_lines`, or a line is not a JSON object; the message names it.
    """
    for number, line in read_lines(path):
        try:
            yield number, parse_object(line)
        except ValueError as error:
            raise BadInput(f"{path}, line {number}: {error}.{array_hint(number, line)}") from error


def array_hint(number: int, line: str) -> str:
    """What to do with a file whose first line begins a JSON array; empty for another line."""
    if number > 1 or not line.lstrip("\ufeff \t").startswith("["):
        return ""
    return (
        " The file is one JSON array; JSON Lines have an object a line: "
        "jq -c '.[]' old.json > new.jsonl"
    )


def parse_object(line: str, *, numbers_as_text: bool = False) -> dict[str, Any]:
    """The JSON object that a line holds.

    Args:
        line: A line of JSON Lines.
        numbers_as_text: As in `parse_json`.

    Raises:
        ValueError: It is something else, or a key is there twice. The message begins with
            `expected` and names neither file nor line.
    """
    # Files put behind each other leave a mark at the beginning of a later line.
    data = parse_json(line.lstrip("\ufeff"), numbers_as_text=numbers_as_text)
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object, found {kind_of(data)}")
    return data


def parse_json(text: str, *, numbers_as_text: bool = False) -> Any:
    """The value that a JSON text holds.

    Args:
        text: The whole text.
        numbers_as_text: Keep each number as the text that is written, so that 1.50 stays 1.50.

    Raises:
        ValueError: It is not JSON, or a key is there twice. The message begins with `expected`.
    """
    as_text: dict[str, Any] = {"parse_int": str, "parse_float": str} if numbers_as_text else {}
    try:
        return json.loads(text, object_pairs_hook=_without_twins, **as_text)
    except RecursionError as error:
        raise ValueError("expected a JSON object, found one that is nested too deeply") from error
    except json.JSONDecodeError as error:
        what = f"{error.msg} at character {error.pos + 1}"
        raise ValueError(f"expected a JSON object, found text that is not JSON ({what})") from error
    except ValueError as error:
        if "digits" not in str(error):
            raise
        raise ValueError("expected numbers of up to 4,300 digits, found a longer one") from error


def kind_of(value: Any) -> str:
    """What a JSON value or a cell of a table is, in words."""
    names: dict[type, str] = {
        type(None): "nothing",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        bytes: "bytes",
        list: "a list",
        dict: "a mapping",
    }
    return names.get(type(value), f"a {type(value).__name__}")


def has_half_character(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, which JSON can write and no encoding."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        names = [key for key, _ in pairs]
        twin = next(key for key in names if names.count(key) > 1)
        raise ValueError(f"expected each key once, found {twin!r} twice")
    return data


def _decoded(chunks: Iterable[bytes], name: str) -> Iterator[str]:
    decoder, num_lines = None, 1
    for chunk in itertools.chain(chunks, [b""]):  # the empty one ends the file
        if decoder is None:
            encoding = encoding_of(chunk)
            decoder = codecs.getincrementaldecoder(encoding)()
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(encoding, errors="ignore")
            if "utf-8" in encoding and ("\0" in before or b"\0" in error.object[error.start :][:4]):
                raise BadInput(_null_byte(name, num_lines, before)) from error
            raise BadInput(
                f"{name}, line {num_lines + before.count(chr(10))}: expected "
                f"{encoding.removesuffix('-sig').upper()}, found the byte "
                f"0x{error.object[error.start]:02x}, which is not. Save the file as UTF-8; from "
                "Latin-1 or Windows-1252: iconv -f WINDOWS-1252 -t UTF-8 old > new"
            ) from error
        if "\0" in text:
            raise BadInput(_null_byte(name, num_lines, text))
        num_lines += text.count("\n")
        if text:
            yield text


def _null_byte(name: str, line: int, text: str) -> str:
    """What to say of a null byte, whose line is counted from here."""
    line += text.partition("\0")[0].count("\n")
    return (
        f"{name}, line {line}: expected text, found a null byte. It is UTF-16 without a byte "
        "order mark, or no text at all. Save it as UTF-8."
    )
