"""A chat teacher writes its own distillation text.

It gets only the opening of a user turn and continues: it asks itself a question, answers it, and
goes on until the document has its number of tokens. The text needs no licence but the teacher's,
and is typical of what the teacher writes.

    explorer synthesise starter --tokens 300000 --out corpus.jsonl

Source of the idea: Magpie, Xu et al. 2024, arXiv:2406.08464.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from explorer.devices import accelerator
from explorer.errors import BadInput
from explorer.files import durable_files
from explorer.models.check import num_positions
from explorer.models.decoding import Decoder
from explorer.models.loading import Loaded

# Shape letters: B documents of a batch, T tokens, V vocabulary, K most likely tokens kept.

OnProgress = Callable[[int, int], None]
"""Called with (tokens written, tokens to write)."""


def synthesise(
    teacher: Loaded,
    out: Path,
    *,
    num_tokens: int,
    document_tokens: int = 256,
    batch_size: int = 128,
    temperature: float = 0.9,
    top_k: int = 50,
    seed: int = 0,
    progress: OnProgress = lambda done, total: None,
) -> dict[str, Any]:
    """Write `out` (JSON lines with a `text`) and `out`.recipe.json; return the recipe.

    Each batch has its own seed and is stored when it is done: a killed call continues where it
    stopped and writes the same file. Duplicate documents are dropped.

    A document is no longer than the model's positions allow; the recipe says how long.

    Raises:
        BadInput: The teacher has no chat template that a user's turn can be continued from.
    """
    opening = user_turn_opening(teacher)
    num_opening = len(teacher.tokenizer(opening, add_special_tokens=False).input_ids)
    positions = num_positions(teacher.model.config) or num_opening + document_tokens
    document_tokens = min(document_tokens, positions - num_opening)
    if document_tokens < 1:
        raise BadInput(
            f"{teacher.name} has {positions} positions, and its chat template's opening takes "
            f"{num_opening} tokens, so nothing is left for a document. Use your own corpus."
        )
    recipe = {
        "teacher": teacher.name,
        "opening": opening,
        "num_tokens": num_tokens,
        "document_tokens": document_tokens,
        "batch_size": batch_size,
        "temperature": temperature,
        "top_k": top_k,
        "seed": seed,
    }
    num_documents = -(-num_tokens // document_tokens)
    num_batches = -(-num_documents // batch_size)
    partial = out.with_suffix(".partial")
    batches = _read_batches(partial, recipe)
    # Without the half line that a killed call may have left.
    durable_files.write_text(
        partial, "".join([_line(recipe), *(_batch_line(texts) for texts in batches)])
    )
    progress(len(batches) * batch_size * document_tokens, num_tokens)
    for index in range(len(batches), num_batches):
        size = min(batch_size, num_documents - index * batch_size)

        def on_step(
            step: int, before: int = index * batch_size * document_tokens, now: int = size
        ) -> None:
            progress(before + now * step, num_tokens)

        texts = sample_documents(
            teacher,
            opening,
            num_documents=size,
            num_tokens=document_tokens,
            temperature=temperature,
            top_k=top_k,
            seed=seed * 1_000_003 + index,
            on_step=on_step,
        )
        batches.append(texts)
        durable_files.append_object(partial, {"texts": texts})
    texts = list(dict.fromkeys(text for batch in batches for text in batch))
    recipe["num_documents"] = len(texts)
    durable_files.write_text(
        out.with_name(out.name + ".recipe.json"),
        json.dumps(recipe, indent=2, ensure_ascii=False) + "\n",
    )
    durable_files.write_text(out, "".join(_line({"text": text}) for text in texts))
    partial.unlink()
    return recipe


def user_turn_opening(teacher: Loaded) -> str:
    """The chat template up to where a user's first word would be.

    Raises:
        BadInput: As `turn_opening`.
    """
    return turn_opening(teacher.name, teacher.tokenizer)


def turn_opening(name: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The chat template of this model's tokenizer up to where a user's first word would be.

    Raises:
        BadInput: There is no chat template, it fails, or nothing precedes the user's words.
    """
    what_to_do = "Use another teacher, or your own .txt, .jsonl or .parquet corpus."
    if not tokenizer.chat_template:
        raise BadInput(
            f"{name} has no chat template, so it cannot write a user's turn. Use an "
            "instruction-tuned teacher, or your own .txt, .jsonl or .parquet corpus."
        )
    marker = "\u2063first words\u2063"
    turn = [{"role": "user", "content": marker}]
    try:
        text = str(tokenizer.apply_chat_template(turn, tokenize=False))
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise BadInput(
            f"The chat template of {name} cannot write a user's turn: {error}. {what_to_do}"
        ) from error
    opening, found, _ = text.partition(marker)
    if not (opening and found):
        raise BadInput(
            f"The chat template of {name} writes {'nothing before' if found else 'no'} user's "
            f"words, so there is no turn to continue. {what_to_do}"
        )
    return opening


