"""Does our protocol add time of its own, beside a loop by hand and llama.cpp's own timers?

    python benchmarks/latency_vs_peers.py --turns 10

The first peer is a loop by hand over transformers: no protocol, no checks, the same prompt.
The second, where the extra `edge` is installed, is what llama-bench does, on the same GGUF
file: one llama_decode over the prompt, then one a token, without reading logits or choosing
a token, by its own clock. Sides take turns and swap who goes first.
optimum-benchmark 0.6.0 installs but does not run with transformers 5.23: its PyTorch back end
imports SpecialTokensMixin, which is gone.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch

from explorer.errors import BadInput
from explorer.latency import timing
from explorer.latency.runtimes.llamacpp import LlamaCppRuntime
from explorer.latency.runtimes.pytorch import EagerRuntime
from explorer.models import loading
from explorer.models.gguf import convert
from explorer.specs import LatencySpec

Times = tuple[float, float]
"""Time to the first token, and per token after it, in ms."""


def ours(runtime, prompt_BT: torch.Tensor, num_tokens: int) -> Times:
    turn = timing.time_request(runtime, prompt_BT, num_tokens)
    return turn.ttft_ms, turn.tpot_ms


@torch.inference_mode()
def by_hand(model, prompt_BT: torch.Tensor, num_tokens: int) -> Times:
    began = time.perf_counter()
    out = model(prompt_BT, use_cache=True, logits_to_keep=1)
    token = int(out.logits[0, -1].argmax())
    first = time.perf_counter()
    for _ in range(num_tokens - 1):
        step = torch.tensor([[token]])
        out = model(step, past_key_values=out.past_key_values, use_cache=True, logits_to_keep=1)
        token = int(out.logits[0, -1].argmax())
    last = time.perf_counter()
    return 1e3 * (first - began), 1e3 * (last - first) / (num_tokens - 1)


class LlamaBench:
    """llama-bench's loops over llama.cpp's C interface, in a context of its own."""

    def __init__(self, path: Path, num_tokens: int, threads: int) -> None:
        import llama_cpp

        self.c = llama_cpp
        self.model = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params()
        )
        options = llama_cpp.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = num_tokens, 2048, 512
        options.n_threads = options.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, options)

    def __call__(self, prompt: list[int], num_tokens: int) -> Times:
        """Time one prompt and its answer."""
        c = self.c
        c.llama_memory_clear(c.llama_get_memory(self.context), False)
        tokens = (c.llama_token * len(prompt))(*prompt)
        began = time.perf_counter()
        assert c.llama_decode(self.context, c.llama_batch_get_one(tokens, len(prompt))) == 0
        c.llama_synchronize(self.context)
        first = time.perf_counter()
        for _ in range(num_tokens - 1):
            # llama-bench feeds random tokens: what they are changes no time.
            one = (c.llama_token * 1)(random.randrange(1000))
            assert c.llama_decode(self.context, c.llama_batch_get_one(one, 1)) == 0
            c.llama_synchronize(self.context)
        last = time.perf_counter()
        return 1e3 * (first - began), 1e3 * (last - first) / (num_tokens - 1)


def in_turns(mine, theirs, turns: int) -> tuple[list[Times], list[Times]]:
    """A B, B A, ...; the first turn of each warms up and is dropped."""
    found: tuple[list[Times], list[Times]] = ([], [])
    for turn in range(turns + 1):
        sides = [(0, mine), (1, theirs)]
        for side, answer in sides if turn % 2 == 0 else reversed(sides):
            times = answer()
            if turn:
                found[side].append(times)
    return found


def report(name: str, mine: list[Times], theirs: list[Times]) -> dict[str, float]:
    """Print one peer's rows; the ratios are medians over the turns."""
    ratios = {}
    for part, label in ((0, "ttft"), (1, "tpot")):
        a, b = ([times[part] for times in side] for side in (mine, theirs))
        each = [x / y for x, y in zip(a, b, strict=True)]
        ratios[f"{label}_ratio"] = round(statistics.median(each), 4)
        print(
            f"{name:32}{label:6}{statistics.median(a):10.2f}{statistics.median(b):10.2f}"
            f"{statistics.median(each):9.3f}   [{min(each):.3f}, {max(each):.3f}]"
        )
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--output-tokens", type=int, default=64)
    asked = parser.parse_args()
    spec = LatencySpec(prompt_tokens=asked.prompt_tokens, output_tokens=asked.output_tokens)
    loaded = loading.load(asked.model, device="cpu", dtype="float32")
    runtime = EagerRuntime(loaded)
    prompt_BT = timing.random_prompt([runtime], spec, 1)
    length = spec.output_tokens
    print(f"{'peer':32}{'':6}{'ours ms':>10}{'peer ms':>10}{'ratio':>9}   range over the turns")
    mine, theirs = in_turns(
        lambda: ours(runtime, prompt_BT, length),
        lambda: by_hand(loaded.model, prompt_BT, length),
        asked.turns,
    )
    result: dict[str, object] = dict(report("loop by hand, transformers", mine, theirs))
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.gguf"
            convert.to_gguf(loaded, "q8_0", path)
            threads = torch.get_num_threads()
            in_llama = LlamaCppRuntime(path, threads=threads)
            peer = LlamaBench(path, spec.prompt_tokens + length, threads)
            mine, theirs = in_turns(
                lambda: ours(in_llama, prompt_BT, length),
                lambda: peer(prompt_BT[0].tolist(), length),
                asked.turns,
            )
        ratios = report("llama-bench's loop, Q8_0", mine, theirs)
        result |= {f"llama_cpp_{name}": ratio for name, ratio in ratios.items()}
        result["llama_cpp_python"] = version("llama_cpp_python")
    except BadInput as error:
        print(f"llama.cpp is left out: {error}")
    result |= {"turns": asked.turns, "transformers": version("transformers")}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
