"""The tiny Llama with a tokenizer that merges bytes, as llama.cpp wants one to."""

import dataclasses
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from explorer.models import loading

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["t h", "th e", "Ġ a", "i s", "Ġ is", "u m", "Ġ n", "Ġn um", "e r", "o c", "Ġ Ġ", "Ċ Ċ"]


def load(folder: Path) -> loading.Loaded:
    """The model of `tiny_llama(...)` in float32 with a tokenizer of twelve merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = [merge.replace(" ", "") for merge in MERGES]
    vocab = {token: index for index, token in enumerate(SPECIAL + alphabet + made)}
    pairs = [tuple(merge.split()) for merge in MERGES]
    plain = Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain,
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        unk_token=SPECIAL[0],
        pad_token=SPECIAL[2],
    )
    return dataclasses.replace(loading.load(str(folder), dtype="float32"), tokenizer=tokenizer)


def save(folder: Path, into: Path) -> Path:
    """The same as a folder that a spec can name."""
    loaded = load(folder)
    loaded.model.save_pretrained(into)
    loaded.tokenizer.save_pretrained(into)
    return into
