"""A GGUF file that is kept only if llama.cpp reads it as the model it was written from.

llama.cpp has a graph and a tokenizer of its own for each architecture, and takes what it does not
know for something else without a word. Where it is installed, each new file is loaded once.

    explorer convert starter --to q8_0 starter.gguf
"""

import importlib.util
import logging
from pathlib import Path

import torch

from explorer.errors import BadInput
from explorer.files import durable_files
from explorer.latency.runtimes.llamacpp import LlamaCppRuntime
from explorer.models.gguf.convert import to_gguf
from explorer.models.loading import Loaded
from explorer.specs import GgufType

log = logging.getLogger("explorer")

# Shape letters: T tokens, V vocabulary.


CHECKED_TEXT = "The 12 answers, naïve or not:\n  1,000 words isn't much (東京). def f(x): return x"
"""A text with what tokenizers split differently: digits, accents, spaces, signs, line ends."""
MAX_DIFFERENCE = 0.2
"""Largest distance of llama.cpp's logits from torch's, as a share of their size. Rounding to 8 bits
takes a few hundredths; another model is at about one."""


def write_checked(loaded: Loaded, kind: GgufType, path: Path) -> None:
    """Write a model as GGUF and compare the file with it; a failure leaves no file behind.

    Files in 4 bits are not compared: rounding changes their logits by more than a small mistake.

    Raises:
        BadInput: The model cannot be written, or llama.cpp reads another model from the file.
        NoRoom: llama.cpp could not quantise.
    """
    with durable_files.new_file(path) as partial:
        to_gguf(loaded, kind, partial)
        if importlib.util.find_spec("llama_cpp") is None:
            log.warning("llama.cpp is not installed, so nobody has read %s yet.", path)
        elif kind != "q4_k_m":
            _check_file(partial, loaded)


def _check_file(path: Path, loaded: Loaded) -> None:
    """Compare a GGUF file with the model it was written from: tokens and logits of a short text.

    Raises:
        BadInput: llama.cpp reads other tokens, or another model.
    """
    runtime = LlamaCppRuntime(path)
    try:
        wanted_T = loaded.tokenizer.encode(CHECKED_TEXT)[: runtime.context_tokens]
        found_T = runtime.tokenize(CHECKED_TEXT)[: runtime.context_tokens]
        if found_T != wanted_T:
            raise BadInput(
                f"llama.cpp reads a test text as other tokens than the tokenizer of {loaded.name}. "
                "The file was not kept; measure this model in torch."
            )
        found_TV = torch.from_numpy(runtime.logits(found_T))
    finally:
        runtime.close()
    with torch.inference_mode():
        ids_1T = torch.tensor([wanted_T], device=loaded.model.device)
        wanted_TV = loaded.model(ids_1T, use_cache=False).logits[0].float().cpu()
    # A constant added to all logits of a position changes nothing.
    found_TV, wanted_TV = (each - each.mean(-1, keepdim=True) for each in (found_TV, wanted_TV))
    difference = float((found_TV - wanted_TV).norm() / wanted_TV.norm())
    if not difference < MAX_DIFFERENCE:
        raise BadInput(
            f"llama.cpp computes another model than {loaded.name}: its logits on a test text are "
            f"{difference:.0%} off. The file was not kept; measure this model in torch."
        )
