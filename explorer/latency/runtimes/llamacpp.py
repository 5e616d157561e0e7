"""GGUF files in llama.cpp, by its C interface: the edge and on-device row.

Needs the extra `edge`. Sequences of a batch share one context; every step is one
`llama_decode`, and the next token of each sequence is taken from its logits on the host.

    explorer convert starter --to q8_0 starter.gguf
"""

import ctypes
import importlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from explorer.errors import BadInput, NoRoom, UnknownModel
from explorer.latency.runtimes.protocol import PeakMemory
from explorer.records import RuntimeFacts

# Shape letters: B sequences answered together, T prompt tokens, V vocabulary.

BATCH_TOKENS = 2048
"""Tokens of one call of llama_decode at most."""
UBATCH_TOKENS = 512
"""Tokens that llama.cpp computes at a time; its own default."""


def load_llama_cpp() -> Any:
    """The module `llama_cpp`, silent but for errors.

    Raises:
        BadInput: It is not installed.
    """
    try:
        module = importlib.import_module("llama_cpp")
    except ImportError as error:
        raise BadInput(
            "This needs llama.cpp, which is not installed: pip install 'distill-explorer[edge]' "
            "compiles it, in about ten minutes."
        ) from error
    module.llama_log_set(_silent(module), ctypes.c_void_p())
    return module


_kept: list[Any] = []


def _silent(module: Any) -> Any:
    """A logger that says nothing; kept, since the library holds only a pointer to it."""
    if not _kept:
        _kept.append(module.llama_log_callback(lambda level, text, data: None))
    return _kept[0]


class LlamaCppRuntime:
    """One GGUF file, loaded on the CPU."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        """Load a file; the context is made when the first prompt's size is known.

        Raises:
            UnknownModel: No file, or none that llama.cpp reads.
            BadInput: llama.cpp is not installed.
        """
        self._library = load_llama_cpp()
        if not path.is_file():
            raise UnknownModel(f"No GGUF file at {path}. Give llamacpp: and a .gguf file's path.")
        self.path, self.name = path, path.name
        self.device = torch.device("cpu")
        self._threads = threads or torch.get_num_threads()
        began = time.perf_counter()
        options = self._library.llama_model_default_params()
        options.n_gpu_layers = 0
        self._model = self._library.llama_model_load_from_file(str(path).encode(), options)
        if not self._model:
            raise UnknownModel(f"llama.cpp cannot load {path}: it is damaged or of another kind.")
        self.facts = RuntimeFacts(
            name="llama.cpp",
            version=f"llama-cpp-python {self._library.__version__}",
            load_s=time.perf_counter() - began,
            disk_bytes=path.stat().st_size,
        )
        self._vocabulary = self._library.llama_model_get_vocab(self._model)
        self.vocab_size = int(self._library.llama_vocab_n_tokens(self._vocabulary))
        self.context_tokens: int | None = int(self._library.llama_model_n_ctx_train(self._model))
        self._context: Any = None
        self._room = (0, 0)
        self._batch = self._library.llama_batch_init(BATCH_TOKENS, 0, 64)

    @property
    def dtype(self) -> str:
        """The file's number format, as llama.cpp describes it."""
        room = ctypes.create_string_buffer(256)
        self._library.llama_model_desc(self._model, room, len(room))
        return room.value.decode()

    def num_parameters(self) -> int:
        """As llama.cpp counts them."""
        return int(self._library.llama_model_n_params(self._model))

    def prepare(self, num_sequences: int, num_tokens: int) -> None:
        """Make a context for so many sequences of so many tokens, or keep a larger one."""
        room = (num_sequences, num_sequences * num_tokens)
        if self._context and self._room[0] >= room[0] and self._room[1] >= room[1]:
            return
        if self._context:
            self._library.llama_free(self._context)
        options = self._library.llama_context_default_params()
        # The cache comes in pieces of 256 tokens.
        options.n_ctx = -(-room[1] // 256) * 256
        options.n_batch, options.n_ubatch = BATCH_TOKENS, UBATCH_TOKENS
        options.n_seq_max = num_sequences
        options.n_threads = options.n_threads_batch = self._threads
        options.kv_unified = True
        options.no_perf = True
        self._context = self._library.llama_init_from_model(self._model, options)
        if not self._context:
            raise NoRoom(
                f"llama.cpp could not make room for {num_sequences} sequences of {num_tokens} "
                f"tokens of {self.name}. Lower them."
            )
        self._room = room
        self._memory = self._library.llama_get_memory(self._context)

    def stream(self, prompt_BT: torch.Tensor, num_tokens: int) -> Iterator[list[int]]:
        """Greedy tokens, step by step; see `base.Runtime`."""
        return self._stream(prompt_BT.tolist(), num_tokens)

    def answer(self, prompt: list[int], num_tokens: int) -> Iterator[list[int]]:
        """`stream` of one prompt, with room made for it."""
        self.prepare(1, len(prompt) + num_tokens)
        return self._stream([prompt], num_tokens)

    def _stream(self, prompts: list[list[int]], num_tokens: int) -> Iterator[list[int]]:
        self.forget()
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

    def forget(self) -> None:
        """Empty the cache."""
        self._library.llama_memory_clear(self._memory, False)

    def decode(
        self, rows: Sequence["BatchToken"]
    ) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
        """Compute these tokens; yield the logits [V] of those that ask for them, in order.

        The array is llama.cpp's own memory, valid until the next step of the iterator.
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
                    f"llama.cpp could not compute {len(part)} tokens of {self.name} (its status is "
                    f"{status}; 1 means that the context is full)."
                )
            for i, row in enumerate(part):
                if row[3]:
                    pointer = self._library.llama_get_logits_ith(self._context, i)
                    yield np.ctypeslib.as_array(pointer, shape=(self.vocab_size,))

    def watch_memory(self) -> PeakMemory:
        """Only a process of its own can tell; see `speed.memory`."""
        return PeakMemory()

    def close(self) -> None:
        """Free the context and the model."""
        if self._context:
            self._library.llama_free(self._context)
        self._library.llama_batch_free(self._batch)
        self._library.llama_model_free(self._model)
        self._context = self._model = None


BatchToken = tuple[int, int, Sequence[int], bool]
"""A token, its position, the sequences that it belongs to, and whether its logits are wanted."""
