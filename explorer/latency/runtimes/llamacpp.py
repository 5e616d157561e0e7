"""GGUF files in llama.cpp, through its C interface: for the edge and on-device.

Needs the extra `edge`. The sequences of a batch share one context. Every step is one
`llama_decode`, and each sequence's next token is taken from its logits on the host.

    explorer convert starter --to q8_0 starter.gguf
"""

import ctypes
import importlib
import operator
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from explorer.errors import BadInput, NoRoom, UnknownModel
from explorer.latency.runtimes.protocol import PeakMemory
from explorer.models.gguf import gguf_files
from explorer.records import RuntimeFacts

# Shape letters: B sequences answered together, T prompt tokens, V vocabulary.

BATCH_TOKENS = 2048
"""Maximum tokens of one llama_decode call."""
UBATCH_TOKENS = 512
"""Tokens that llama.cpp computes at a time (its default)."""


def load_llama_cpp() -> Any:
    """The module `llama_cpp`, with its logging switched off.

    Raises:
        BadInput: It is not installed.
    """
    try:
        module = importlib.import_module("llama_cpp")
    except ImportError as error:
        raise BadInput(
            "This needs llama.cpp, which is not installed. pip install 'distill-explorer[edge]' "
            "compiles it in about ten minutes."
        ) from error
    module.llama_log_set(_silent(module), ctypes.c_void_p())
    return module


_silent_callback: list[Any] = []
_log: deque[str] = deque(maxlen=100)
"""The last lines that llama.cpp logged."""


def _silent(module: Any) -> Any:
    """A log callback that prints nothing; kept alive here, as the library holds only a pointer."""
    if not _silent_callback:
        _silent_callback.append(
            module.llama_log_callback(
                lambda level, text, data: _log.append(bytes(text or b"").decode(errors="replace"))
            )
        )
    return _silent_callback[0]


def _reason() -> str:
    """What llama.cpp logged last about an error, such as the name of a missing tensor."""
    lines = [line.strip() for line in _log if "error" in line]
    return lines[0].rpartition("error loading model: ")[2] if lines else "it gives no reason"


