"""The text a student trains on: read it, tokenise it, pack it into blocks.

Blocks have no padding: documents follow each other, each with an end-of-text token after it, and
the stream is cut every `block_tokens`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from explorer.errors import BadCorpus
from explorer.records import CorpusFacts

# Shape letters: N blocks, T tokens of a block.

STARTER = Path(__file__).parent / "data" / "starter_corpus.jsonl"
"""The starter teacher wrote it; its recipe is beside it."""

SUFFIXES = (".txt", ".jsonl", ".parquet")


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Documents, and a digest that identifies them."""

    name: str
    texts: list[str]
    digest: str

    def facts(self, num_tokens: int) -> CorpusFacts:
        """What a record says about it."""
        return CorpusFacts(
            name=self.name,
            digest=self.digest,
            num_documents=len(self.texts),
            num_tokens=num_tokens,
        )


def read_corpus(name: str) -> Corpus:
    """Read `starter`, or a .txt, .jsonl (key `text`) or .parquet (column `text`) file.

    A .txt file holds one document, or several between blank lines.

    Raises:
        BadCorpus: The file is missing, of another type, not UTF-8, or has no text.
    """
    path = STARTER if name == "starter" else Path(name).expanduser()
    if path.suffix not in SUFFIXES:
        raise BadCorpus(
            f"A corpus is `starter` or a file ending in {', '.join(SUFFIXES)}, got {name!r}."
        )
    if not path.is_file():
        raise BadCorpus(f"There is no corpus file {path}.")
    try:
        texts = [text for text in _documents(path) if text.strip()]
    except UnicodeDecodeError as error:
        raise BadCorpus(
            f"{path} is not UTF-8: byte {error.start} cannot be read. Save it as UTF-8."
        ) from error
    if not texts:
        raise BadCorpus(f"{path} has no text. A corpus needs at least one document.")
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    return Corpus(name if name == "starter" else path.name, texts, digest.hexdigest()[:16])


def pack_blocks(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, block_tokens: int, num_needed: int
) -> tuple[Tensor, int]:
    """Token ids of all whole blocks, int64 [N, T], and the number of tokens of the corpus.

    Raises:
        BadCorpus: The corpus has fewer than `num_needed` whole blocks.
    """
    ids: list[int] = []
    for batch_start in range(0, len(corpus.texts), 256):
        batch = corpus.texts[batch_start : batch_start + 256]
        for document in tokenizer(batch, add_special_tokens=False).input_ids:
            ids += [*document, tokenizer.eos_token_id]
    num_blocks = len(ids) // block_tokens
    if num_blocks < num_needed:
        raise BadCorpus(
            f"The corpus {corpus.name} has {len(ids):,} tokens, or {num_blocks} whole blocks of "
            f"{block_tokens}; this run needs at least {num_needed}. Add text, or lower "
            "distill.block_tokens or distill.heldout_blocks."
        )
    return torch.tensor(ids[: num_blocks * block_tokens]).view(num_blocks, block_tokens), len(ids)


def split_heldout(num_blocks: int, heldout_blocks: int, seed: int) -> tuple[list[int], list[int]]:
    """Block numbers (held-out, training), each in the order of use.

    The held-out blocks do not depend on the seed: every run on a corpus is evaluated on the same.
    """
    order = torch.randperm(num_blocks, generator=torch.Generator().manual_seed(0)).tolist()
    heldout, rest = order[:heldout_blocks], order[heldout_blocks:]
    shuffled = torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed)).tolist()
    return heldout, [rest[i] for i in shuffled]


def _documents(path: Path) -> Iterator[str]:
    if path.suffix == ".txt":
        yield from path.read_text(encoding="utf-8").split("\n\n")
    elif path.suffix == ".parquet":
        yield from _column(path)
    else:
        # Not splitlines: JSON need not escape other line ends (U+2028) within a text.
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
            if line.strip():
                yield _line_text(path, number, line)


def _line_text(path: Path, number: int, line: str) -> str:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadCorpus(f"{path}, line {number}: not JSON ({error}).") from error
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise BadCorpus(f'{path}, line {number}: expected an object with a string "text".')
    return str(row["text"])


def _column(path: Path) -> list[str]:
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise BadCorpus(f"{path} is not a Parquet file: {error}.") from error
    if "text" not in frame:
        raise BadCorpus(
            f"{path}: expected a column `text`, found {', '.join(map(str, frame.columns))}."
        )
    return [str(text) for text in frame["text"].dropna()]
