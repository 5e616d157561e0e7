"""The training text: read from a file or written by the teacher, then packed into blocks."""

import dataclasses
import logging

from transformers import PreTrainedTokenizerBase

from explorer.distill import corpus, token_file
from explorer.distill.schedule import num_steps
from explorer.distill.synthesise import synthesise
from explorer.pipeline import run_guard
from explorer.pipeline.context import RunContext, stage_key
from explorer.specs import DistillSpec

log = logging.getLogger("explorer")


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The corpus in blocks of one tokenizer's tokens."""

    tokens_NT: token_file.Blocks
    """N blocks of T token ids."""
    num_tokens: int
    """Tokens of the corpus as far as it is read."""
    marks: token_file.DocumentMarks
    """The tokens around each document."""
    heldout: list[int]
    """Numbers of the blocks that only measure."""
    training: list[int]
    """Numbers of the blocks that train, in the order of the seed."""


def ensure_corpus(run: RunContext, distill: DistillSpec) -> corpus.Corpus:
    """Read the corpus; where the spec asks for it, have the teacher write it first.

    Raises:
        BadCorpus: It cannot be read as far as the token budget reaches.
    """
    if distill.corpus != "teacher":
        return _read(run, distill.corpus, distill)
    run.stage = "text"
    num_tokens = budget_tokens(distill) + distill.block_tokens
    key = stage_key({"teacher": run.training_teacher_fingerprint, "num_tokens": num_tokens})
    path = run.work / "texts" / f"{key}.jsonl"

    def report(done: int, total: int) -> None:
        run.progress("text", done, total, "tokens")

    with run_guard.exclusive(run.root, f"text-{key}", run.progress):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with run.timed("text"):
                synthesise(
                    run.training_teacher,
                    path,
                    num_tokens=num_tokens,
                    document_tokens=distill.block_tokens,
                    progress=report,
                )
    if run.teacher_bits:
        run.unload_models()  # The unquantised teacher is next.
    return _read(run, str(path), distill)


def _read(run: RunContext, name: str, distill: DistillSpec) -> corpus.Corpus:
    def report(done: int, total: int) -> None:
        run.progress("reading the corpus", done, total, "characters")

    text = corpus.read_corpus(name, budget_tokens(distill), report)
    if text.num_chars >= text.max_chars:
        log.info(
            "Of the corpus %s the first %d characters are read; the token budget needs no more.",
            text.name,
            text.num_chars,
        )
    return text


def budget_tokens(distill: DistillSpec) -> int:
    """Tokens of the blocks that a run trains and is evaluated on, if no block comes twice."""
    num_blocks = num_steps(distill) * distill.blocks_per_step + distill.heldout_blocks
    return num_blocks * distill.block_tokens


def check_text(distill: DistillSpec, *tokenizers: PreTrainedTokenizerBase) -> None:
    """Read the corpus as far as the budget reaches, and tokenise as much as a run needs at least.

    Args:
        distill: Its corpus and sizes; nothing is checked if the teacher writes the text.
        tokenizers: Those that the run cuts blocks with.

    Raises:
        BadCorpus: What a run would refuse later.
    """
    if distill.corpus == "teacher":
        return
    text = corpus.read_corpus(distill.corpus, budget_tokens(distill))
    num_needed = distill.heldout_blocks + 1
    for tokenizer in tokenizers:
        num_tokens = token_file.count_tokens(text, tokenizer, num_needed * distill.block_tokens)
        token_file.check_length(text, num_tokens, distill.block_tokens, num_needed)


def pack(
    run: RunContext, text: corpus.Corpus, tokenizer: PreTrainedTokenizerBase, distill: DistillSpec
) -> Blocks:
    """Cut the corpus into blocks and choose the held-out ones.

    The tokens are in a file that all runs on this text with this tokenizer share.

    Raises:
        BadCorpus: It is too short for the held-out blocks and one more.
    """
    key = token_file.token_key(text, tokenizer)
    path = run.work / "tokens" / f"{key}.bin"

    def report(done: int, total: int) -> None:
        run.progress("tokenising the corpus", done, total, "characters")

    with run_guard.exclusive(run.root, f"tokens-{key}", run.progress), run.timed("tokens"):
        tokens_NT = token_file.ensure_tokens(text, tokenizer, path, distill.block_tokens, report)
    token_file.check_length(
        text, tokens_NT.num_tokens, distill.block_tokens, distill.heldout_blocks + 1
    )
    marks = token_file.document_marks(tokenizer)
    if not marks.after:
        log.warning(
            "The tokenizer has no end-of-text token, so its beginning-of-text token %d parts the "
            "documents.",
            marks.before[0],
        )
    heldout, training = corpus.split_heldout(
        len(tokens_NT),
        distill.heldout_blocks,
        distill.seed,
        tokens_NT.num_first_tokens // distill.block_tokens,
    )
    return Blocks(tokens_NT, tokens_NT.num_tokens, marks, heldout, training)
