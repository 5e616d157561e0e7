"""transformers on this machine: eager, or compiled with a static cache.

Eager calls `model(...)`. Compiled keeps keys and values in tensors of fixed size and compiles
the decoding step, which a device with graphs launches as one.
"""

import logging
from collections.abc import Iterator

import torch
import transformers
from transformers import PreTrainedModel, StaticCache

from explorer.devices import accelerator
from explorer.errors import BadInput
from explorer.latency.runtimes.allocator_peak import AllocatorPeak
from explorer.models.decoding import Decoder, step_options
from explorer.models.loading import Loaded, disk_bytes
from explorer.records import RuntimeFacts

log = logging.getLogger("explorer")

# Shape letters: B sequences answered together, T prompt tokens, V vocabulary.


class EagerRuntime:
    """A loaded model, called directly; its cache grows with the answer."""

    kind = "transformers eager"

    def __init__(self, loaded: Loaded, *, stored_as: str | None = None) -> None:
        """Wrap a loaded model.

        Args:
            loaded: The model; it is not copied.
            stored_as: The name by which `models.loading` finds its files, for `disk_bytes`.
        """
        self.loaded, self.model = loaded, loaded.model
        config = self.model.config.get_text_config()
        self.name = loaded.name
        self.device = self.model.device
        self.vocab_size = int(config.vocab_size)
        self.context_tokens: int | None = getattr(config, "max_position_embeddings", None)
        self.rereads = False
        """Whether the model keeps nothing between two tokens; known after the first answer."""
        self.facts = RuntimeFacts(
            name=self.kind,
            version=transformers.__version__,
            load_s=loaded.load_s,
            disk_bytes=disk_bytes(stored_as) if stored_as else None,
        )

    def prepare(self, num_sequences: int, num_tokens: int) -> None:
        """Does nothing: the cache grows by itself."""

    @torch.inference_mode()
    def stream(self, prompt_BT: torch.Tensor, num_tokens: int) -> Iterator[list[int]]:
        """Greedy tokens, step by step; see `protocol.Runtime`."""
        decoder, ids_BT = Decoder(self.model), prompt_BT
        for _ in range(num_tokens):
            ids_BT = decoder.step(ids_BT).argmax(-1, keepdim=True)
            yield ids_BT[:, 0].tolist()
        if decoder.rereads and not self.rereads:
            self.rereads = True
            log.warning(
                "%s keeps nothing between two tokens in transformers, so each token reads the "
                "whole text again; its times are those.",
                type(self.model).__name__,
            )

    def watch_memory(self) -> AllocatorPeak:
        """Measure the allocator's peak minus what other models hold."""
        return AllocatorPeak(self.model)

    def close(self) -> None:
        """Drop the reference to the model."""
        del self.model, self.loaded


def check_compiles(name: str, model: PreTrainedModel) -> None:
    """Refuse to compile a model whose family transformers cannot compile; weights are not read.

    Raises:
        BadInput: Says what to choose instead.
    """
    if not getattr(model, "_can_compile_fullgraph", False):
        raise BadInput(
            f"{name} is a {type(model).__name__}, whose decoding step transformers cannot compile. "
            "Write latency.runtime: eager."
        )


class CompiledRuntime(EagerRuntime):
    """The decoding step compiled over a cache of fixed size; prefill is eager."""

    kind = "transformers compiled"

    def __init__(
        self, loaded: Loaded, *, stored_as: str | None = None, backend: str = "inductor"
    ) -> None:
        """As `Eager`; `backend` is torch.compile's."""
        check_compiles(loaded.name, loaded.model)
        super().__init__(loaded, stored_as=stored_as)
        self._has_graphs = accelerator.has_graphs(self.device)
        mode = "reduce-overhead" if self._has_graphs and backend == "inductor" else None
        self._options = step_options(self.model)
        self._step = torch.compile(self.model, mode=mode, backend=backend, fullgraph=True)
        self._cache: StaticCache | None = None
        self._cache_size = (0, 0)

    def prepare(self, num_sequences: int, num_tokens: int) -> None:
        """Allocate the cache, or keep one of this size, so that the compiled step stays valid."""
        # A multiple of 64 lets neighbouring lengths share one compilation.
        size = (num_sequences, -(-num_tokens // 64) * 64)
        if self._cache is None or size != self._cache_size:
            self._cache = StaticCache(self.model.config, max_cache_len=size[1])
            self._cache_size = size

    @torch.inference_mode()
    def stream(self, prompt_BT: torch.Tensor, num_tokens: int) -> Iterator[list[int]]:
        """Greedy tokens, step by step; see `protocol.Runtime`."""
        cache = self._cache
        assert cache is not None, "prepare comes first"
        cache.reset()
        output = self.model(prompt_BT, past_key_values=cache, **self._options)
        token_B1 = output.logits[:, -1].argmax(-1, keepdim=True)
        yield token_B1[:, 0].tolist()
        for _ in range(num_tokens - 1):
            if self._has_graphs:
                # The next launch overwrites the memory of this graph's output.
                torch.compiler.cudagraph_mark_step_begin()
            output = self._step(token_B1, past_key_values=cache, **self._options)
            token_B1 = output.logits[:, -1].argmax(-1, keepdim=True).clone()
            yield token_B1[:, 0].tolist()

    def close(self) -> None:
        """Drop the model, its cache and the compiled step."""
        del self._step, self._cache
        super().close()