@torch.inference_mode()
def sample_documents(
    teacher: Loaded,
    opening: str,
    *,
    num_documents: int,
    num_tokens: int,
    temperature: float,
    top_k: int,
    seed: int,
    on_step: Callable[[int], None] = lambda step: None,
) -> list[str]:
    """Texts of exactly `num_tokens` sampled tokens that continue `opening`'s last turn.

    End-of-turn tokens do not end a document: the teacher opens the next turn itself.
    """
    tokenizer, model = teacher.tokenizer, teacher.model
    opening_ids = tokenizer(opening, return_tensors="pt", add_special_tokens=False).input_ids
    ids_BT = generate(
        model,
        opening_ids.to(model.device).repeat(num_documents, 1),
        num_tokens=num_tokens,
        generator=accelerator.generator(model.device, seed),
        temperature=temperature,
        top_k=top_k,
        on_step=on_step,
    )
    # The system turn is the same in all documents and has nothing to learn from.
    last_turn = opening.rpartition(tokenizer.eos_token or opening)[2].lstrip("\n") or opening
    return [last_turn + text for text in tokenizer.batch_decode(ids_BT)]


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    ids_BT: Tensor,
    *,
    num_tokens: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    on_step: Callable[[int], None] = lambda step: None,
) -> Tensor:
    """Sample the next `num_tokens` tokens of each row; shape [B, num_tokens].

    transformers' `generate` samples from the whole vocabulary and takes a fifth longer on a CPU.
    Without `top_k` this does, too.
    """
    decoder, new_ids = Decoder(model), []
    for step in range(num_tokens):
        scaled_BV = decoder.step(ids_BT).float() / temperature
        if top_k is None:
            ids_BT = accelerator.draw(scaled_BV.softmax(-1), generator)
        else:
            values_BK, ids_BK = scaled_BV.topk(min(top_k, scaled_BV.shape[-1]))
            choice_B1 = accelerator.draw(values_BK.softmax(-1), generator)
            ids_BT = ids_BK.gather(1, choice_B1)
        new_ids.append(ids_BT)
        on_step(step + 1)
    return torch.cat(new_ids, dim=1)


def _read_batches(partial: Path, recipe: dict[str, Any]) -> list[list[str]]:
    """The batches that an interrupted call with the same recipe left."""
    try:
        content = durable_files.read_bytes(partial, durable_files.MAX_JOURNAL_BYTES)
    except FileNotFoundError:
        return []
    # A kill may cut the last line anywhere, even within a character.
    first, *lines = content.split(b"\n")
    batches: list[list[str]] = []
    try:
        if durable_files.parse_json(first.decode()) != recipe:
            return []
        for line in lines[:-1]:
            batch = durable_files.parse_json(line.decode())
            # An older version wrote the texts alone.
            batches.append(batch["texts"] if isinstance(batch, dict) else batch)
    except (ValueError, KeyError):
        return batches
    return batches


def _batch_line(texts: list[str]) -> str:
    return durable_files.with_checksum(json.dumps({"texts": texts}))


def _line(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False) + "\n"
