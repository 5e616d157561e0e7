"""The tokens of a corpus in a file, made once for all runs that need them.

Documents follow each other, each with an end-of-text token after it, and with the tokens before it
that the tokenizer puts before any text. Blocks have no padding: the stream is cut every
`block_tokens`. Two bytes a token, or four where the vocabulary needs them.

    results/.work/tokens/<key>.bin, and <key>.json, which is written last

Both making and reading take little memory, however large the corpus is.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pydantic
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from explorer.distill.corpus import LEAST_CHARS, PROGRESS_CHARS, Corpus, OnProgress
from explorer.errors import BadCorpus
from explorer.files import durable_files

# Shape letters: N blocks, B blocks of a batch, T tokens of a block.

BATCH_DOCUMENTS = 256


class Blocks(Protocol):
    """Token ids in blocks: a `TokenFile`, or a tensor int64 [N, T]."""

    @property
    def shape(self) -> tuple[int, ...]:
        """N and T."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, numbers: Any) -> Tensor:
        """The block of this number [T], or the blocks of these numbers [B, T]."""


@dataclasses.dataclass(frozen=True)
class TokenFile:
    """The whole blocks of a file of tokens, read when they are used."""

    path: Path
    num_tokens: int
    """Tokens of the corpus as far as it is read, those after the last whole block included."""
    num_first_tokens: int
    """Those of the first `LEAST_CHARS` characters, which a run of any budget reads."""
    dtype: str
    block_tokens: int

    @property
    def shape(self) -> tuple[int, int]:
        """N and T."""
        return self.num_tokens // self.block_tokens, self.block_tokens

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, numbers: int | list[int]) -> Tensor:
        """The block of this number [T], or the blocks of these numbers [B, T]; int64."""
        # Mapped anew each time: a map that stays would count as the run's memory, page by page.
        stored_NT = np.memmap(self.path, self.dtype, "r", shape=self.shape)
        return torch.from_numpy(stored_NT[np.asarray(numbers, np.int64)].astype(np.int64))


class AboutTokens(pydantic.BaseModel):
    """What the file beside the tokens says about them."""

    num_tokens: pydantic.NonNegativeInt
    num_first_tokens: pydantic.NonNegativeInt
    dtype: Literal["uint16", "uint32"]
    sha256: str


@dataclasses.dataclass(frozen=True)
class DocumentMarks:
    """The tokens around each document."""

    before: list[int]
    """What the tokenizer puts before any text, as in evaluation; mostly nothing or one BOS."""
    after: list[int]
    """What parts documents: the end-of-text token."""


def document_marks(tokenizer: PreTrainedTokenizerBase) -> DocumentMarks:
    """The tokens around each document, as this tokenizer has them.

    A tokenizer without an end-of-text token parts documents by its beginning-of-text token.

    Raises:
        BadCorpus: It has neither.
    """
    plain = tokenizer("a", add_special_tokens=False).input_ids
    whole = tokenizer("a").input_ids
    before = whole[: next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)]
    end, begin = tokenizer.eos_token_id, tokenizer.bos_token_id
    if end is not None:
        return DocumentMarks(before, [end])
    if begin is None and not before:
        raise BadCorpus(
            "The tokenizer has neither an end-of-text nor a beginning-of-text token, so nothing "
            "would part the documents. Name one as eos_token in its tokenizer_config.json."
        )
    return DocumentMarks(before or [begin], [])


def corpus_identity(corpus: Corpus, *tokenizers: PreTrainedTokenizerBase) -> str:
    """Names a corpus's tokens in the keys of targets and students, beside the tokenizer.

    It is the digest of the text, unless a document has other marks than an end-of-text token.
    """
    marks = [document_marks(tokenizer) for tokenizer in tokenizers]
    others = [[m.before, m.after] for m in marks if m.before or not m.after]
    if not others:
        return corpus.digest
    return hashlib.sha256(json.dumps([corpus.digest, others]).encode()).hexdigest()[:16]


def token_key(corpus: Corpus, tokenizer: PreTrainedTokenizerBase) -> str:
    """Sixteen hex digits over everything that decides the tokens."""
    marks = document_marks(tokenizer)
    decides = [corpus.digest, _tokenizer_rules(tokenizer), marks.before, marks.after]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:16]


