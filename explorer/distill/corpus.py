"""The text a student trains on: which documents of a file a run reads, and which blocks train.

A file may be larger than memory. Its documents are read one after the other, as far as the token
budget reaches, and none is kept; `token_file` has their tokens.
"""

import dataclasses
import hashlib
import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from explorer.errors import BadCorpus, BadInput, reason_of
from explorer.files import text_files
from explorer.files.text_files import CHUNK_BYTES, LONGEST_LINE
from explorer.records import CorpusFacts

STARTER = Path(__file__).parent / "data" / "starter_corpus.jsonl"
"""The starter teacher wrote it; its recipe is beside it."""

PLACES = {".txt": "document", ".jsonl": "line", ".parquet": "row"}
"""File endings, and what a document is numbered by."""
LEAST_CHARS = 16 << 20
"""A corpus is read up to this many characters whatever the budget: a shorter one is read whole."""
CHARS_PER_TOKEN = 8
"""Characters read for each token of the budget; English has four to five, other text fewer."""
LONGEST_DOCUMENT = 4 << 20
"""Characters above which a document is read as several, so that memory stays bounded."""
PROGRESS_CHARS = 1 << 20
"""Characters between two reports of progress."""

OnProgress = Callable[[int, int], None]
"""Called with (characters read, characters to read at most)."""


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The documents of a file that a run reads, and a digest that identifies them."""

    name: str
    path: Path
    max_chars: int
    """The document that reaches this many characters is the last."""
    digest: str
    """Of the documents that are read, not of the rest of the file."""
    num_documents: int
    num_chars: int

    def facts(self, num_tokens: int) -> CorpusFacts:
        """What a record says about it."""
        return CorpusFacts(
            name=self.name,
            digest=self.digest,
            num_documents=self.num_documents,
            num_tokens=num_tokens,
        )

    def documents(self) -> Iterator[str]:
        """Read the documents again.

        Raises:
            BadCorpus: The file was changed since it was first read.
        """
        digest = hashlib.sha256()
        for text in _read(self.path, self.max_chars):
            digest.update(text.encode() + b"\0")
            yield text
        if digest.hexdigest()[:16] != self.digest:
            raise BadCorpus(
                f"{self.path} was changed while the run used it. Start the run again: it trains "
                "on the text as it is now."
            )


def read_corpus(
    name: str, num_tokens: int = 0, on_progress: OnProgress = lambda done, total: None
) -> Corpus:
    """Read `starter`, or a .txt, .jsonl (key `text`) or .parquet (column `text`) file.

    A .txt file holds one document, or several between blank lines. Every document is read and
    checked, and none is kept in memory.

    Args:
        name: As in a spec.
        num_tokens: The training budget. The file is read as far as this needs, and at least up to
            `LEAST_CHARS`: the order of a corpus that is shorter does not depend on the budget.
        on_progress: Progress.

    Raises:
        BadCorpus: The file is missing, of another type, not text, or has no text; the message
            names the line, row or document.
    """
    path = corpus_path(name)
    # In whole steps, so that runs of nearby budgets share their tokens.
    max_chars = max(1, math.ceil(num_tokens * CHARS_PER_TOKEN / LEAST_CHARS)) * LEAST_CHARS
    total = min(max_chars, path.stat().st_size)
    digest = hashlib.sha256()
    num_documents = num_chars = reported = 0
    for text in _read(path, max_chars):
        digest.update(text.encode() + b"\0")
        num_documents += 1
        num_chars += len(text)
        if num_chars - reported >= PROGRESS_CHARS:
            reported = num_chars
            on_progress(num_chars, total)
    if not num_documents:
        raise BadCorpus(f"{path} has no text. A corpus needs at least one document.")
    shown = name if name == "starter" else path.name
    return Corpus(shown, path, max_chars, digest.hexdigest()[:16], num_documents, num_chars)


def corpus_path(name: str) -> Path:
    """The file of a corpus as a spec names it.

    Raises:
        BadCorpus: There is no such file, it may not be read, or its ending is unknown.
    """
    path = STARTER if name == "starter" else Path(name).expanduser()
    if path.suffix.lower() not in PLACES:
        raise BadCorpus(
            f"A corpus is `starter` or a file ending in {', '.join(PLACES)}, got {name!r}."
        )
    try:
        if not path.is_file():
            raise BadCorpus(f"There is no corpus file {path}.")
        path.open("rb").close()
    except OSError as error:
        raise BadCorpus(f"{path} cannot be read: {reason_of(error)}.") from error
    return path


def check_corpus(name: str, num_documents: int = 32) -> None:
    """Read the first documents of a corpus; takes milliseconds, whatever its size.

    Raises:
        BadCorpus: As `read_corpus`.
    """
    path = corpus_path(name)
    texts = _read(path, LEAST_CHARS)
    if not [text for text, _ in zip(texts, range(num_documents), strict=False)]:
        raise BadCorpus(f"{path} has no text. A corpus needs at least one document.")


def check_upload(path: str, max_chars: int) -> None:
    """Read a whole corpus as the dashboard was given it.

    Raises:
        BadCorpus: As `read_corpus`, or it holds more text than such a file should.
    """
    num_chars = 0
    for text in _read(corpus_path(path), max_chars + 1):
        num_chars += len(text)
    if not num_chars:
        raise BadCorpus("The file has no text. A corpus needs at least one document.")
    if num_chars > max_chars:
        raise BadCorpus(
            f"The file unpacks to more than {max_chars / 1e6:,.0f} million characters. Copy it to "
            "this machine and type its path."
        )


def split_heldout(
    num_blocks: int, heldout_blocks: int, seed: int, num_first: int | None = None
) -> tuple[list[int], list[int]]:
    """Block numbers (held-out, training), each in the order of use.

    The held-out blocks depend neither on the seed nor on the budget: every run on a corpus is
    evaluated on the same.

    Args:
        num_blocks: Blocks of the corpus as far as it is read.
        heldout_blocks: How many are held out.
        seed: Of the training order.
        num_first: Blocks that a run of any budget reads; held-out blocks come from these, if they
            are enough. None if these are all.
    """
    import torch  # not above: whoever only reads an upload waits for no model library

    def shuffled(count: int, seed: int) -> list[int]:
        order: list[int] = torch.randperm(
            count, generator=torch.Generator().manual_seed(seed)
        ).tolist()
        return order

    num_first = max(num_first, heldout_blocks) if num_first is not None else num_blocks
    first = shuffled(min(num_blocks, num_first), 0)
    heldout = first[:heldout_blocks]
    rest = [*first[heldout_blocks:], *range(len(first), num_blocks)]
    return heldout, [rest[i] for i in shuffled(len(rest), seed)]


def _read(path: Path, max_chars: int) -> Iterator[str]:
    """The documents with text, up to the one that reaches `max_chars`.

    Raises:
        BadCorpus: A document cannot be read; the message says where it is.
    """
    place = PLACES[path.suffix.lower()]
    num_chars = 0
    try:
        for number, whole in _DOCUMENTS[path.suffix.lower()](path):
            for text in _pieces(whole.removeprefix("\ufeff")):
                if not text.strip():
                    continue
                if text_files.has_half_character(text):
                    raise BadCorpus(
                        f"{path}, {place} {number}: expected whole characters, found half of a "
                        "surrogate pair, such as \\ud83d alone. Remove it, or write it as \\ufffd."
                    )
                yield text
                num_chars += len(text)
                if num_chars >= max_chars:
                    return
    except BadCorpus:
        raise
    except BadInput as error:
        raise BadCorpus(str(error)) from error


def _pieces(text: str) -> Iterator[str]:
    """A document in pieces of at most `LONGEST_DOCUMENT`, cut at a line end or a space."""
    start = 0
    while len(text) - start > LONGEST_DOCUMENT:
        end = start + LONGEST_DOCUMENT
        end = max(text.rfind("\n", start, end), text.rfind(" ", start, end)) + 1 or end
        yield text[start:end]
        start = end
    yield text[start:]


def _paragraphs(path: Path) -> Iterator[tuple[int, str]]:
    """The documents of a .txt file, which blank lines part."""
    number, rest = 1, ""
    line_ends = io.IncrementalNewlineDecoder(None, translate=True)
    for chunk in text_files.read_chunks(path):
        *whole, rest = (rest + line_ends.decode(chunk)).split("\n\n")
        for text in whole:
            yield number, text
            number += 1
        *pieces, rest = _pieces(rest)
        for piece in pieces:
            yield number, piece
    yield number, rest + line_ends.decode("", final=True)


def _json_texts(path: Path) -> Iterator[tuple[int, str]]:
    for number, row in text_files.read_json_lines(path):
        if not isinstance(row.get("text"), str):
            found = (
                f"{text_files.kind_of(row['text'])} there"
                if "text" in row
                else f"the keys {_listed(row)}"
            )
            raise BadCorpus(
                f'{path}, line {number}: expected an object with a string "text", found {found}. '
                + (
                    _hint(row.get("text", row.get("messages")))
                    if {"text", "messages"} & row.keys()
                    else "Rename the key that holds each document."
                )
            )
        yield number, row["text"]


def _parquet_texts(path: Path) -> Iterator[tuple[int, str]]:
    """The cells of the column `text`; a cell of bytes is UTF-8, and one without value is none."""
    number = 0
    try:
        # Without a buffer, or with one made before, a whole row group would be in memory.
        with pq.ParquetFile(path, buffer_size=CHUNK_BYTES, pre_buffer=False) as file:
            _check_column(path, file.schema_arrow)
            for batch in file.iter_batches(batch_size=64, columns=["text"]):
                for cell in batch.column(0):
                    number += 1
                    content = cell.as_py()
                    if content is not None and len(content) > LONGEST_LINE:
                        raise BadCorpus(
                            f"{path}, row {number}: longer than {LONGEST_LINE >> 20} million "
                            "characters. Write one document a row."
                        )
                    if content is not None:
                        yield number, content if isinstance(content, str) else content.decode()
    except UnicodeDecodeError as error:
        raise BadCorpus(
            f"{path}, row {number}: expected UTF-8, found the byte "
            f"0x{error.object[error.start]:02x}, which is not. Store the column as text."
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise BadCorpus(
            f"{path} is not a Parquet file that can be read: {str(error).rstrip('.')}."
        ) from error


def _check_column(path: Path, schema: Any) -> None:
    """Refuse a table without one column `text` of text or bytes."""
    count = schema.names.count("text")
    if count != 1:
        found = "two" if count else f"the columns {_listed(schema.names)}"
        raise BadCorpus(
            f"{path}: expected one column `text`, found {found}. Rename the column that holds the "
            "text."
        )
    kind = schema.field("text").type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
    if not (str(kind) in is_text or pa.types.is_null(kind) or pa.types.is_fixed_size_binary(kind)):
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        raise BadCorpus(
            f"{path}: expected a column `text` of text, found {kind}. {_hint([] if is_list else 0)}"
        )


def _hint(value: Any) -> str:
    """What to do with a value that is no text."""
    if isinstance(value, list):
        return "Write a chat out as text first, with the tokenizer's apply_chat_template."
    return "Write each document's text as a string."


def _listed(names: Any) -> str:
    """The first names of a row, such as `a, b and 3 more`."""
    shown = list(map(str, names))
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    return (", ".join(shown[:8]) or "none") + more


_DOCUMENTS = {".txt": _paragraphs, ".jsonl": _json_texts, ".parquet": _parquet_texts}