class LlamaCppRuntime:
    """One GGUF file, loaded on the CPU."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        """Load a file; `prepare` creates the context once the prompt's size is known.

        Raises:
            UnknownModel: The file is missing, or llama.cpp cannot read it.
            BadInput: llama.cpp is not installed.
        """
        self._library = load_llama_cpp()
        if not path.is_file():
            raise UnknownModel(
                f"No GGUF file at {path}. Write llamacpp: and the path of a .gguf file."
            )
        files = gguf_files.read_files(path)
        self.path, self.name = path, path.name
        self.device = torch.device("cpu")
        self._threads = threads or torch.get_num_threads()
        began = time.perf_counter()
        options = self._library.llama_model_default_params()
        options.n_gpu_layers = 0
        _log.clear()
        self._model = self._library.llama_model_load_from_file(os.fsencode(path), options)
        if not self._model:
            raise UnknownModel(f"llama.cpp cannot load {path}: {_reason()}. Write the file again.")
        self.facts = RuntimeFacts(
            name="llama.cpp",
            version=f"llama-cpp-python {self._library.__version__}",
            load_s=time.perf_counter() - began,
            disk_bytes=files.num_bytes,
        )
        self._vocabulary = self._library.llama_model_get_vocab(self._model)
        self.vocab_size = int(self._library.llama_vocab_n_tokens(self._vocabulary))
        self.context_tokens: int | None = int(self._library.llama_model_n_ctx_train(self._model))
        self._context: Any = None
        self._context_size = (0, 0)
        self._batch = self._library.llama_batch_init(BATCH_TOKENS, 0, 64)

    @property
    def dtype(self) -> str:
        """The file's number format, as llama.cpp describes it."""
        text = ctypes.create_string_buffer(256)
        self._library.llama_model_desc(self._model, text, len(text))
        return text.value.decode()

    def num_parameters(self) -> int:
        """As llama.cpp counts them."""
        return int(self._library.llama_model_n_params(self._model))

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text as llama.cpp reads it, special tokens in it included."""
        data = text.encode()
        tokens = (ctypes.c_int32 * (len(data) + 8))()
        number = self._library.llama_tokenize(
            self._vocabulary, data, len(data), tokens, len(tokens), True, True
        )
        return list(tokens[:number])

    def logits(self, tokens: list[int]) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """The logits [T, V] at each token of a text."""
        self.prepare(1, len(tokens))
        self.clear_cache()
        rows: list[BatchToken] = [(token, i, (0,), True) for i, token in enumerate(tokens)]
        return np.stack([row.copy() for row in self.decode(rows)])

    def prepare(self, num_sequences: int, num_tokens: int) -> None:
        """Create a context for this many sequences of this many tokens, or keep a larger one."""
        size = (num_sequences, num_sequences * num_tokens)
        if self._context and all(map(operator.ge, self._context_size, size)):
            return
        if self._context:
            self._library.llama_free(self._context)
        options = self._library.llama_context_default_params()
        # llama.cpp allocates the cache in units of 256 tokens.
        options.n_ctx = -(-size[1] // 256) * 256
        options.n_batch, options.n_ubatch = BATCH_TOKENS, UBATCH_TOKENS
        options.n_seq_max = num_sequences
        options.n_threads = options.n_threads_batch = self._threads
        options.kv_unified = True
        options.no_perf = True
        self._context = self._library.llama_init_from_model(self._model, options)
        if not self._context:
            raise NoRoom(
                f"llama.cpp could not allocate {num_sequences} sequences of {num_tokens} tokens of "
                f"{self.name}. Lower batch_size or the lengths."
            )
        self._context_size = size
        self._memory = self._library.llama_get_memory(self._context)

    def stream(self, prompt_BT: torch.Tensor, num_tokens: int) -> Iterator[list[int]]:
        """Greedy tokens, step by step; see `protocol.Runtime`."""
        return self._stream(prompt_BT.tolist(), num_tokens)

    def answer(self, prompt: list[int], num_tokens: int) -> Iterator[list[int]]:
        """`stream` for one prompt, after `prepare`."""
        self.prepare(1, len(prompt) + num_tokens)
        return self._stream([prompt], num_tokens)

    def _stream(self, prompts: list[list[int]], num_tokens: int) -> Iterator[list[int]]:
        self.clear_cache()
        last = len(prompts[0]) - 1
        rows: list[BatchToken] = [
            (token, position, (sequence,), position == last)
            for sequence, prompt in enumerate(prompts)
            for position, token in enumerate(prompt)
        ]
        tokens = [int(logits_V.argmax()) for logits_V in self.decode(rows)]
        yield tokens
        for step in range(1, num_tokens):
            rows = [(token, last + step, (i,), True) for i, token in enumerate(tokens)]
            tokens = [int(logits_V.argmax()) for logits_V in self.decode(rows)]
            yield tokens

    def clear_cache(self) -> None:
        """Empty the cache."""
        self._library.llama_memory_clear(self._memory, False)

    def decode(
        self, rows: Sequence["BatchToken"]
    ) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
        """Compute these tokens; yield the logits [V] of those that want them, in order.

        Each array is llama.cpp's own memory, valid until the next step of the iterator.
        """
        for start in range(0, len(rows), BATCH_TOKENS):
            part = rows[start : start + BATCH_TOKENS]
            batch = self._batch
            batch.n_tokens = len(part)
            for i, (token, position, sequences, wanted) in enumerate(part):
                batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
                batch.n_seq_id[i] = len(sequences)
                for j, sequence in enumerate(sequences):
                    batch.seq_id[i][j] = sequence
            status = self._library.llama_decode(self._context, batch)
            if status:
                raise NoRoom(
                    f"llama.cpp could not compute {len(part)} tokens of {self.name} (status "
                    f"{status}; 1 means that the context is full)."
                )
            for i, row in enumerate(part):
                if row[3]:
                    pointer = self._library.llama_get_logits_ith(self._context, i)
                    yield np.ctypeslib.as_array(pointer, shape=(self.vocab_size,))

    def watch_memory(self) -> PeakMemory:
        """Measures nothing: `peak_memory` measures in a separate process."""
        return PeakMemory()

    def close(self) -> None:
        """Free the context and the model."""
        if self._context:
            self._library.llama_free(self._context)
        self._library.llama_batch_free(self._batch)
        self._library.llama_model_free(self._model)
        self._context = self._model = None


BatchToken = tuple[int, int, Sequence[int], bool]
"""A token id, its position, the sequences it belongs to, and whether its logits are wanted."""
