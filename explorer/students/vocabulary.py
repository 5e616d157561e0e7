"""The vocabulary that teacher and student share: checked, and cut to its size.

Sibling models often share a tokenizer and pad their embeddings to different lengths. The rows
beyond the tokenizer's last token mean nothing, so both models lose them. Models with different
tokenizers cannot be compared token by token.
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from explorer.errors import BadInput
from explorer.models.loading import Loaded


def check_same_vocabulary(teacher: Loaded, student: Loaded) -> int:
    """Number of token ids, from 0 up, that both models share.

    Raises:
        BadInput: The tokenizers differ, or a model has no row for one of the tokens.
    """
    num_tokens = check_same_tokens(teacher.name, teacher.tokenizer, student)
    if int(teacher.model.config.get_text_config().vocab_size) < num_tokens:
        raise _different(teacher.name, student.name, _no_row(teacher.name, num_tokens))
    return num_tokens


def check_same_tokens(name: str, tokenizer: PreTrainedTokenizerBase, student: Loaded) -> int:
    """As `check_same_vocabulary`, for a teacher known only by its name and tokenizer."""
    num_tokens = check_same_ids(name, tokenizer, student.name, student.tokenizer)
    if int(student.model.config.get_text_config().vocab_size) < num_tokens:
        raise _different(name, student.name, _no_row(student.name, num_tokens))
    return num_tokens


def check_same_ids(
    teacher: str,
    teacher_tokenizer: PreTrainedTokenizerBase,
    student: str,
    student_tokenizer: PreTrainedTokenizerBase,
) -> int:
    """Number of the teacher's token ids, each of which the student's tokenizer gives the same text.

    Raises:
        BadInput: The tokenizers differ.
    """
    teacher_ids, student_ids = teacher_tokenizer.get_vocab(), student_tokenizer.get_vocab()
    different = [token for token, i in teacher_ids.items() if student_ids.get(token) != i]
    if different:
        raise _different(
            teacher,
            student,
            f"{len(different):,} of the teacher's {len(teacher_ids):,} tokens, such as "
            f"{different[0]!r}, have another id in the student",
        )
    return max(teacher_ids.values()) + 1


def _no_row(name: str, num_tokens: int) -> str:
    return f"{name} has too few rows for the {num_tokens:,} tokens"


def _different(teacher: str, student: str, why: str) -> BadInput:
    return BadInput(
        f"{student} and its teacher {teacher} have different vocabularies: {why}. Choose a "
        "student of the teacher's family, or train it on the teacher's text: "
        "distill.method: text."
    )


def slice_vocabulary(model: PreTrainedModel, num_tokens: int) -> None:
    """Cut the embedding and the output layer to their first rows, in place."""
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
    model.config.get_text_config().vocab_size = num_tokens
