"""What do 8 or 4 bits cost and save: answers, bytes, memory and time, beside the model as it is?

    python benchmarks/quantized_weights.py --model starter --bits 8 --turns 10

Answers are compared on the first blocks of a corpus; the two are timed in turns. Needs the
extra `quant`.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch

from explorer.distill import corpus, token_file
from explorer.latency import peak_memory
from explorer.latency import timing as latency
from explorer.latency.runtimes.pytorch import EagerRuntime
from explorer.models import loading
from explorer.models.facts import model_facts
from explorer.specs import LatencySpec
from explorer.store.progress import Progress


@torch.inference_mode()
def answers(plain, quantized, blocks_NT: torch.Tensor) -> tuple[float, float]:
    """KL(whole || quantized) in nats a token, and the share of equal likeliest tokens."""
    kl, same = [], []
    for tokens in blocks_NT:
        p_TV, q_TV = (m.model(tokens[None]).logits[0].log_softmax(-1) for m in (plain, quantized))
        kl.append((p_TV.exp() * (p_TV - q_TV)).sum(-1).mean().item())
        same.append((p_TV.argmax(-1) == q_TV.argmax(-1)).float().mean().item())
    return statistics.mean(kl), statistics.mean(same)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="starter")
    parser.add_argument("--bits", type=int, choices=(8, 4), default=8)
    parser.add_argument("--corpus", default="starter")
    parser.add_argument("--blocks", type=int, default=8, help="of 256 tokens")
    parser.add_argument("--turns", type=int, default=10)
    asked = parser.parse_args()
    device = loading.pick_device()
    plain = loading.load(asked.model, device=device)
    quantized = loading.load(asked.model, device=device, bits=asked.bits)
    with tempfile.TemporaryDirectory() as folder:
        text, path = corpus.read_corpus(asked.corpus), Path(folder, "corpus.bin")
        blocks_NT = token_file.ensure_tokens(text, plain.tokenizer, path, 256)
        kl, top1 = answers(plain, quantized, blocks_NT[list(range(asked.blocks))].to(device))

    spec = LatencySpec(repeats=asked.turns)
    with tempfile.TemporaryDirectory() as folder:
        timed = latency.time_in_turns(
            EagerRuntime(quantized), EagerRuntime(plain), spec, Progress(Path(folder), "quantized")
        )
    found = {"kl": kl, "top1": top1}
    for name in ("ttft_ms", "tpot_ms"):
        pairs = zip(timed.own.turns, timed.teacher.turns, strict=True)
        ratios = [getattr(own, name) / getattr(whole, name) for own, whole in pairs]
        found[f"{name.removesuffix('_ms')}_ratio"] = statistics.median(ratios)
    print(f"{'weights':<18} {'bytes':>14} {'peak memory':>14} {'TTFT ms':>9} {'TPOT ms':>9}")
    for model, timing, bits in ((plain, timed.teacher, None), (quantized, timed.own, asked.bits)):
        about = model_facts(model)
        peak = timing.peak_memory_bytes
        if device.type == "cpu":
            peak = peak_memory.peak_memory_bytes(asked.model, spec, device, model.model.dtype, bits)
        ttft, tpot = (
            statistics.median(getattr(turn, name) for turn in timing.turns)
            for name in ("ttft_ms", "tpot_ms")
        )
        shown = "unknown" if peak is None else f"{peak:,}"
        print(f"{about.dtype:<18} {about.weight_bytes:>14,} {shown:>14} {ttft:>9.1f} {tpot:>9.2f}")
    print(f"KL {kl:.4f} nats a token, the same likeliest token at {top1:.1%} of the positions.")
    if timed.warning:
        print(timed.warning)
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


if __name__ == "__main__":
    main()
