"""Reads question files: rows of a JSON Lines or CSV file, each with its line number.

Every value stays the text that the file holds: 1.50 is not 1.5, and 007 is not 7.

    rows = question_files.read_rows("quiz.csv", Path("quiz.csv").read_bytes())
"""

import csv
import dataclasses
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from explorer.errors import BadInput, reason_of
from explorer.files import text_files

KINDS = ("jsonl", "csv", "tsv")
MAX_MB = 50
MAX_VALUES = 2_000_000
"""Cells, and items of lists within them, of an uploaded file."""
NAMED = 5
"""How many rows an error names; the rest are counted."""
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One question as the file holds it."""

    line: int
    """The line on which it begins, from 1."""
    cells: dict[str, Any]
    """Text by column; from JSON Lines also lists, true, false and null."""


class BadHeader(BadInput):
    """The first row of a CSV file can't be the columns' names."""


def read_file(path: Path, *, header: bool = True) -> list[Row]:
    """Read a question file from disk, as `read_rows`.

    Raises:
        BadInput: It can't be read, or as `read_rows`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_MB * 2**20 + 1)
    except OSError as error:
        raise BadInput(f"Could not read {path}: {reason_of(error)}.") from error
    return read_rows(path.name, content, header=header)


def read_rows(name: str, content: bytes, *, header: bool = True) -> list[Row]:
    """Read the rows of a question file.

    Args:
        name: The file's name; its ending says what it is.
        content: The whole file.
        header: Whether the first row of a CSV file names the columns. Without a header they are
            called "column 1" and so on.

    Raises:
        BadInput: The file is of another kind, empty or too large, or has invalid rows.
    """
    kind = Path(name).suffix.lower().lstrip(".")
    if kind not in KINDS:
        raise BadInput(f"A custom task needs a .jsonl, .csv or .tsv file, got {name!r}.")
    if len(content) > MAX_MB * 2**20:
        raise BadInput(f"{name!r} is larger than {MAX_MB} MB. Use a sample of its rows.")
    text = text_files.decode(content, name)
    rows = _from_jsonl(name, text) if kind == "jsonl" else _from_csv(name, text, header)
    if not rows:
        raise BadInput(f"{name!r} has no rows. Add one row per question.")
    return rows


def rows_of(path: str, name: str, *, header: bool) -> list[tuple[int, dict[str, Any]]]:
    """Read an uploaded file: line and cells of each row.

    Raises:
        BadInput: As `read_rows`, or it has more rows and cells than a task can use.
    """
    rows = read_rows(name, Path(path).read_bytes(), header=header)
    num_values = 0
    pending: list[Any] = [row.cells for row in rows]
    while pending:
        value = pending.pop()
        num_values += 1
        if num_values > MAX_VALUES:
            raise BadInput(
                f"{name!r} has more than {MAX_VALUES:,} rows and cells. Use a sample of its rows."
            )
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return [(row.line, row.cells) for row in rows]


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Every column of any row, in order of first appearance."""
    return list(dict.fromkeys(column for row in rows for column in row.cells))


def parse_all(name: str, items: Sequence[tuple[int, Any]], parse: Callable[[Any], Any]) -> Any:
    """Parse every item, and report all errors together, so the user can fix them in one go.

    Args:
        name: The file.
        items: Each item with its line.
        parse: Raises ValueError with what is wrong, to go behind the line's number.

    Raises:
        BadInput: Some items are invalid; the message names the first few.
    """
    parsed, errors = [], []
    for line, item in items:
        try:
            parsed.append(parse(item))
        except ValueError as error:
            errors.append(f"line {line}: {error}")
    if errors:
        more = f"; and {len(errors) - NAMED} more" if len(errors) > NAMED else ""
        raise BadInput(f"{name!r}, {'; '.join(errors[:NAMED])}{more}.")
    return parsed


def _from_jsonl(name: str, text: str) -> list[Row]:
    # Only a line feed ends a line: JSON need not escape the other characters that end one.
    lines = [(i, line) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if lines and (hint := text_files.array_hint(1, lines[0][1])):
        raise BadInput(f"{name!r}, line 1: expected a JSON object, found a list.{hint}")

    def parse(numbered: tuple[int, str]) -> Row:
        cells = text_files.parse_object(numbered[1], numbers_as_text=True)
        for column in cells:
            _refuse_half_characters(column)
        return Row(numbered[0], cells)

    rows: list[Row] = parse_all(name, [(line, (line, text)) for line, text in lines], parse)
    return rows


def _refuse_half_characters(text: str) -> None:
    if text_files.has_half_character(text):
        raise ValueError(f"has half a character (a lone surrogate) in {ascii(text)[:80]}")


@dataclasses.dataclass(frozen=True)
class _Table:
    """A CSV file's rows under one delimiter, blank rows left out."""

    delimiter: str
    rows: list[tuple[int, list[str]]]

    def is_regular(self) -> bool:
        """Whether there are two columns or more, and every row has all of them."""
        widths = {len(cells) for _, cells in self.rows}
        return len(widths) == 1 and widths.pop() > 1