def ensure_tokens(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    path: Path,
    block_tokens: int,
    on_progress: OnProgress = lambda done, total: None,
) -> TokenFile:
    """The tokens in this file, which is made if it is not there whole and unchanged.

    The caller names the file by `token_key` and sees to it that no other process writes it.

    Args:
        corpus: Its documents are read once more if the file is made.
        tokenizer: Called on some documents at a time.
        path: The file; its folder is made.
        block_tokens: Tokens of a block.
        on_progress: Called with (characters done, characters of the corpus).

    Raises:
        BadCorpus: The corpus was changed since it was read, or cannot be tokenised.
        NoRoom: The disk is full or the folder may not be written.
    """
    tokens = _open(path, block_tokens)
    if tokens is None:
        _write(corpus, tokenizer, path, on_progress)
        tokens = _open(path, block_tokens)
        assert tokens is not None, "just written"
    return tokens


def _open(path: Path, block_tokens: int) -> TokenFile | None:
    about = durable_files.read_or_set_aside(path.with_suffix(".json"), AboutTokens)
    if about is None:
        return None
    num_bytes = about.num_tokens * np.dtype(about.dtype).itemsize
    stated = durable_files.FileSum(num_bytes=num_bytes, sha256=about.sha256)
    if why := durable_files.damage(path, stated):
        durable_files.set_aside(path, f"{path} {why}.")
        return None
    return TokenFile(path, about.num_tokens, about.num_first_tokens, about.dtype, block_tokens)


def _write(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, path: Path, on_progress: OnProgress
) -> None:
    """Write the file, which appears when it is whole, and then what says that it is."""
    size = max(max(tokenizer.get_vocab().values(), default=0) + 1, len(tokenizer))
    dtype = np.uint16 if size <= 1 << 16 else np.uint32
    digest, num_tokens, num_first_tokens = hashlib.sha256(), 0, 0
    with durable_files.new_file(path) as partial, partial.open("wb") as file:
        for ids, num_chars in _tokenised(corpus, tokenizer):
            content = np.array(ids, dtype).tobytes()
            file.write(content)
            digest.update(content)
            num_tokens += len(ids)
            if num_first_tokens == 0 and num_chars >= LEAST_CHARS:
                num_first_tokens = num_tokens
            on_progress(num_chars, corpus.num_chars)
    about = {
        "num_tokens": num_tokens,
        "num_first_tokens": num_first_tokens or num_tokens,
        "dtype": dtype.__name__,
        "sha256": digest.hexdigest(),
    }
    durable_files.write_json(path.with_suffix(".json"), about)


def count_tokens(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, at_least: int) -> int:
    """Tokens of the first documents, until there are `at_least` so many, or of all."""
    num_tokens = 0
    for ids, _ in _tokenised(corpus, tokenizer):
        num_tokens += len(ids)
        if num_tokens >= at_least:
            break
    return num_tokens


def check_length(corpus: Corpus, num_tokens: int, block_tokens: int, num_needed: int) -> None:
    """Refuse a corpus with fewer than `num_needed` whole blocks.

    Raises:
        BadCorpus: It is too short; the message has the numbers.
    """
    num_blocks = num_tokens // block_tokens
    if num_blocks < num_needed:
        raise BadCorpus(
            f"The corpus {corpus.name} has {num_tokens:,} tokens, or {num_blocks} whole blocks of "
            f"{block_tokens}; this run needs at least {num_needed}. Add text, or lower "
            "distill.block_tokens or distill.heldout_blocks."
        )


def _tokenised(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[list[int], int]]:
    """The next documents' tokens with their marks, and the characters so far."""
    marks = document_marks(tokenizer)
    num_chars = 0
    for batch in _batches(corpus.documents()):
        try:
            encoded = tokenizer(batch, add_special_tokens=False, return_attention_mask=False)
        except Exception as error:  # of the tokenizers library, which has no class of its own
            raise BadCorpus(
                f"The tokenizer cannot encode a document of {corpus.name}: {error}"
            ) from error
        ids: list[int] = []
        for document in encoded.input_ids:
            # A text that a chat template wrote begins with the mark already.
            starts = document[: len(marks.before)] == marks.before
            ids += [*([] if starts else marks.before), *document, *marks.after]
        num_chars += sum(map(len, batch))
        yield ids, num_chars


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    """Some documents at a time; one batch ends where `LEAST_CHARS` are reached."""
    batch: list[str] = []
    num_chars = num_batch_chars = 0
    for text in texts:
        batch.append(text)
        before, num_chars = num_chars, num_chars + len(text)
        num_batch_chars += len(text)
        is_full = len(batch) == BATCH_DOCUMENTS or num_batch_chars >= PROGRESS_CHARS
        if is_full or before < LEAST_CHARS <= num_chars:
            yield batch
            batch, num_batch_chars = [], 0
    if batch:
        yield batch


def _tokenizer_rules(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of how the tokenizer splits text: vocabulary, merges and normalisation."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rules: Any = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]
    else:
        rules = json.loads(backend.to_str())
        # They change with each call and are off in ours.
        rules.pop("padding", None), rules.pop("truncation", None)
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()
