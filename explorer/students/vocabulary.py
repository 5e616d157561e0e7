"""One vocabulary for teacher and student: checked, and cut to what both really have.

Siblings often share a tokenizer and pad their embeddings to different lengths. The rows
beyond the tokenizer's last token mean nothing, so both models lose them. Models whose
tokenizers differ cannot be compared token by token at all.
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from explorer.errors import BadInput
from explorer.models.loading import Loaded


def check_same_vocabulary(teacher: Loaded, student: Loaded) -> int:
    """Token ids that both models understand in the same way, from 0 up to this number.

    Raises:
        BadInput: The tokenizers differ, or a model has no row for one of the tokens.
    """
    num_tokens = check_same_tokens(teacher.name, teacher.tokenizer, student)
    if int(teacher.model.config.vocab_size) < num_tokens:
        raise _different(teacher.name, student, _no_row(teacher.name, num_tokens))
    return num_tokens


def check_same_tokens(name: str, tokenizer: PreTrainedTokenizerBase, student: Loaded) -> int:
    """As `check_same_vocabulary`, of a teacher of which the name and the tokenizer are known."""
    theirs, own = tokenizer.get_vocab(), student.tokenizer.get_vocab()
    strange = [token for token, index in theirs.items() if own.get(token) != index]
    num_tokens = max(theirs.values()) + 1
    if strange:
        raise _different(
            name,
            student,
            f"{len(strange):,} of the teacher's {len(theirs):,} tokens, {strange[0]!r} for one, "
            "are others in the student",
        )
    if int(student.model.config.vocab_size) < num_tokens:
        raise _different(name, student, _no_row(student.name, num_tokens))
    return num_tokens


def _no_row(name: str, num_tokens: int) -> str:
    return f"{name} has no row for each of the {num_tokens:,} tokens"


def _different(teacher: str, student: Loaded, why: str) -> BadInput:
    return BadInput(
        f"{student.name} and its teacher {teacher} have different vocabularies: {why}. Take a "
        "student of the teacher's family, or let it learn from the teacher's text: "
        "distill.method: text."
    )


def slice_vocabulary(model: PreTrainedModel, num_tokens: int) -> None:
    """Keep the first rows of the embedding and of the output layer, in place."""
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    holders: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    for module in holders:
        with torch.no_grad():
            module.weight = nn.Parameter(module.weight[:num_tokens].clone())
            if getattr(module, "bias", None) is not None:
                module.bias = nn.Parameter(module.bias[:num_tokens].clone())
        if isinstance(module, nn.Embedding):
            module.num_embeddings = num_tokens
        else:
            module.out_features = num_tokens
    if tied:
        holders[1].weight = holders[0].weight
    model.config.vocab_size = num_tokens