def _from_csv(name: str, text: str, header: bool) -> list[Row]:
    table = _table(name, text)
    if not table.rows:
        return []
    if header:
        head = [cell.strip() for cell in table.rows[0][1]]
        if len(set(head)) < len(head) or not all(head):
            raise BadHeader(
                f"The first row of {name!r} should name each column once, got "
                f"{', '.join(head)!r:.200}. If it is a question, write a row of names above it."
            )
        rows = table.rows[1:]
        wanted = f"the first row names {len(head)}"
    else:
        rows = table.rows
        head = [f"column {i + 1}" for i in range(len(rows[0][1]))]
        wanted = f"the first row has {len(head)}"

    def parse(numbered: tuple[int, list[str]]) -> Row:
        line, cells = numbered
        if len(cells) != len(head):
            raise ValueError(
                f"has {len(cells)} columns where {wanted} (separated by "
                f"{DELIMITERS[table.delimiter]})"
            )
        return Row(line, dict(zip(head, cells, strict=True)))

    parsed: list[Row] = parse_all(name, [(row[0], row) for row in rows], parse)
    return parsed


def _table(name: str, text: str) -> _Table:
    """The file's table, under the delimiter that it names or that gives regular rows.

    Raises:
        BadInput: It is not CSV, or two delimiters give regular rows.
    """
    first, _, rest = text.partition("\n")
    # Excel's own first line. It is no row.
    if named := re.fullmatch(r'"?sep=(.)"?[,;\t|]*\r?', first, re.IGNORECASE):
        if named[1] not in DELIMITERS:
            raise BadInput(
                f"{name!r} is separated by {named[1]!r}, as its first line says. Separate its "
                "columns with commas, semicolons or tabs."
            )
        return _split(name, rest, named[1], first_line=2)
    present = [sign for sign in DELIMITERS if sign in text.lstrip().partition("\n")[0]]
    tables, errors = [], []
    for sign in present or [","]:
        try:
            tables.append(_split(name, text, sign))
        except BadInput as error:
            errors.append(error)
    regular = [table for table in tables if table.is_regular()]
    if len(regular) > 1:
        signs = " or ".join(DELIMITERS[table.delimiter] for table in regular)
        raise BadInput(
            f"The columns of {name!r} could be separated by {signs}. Say by which in a first line, "
            "such as sep=;"
        )
    if regular:
        return regular[0]
    if not tables:
        raise errors[0]
    # The rows that do not fit are named then; most columns, most likely the delimiter.
    return max(tables, key=lambda table: len(table.rows[0][1]) if table.rows else 0)


def _split(name: str, text: str, delimiter: str, first_line: int = 1) -> _Table:
    # A space behind each delimiter, as in "a, b, c", belongs to the delimiter.
    head = text.lstrip("\r\n").partition("\n")[0].split(delimiter)[1:]
    spaced = bool(head) and all(cell.startswith(" ") for cell in head)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=spaced, strict=True
    )
    rows, line = [], first_line
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((line, cells))
            line = reader.line_num + first_line
    except csv.Error as error:
        raise BadInput(
            f"{name!r} is not CSV: {error}, in the row at line {line}. Put cells with quotes or "
            "line ends in double quotes, and double the quotes within them."
        ) from error
    return _Table(delimiter, rows)
