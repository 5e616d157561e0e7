"""A tokenizer in a GGUF file: byte-level BPE, or BPE over characters with bytes to fall back on.

llama.cpp knows by name how each byte-level tokenizer splits a text before it merges, and has the
other kind (SentencePiece: Llama 2, Mistral, Gemma, Phi-3) merge by the scores of tokens. A
tokenizer that does anything else is refused: llama.cpp would read other tokens without a word.

Source: github.com/ggml-org/llama.cpp, `src/llama-vocab.cpp`.
"""

import json
from collections.abc import Mapping
from typing import Any

import gguf
from gguf import TokenType
from transformers import PreTrainedTokenizerBase

from explorer.errors import BadInput

LLAMA_3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {LLAMA_3_SPLIT: "llama-bpe", LLAMA_3_SPLIT.replace("{1,3}", ""): "qwen2"}
"""Regular expressions that split a text before BPE, and llama.cpp's names for them."""
SPACE = "▁"
"""What stands for a space in tokens of characters."""
NO_MERGES = [""]
"""llama.cpp requires a list of merges; this one merges nothing."""


def add_tokenizer(
    writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, vocab_size: int, name: str
) -> None:
    """Write the tokens and how a text becomes them.

    Args:
        writer: Of the file.
        tokenizer: The model's.
        vocab_size: Rows of the model's embedding.
        name: The model's, for messages.

    Raises:
        BadInput: llama.cpp may not read a text as these tokens.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    data = json.loads(backend.to_str()) if backend is not None else {}
    if data.get("model", {}).get("type") != "BPE":
        raise BadInput(
            f"The tokenizer of {name} is not BPE; only byte-level BPE (GPT-2, SmolLM, Llama 3, "
            "Qwen) and BPE with bytes to fall back on (Llama 2, Mistral, Gemma, Phi-3) can be "
            "written as GGUF."
        )
    merges = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]]
    if data["model"].get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_add_space_prefix(adds_space(data, name))
        writer.add_token_scores(_scores(tokenizer, merges, vocab_size))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre_tokenizer(data["pre_tokenizer"], name))
        writer.add_add_space_prefix(False)
        writer.add_token_merges(merges or NO_MERGES)
    tokens, types = _tokens(tokenizer, data, vocab_size)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    for add, token_id in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
    ):
        # A token that was added without a row of the embedding is not in the file.
        if token_id is not None and token_id < vocab_size:
            add(token_id)
    first = tokenizer("a")["input_ids"][0]
    writer.add_add_bos_token(first == tokenizer.bos_token_id)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _tokens(
    tokenizer: PreTrainedTokenizerBase, data: Mapping[str, Any], vocab_size: int
) -> tuple[list[str], list[TokenType]]:
    """Each row's token and its type; rows without a token get a name that no text has."""
    added = {token["content"]: token for token in data["added_tokens"]}
    by_id = {index: token for token, index in tokenizer.get_vocab().items()}
    falls_back = bool(data["model"].get("byte_fallback"))
    tokens, types = [], []
    for index in range(vocab_size):
        token = by_id.get(index)
        tokens.append(f"[PAD{index}]" if token is None else token)
        if token is None:
            types.append(TokenType.UNUSED)
        elif falls_back and token == data["model"].get("unk_token"):
            types.append(TokenType.UNKNOWN)
        elif token in added:
            special = added[token]["special"]
            types.append(TokenType.CONTROL if special else TokenType.USER_DEFINED)
        elif falls_back and _is_byte(token):
            types.append(TokenType.BYTE)
        else:
            types.append(TokenType.NORMAL)
    return tokens, types


def _is_byte(token: str) -> bool:
    """Whether a token is one byte, written as `<0x0A>`."""
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _scores(tokenizer: PreTrainedTokenizerBase, merges: list[str], vocab_size: int) -> list[float]:
    """A score for each row, higher for a token that is merged earlier."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        left, _, right = merge.partition(" ")
        ranks.setdefault(left + right, rank)
    by_id = {index: token for token, index in tokenizer.get_vocab().items()}
    return [-float(ranks.get(by_id.get(index, ""), len(merges))) for index in range(vocab_size)]


def adds_space(data: Mapping[str, Any], name: str) -> bool:
    """Whether a tokenizer of characters puts a space before a text.

    Raises:
        BadInput: It prepares a text in another way than replacing spaces.
    """
    normalizer, pre = data["normalizer"], data["pre_tokenizer"]
    steps = (
        normalizer["normalizers"] if (normalizer or {}).get("type") == "Sequence" else [normalizer]
    )
    steps = [step for step in [*steps, pre] if step is not None]
    kinds = [step["type"] for step in steps]
    if kinds in (["Prepend", "Replace"], ["Metaspace"], ["Replace"], ["Replace", "Split"]):
        first, replacing = (
            steps[0],
            steps[min(1, kinds.index("Replace") if "Replace" in kinds else 0)],
        )
        spaces = replacing.get("replacement") or replacing.get("content")
        split = kinds == ["Replace", "Split"] and pre["pattern"] != {"String": " "}
        if spaces == SPACE and not split and not replacing.get("split"):
            return kinds[0] == "Prepend" or first.get("prepend_scheme") in ("always", "first")
    raise BadInput(
        f"The tokenizer of {name} prepares a text in a way that llama.cpp may not know ({kinds}), "
        "so no file is written: llama.cpp would read other tokens."
    )


def pre_tokenizer(data: dict[str, Any], name: str) -> str:
    """llama.cpp's name for the way a tokenizer splits a text before BPE.

    Raises:
        BadInput: The way is unknown; a wrong name would silently give other tokens.
    """
    parts = data["pretokenizers"] if data["type"] == "Sequence" else [data]
    kinds = [part["type"] for part in parts]
    last = parts[-1]
    if kinds[-1] == "ByteLevel" and not last["add_prefix_space"]:
        if kinds == ["ByteLevel"] and last["use_regex"]:
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and parts[0]["individual_digits"] and last["use_regex"]:
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and not last["use_regex"]:
            known = SPLITS.get(parts[0]["pattern"].get("Regex", ""))
            if known:
                return known
    raise BadInput(
        f"The tokenizer of {name} splits texts in a way that llama.cpp may not know ({kinds}), so "
        "no file is written: llama.cpp would read other tokens."
    )
