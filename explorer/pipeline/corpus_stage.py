"""The training text: read from a file or written by the teacher, then packed into blocks."""

import dataclasses

import torch
from transformers import PreTrainedTokenizerBase

from explorer.distill import corpus
from explorer.distill.schedule import num_steps
from explorer.distill.synthesise import synthesise
from explorer.pipeline import run_guard
from explorer.pipeline.context import RunContext, stage_key
from explorer.specs import DistillSpec


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The corpus in blocks of one tokenizer's tokens."""

    tokens_NT: torch.Tensor
    """N blocks of T token ids."""
    num_tokens: int
    """Tokens of the whole corpus."""
    heldout: list[int]
    """Numbers of the blocks that only measure."""
    training: list[int]
    """Numbers of the blocks that train, in the order of the seed."""


def ensure_corpus(run: RunContext, distill: DistillSpec) -> corpus.Corpus:
    """Read the corpus; where the spec asks for it, have the teacher write it first."""
    if distill.corpus != "teacher":
        return corpus.read_corpus(distill.corpus)
    run.stage = "text"
    num_blocks = num_steps(distill) * distill.blocks_per_step + distill.heldout_blocks + 1
    num_tokens = num_blocks * distill.block_tokens
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
    return corpus.read_corpus(str(path))


def pack(text: corpus.Corpus, tokenizer: PreTrainedTokenizerBase, distill: DistillSpec) -> Blocks:
    """Cut the corpus into blocks and choose the held-out ones.

    Raises:
        BadCorpus: It is too short for the held-out blocks and one more.
    """
    tokens_NT, num_tokens = corpus.pack_blocks(
        text, tokenizer, distill.block_tokens, distill.heldout_blocks + 1
    )
    heldout, training = corpus.split_heldout(len(tokens_NT), distill.heldout_blocks, distill.seed)
    return Blocks(tokens_NT, num_tokens, heldout, training)
