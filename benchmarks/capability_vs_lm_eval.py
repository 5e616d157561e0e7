"""How much sooner does our back end answer lm-eval's questions than lm-eval's own?

    python benchmarks/capability_vs_lm_eval.py --turns 3

The peer is lm-eval's model `hf` (what `lm_eval run --model hf` makes), around the same model
object, at the batch size that a short trial finds best for it, each kind of task for itself. Ours
keeps its default. Both are driven by lm-eval's own evaluator, in turns; the clock runs from the
call to the scores, with prompts and metrics in it and without start-up and the index of tasks.

Four kinds, on the documents of the starter suite: minimal pairs and two-choice questions without
examples, four-choice questions after five examples that all documents share (choices as text, so
that each is scored for itself), and generated answers after the same examples.
"""

import argparse
import functools
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from lm_eval import evaluator
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm

from explorer.evaluate.backends.prefix_lm import PrefixLM
from explorer.models import loading
from explorer.pipeline import environment
from explorer.tasks import index, task_loading

SHOTS = 5
BATCH_SIZES = (1, 4, 8, 16, 32)
TRIAL_DOCUMENTS = 12
QUESTION = (
    "Question: {{stem}} ...\nPossible answers: {{choices | join(', ')}}.\nThe right answer is:"
)
FEW_SHOT = {
    "dataset_kwargs": {"file": "starter_facts.jsonl"},
    "num_fewshot": SHOTS,
    "fewshot_split": "test",
    "fewshot_config": {"sampler": "first_n"},
    "description": "Below are questions about the world, each with its four possible answers.\n\n",
    "doc_to_text": QUESTION,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "zero-shot minimal pairs": (
        "zero_shot",
        {
            "dataset_kwargs": {"file": "starter_grammar.jsonl"},
            "output_type": "multiple_choice",
            "doc_to_text": "",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
        },
    ),
    "zero-shot two-choice": (
        "zero_shot",
        {
            "dataset_kwargs": {"file": "starter_physical.jsonl"},
            "output_type": "multiple_choice",
            "doc_to_text": "goal",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
        },
    ),
    "five-shot four-choice": (
        "five_shot",
        FEW_SHOT
        | {
            "output_type": "multiple_choice",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
        },
    ),
    "five-shot generation": (
        "generation",
        FEW_SHOT
        | {
            "output_type": "generate_until",
            "doc_to_target": "{{choices[answer]}}",
            "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 16},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean"}],
        },
    ),
}


def task(name: str, config: dict[str, Any]) -> ConfigurableTask:
    """One kind as a task of lm-eval's."""
    path = index.SHIPPED / "data.py"
    spec = importlib.util.spec_from_file_location("data", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with task_loading.quiet_lm_eval():
        return ConfigurableTask(
            config={
                "task": name,
                "custom_dataset": module.load,
                "test_split": "test",
                "num_fewshot": 0,
                **config,
                "metadata": {"version": 1.0},
            }
        )


def evaluate(lm: Any, name: str, one: ConfigurableTask, documents: range) -> tuple[float, list]:
    """Seconds, and the samples in the order of their documents."""
    began = time.monotonic()
    with task_loading.quiet_lm_eval():
        found = evaluator.evaluate(
            lm, {"tasks": {name: one}}, samples={name: list(documents)}, bootstrap_iters=0
        )
    seconds = time.monotonic() - began
    return seconds, sorted(found["samples"][name], key=lambda sample: sample["doc_id"])


def best_batch_size(stock: Callable[[int], HFLM], name: str, one: ConfigurableTask) -> int:
    """What the stock back end is quickest with, on the first documents."""
    first = range(SHOTS, SHOTS + TRIAL_DOCUMENTS)
    evaluate(stock(1), name, one, range(SHOTS, SHOTS + 2))
    return min(BATCH_SIZES, key=lambda size: evaluate(stock(size), name, one, first)[0])


def agreement(ours: list, theirs: list) -> tuple[float, float]:
    """Share of documents with the same answer, and the largest difference of a log-likelihood."""
    same, off = 0, 0.0
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["doc_hash"] == other["doc_hash"], "both were to answer the same documents"
        found, expected = mine["filtered_resps"], other["filtered_resps"]
        if isinstance(found[0], str):
            same += found == expected
            continue
        values, wanted = ([float(one[0]) for one in side] for side in (found, expected))
        off = max(off, *(abs(a - b) for a, b in zip(values, wanted, strict=True)))
        same += values.index(max(values)) == wanted.index(max(wanted))
    return same / len(ours), off


def main() -> None:
    """Take turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="starter")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--documents", type=int, default=200, help="of each zero-shot kind")
    parser.add_argument("--few-shot-documents", type=int, default=100)
    asked = parser.parse_args()
    # The table is the output; lm-eval's bars have no other switch here.
    tqdm.__init__ = functools.partialmethod(tqdm.__init__, disable=True)
    loaded = loading.load(asked.model)
    tokenizer = loaded.tokenizer

    def stock(size: int) -> HFLM:
        return HFLM(loaded.model, tokenizer=tokenizer, batch_size=size, backend="causal")

    ours = PrefixLM(loaded.model, tokenizer=tokenizer, on_progress=lambda work: None)
    seconds: dict[str, dict[str, list[float]]] = {}
    same_documents, num_documents, largest = 0.0, 0, 0.0
    heading = f"{'kind':26}{'documents':>10}{'batch':>6}{'ours s':>9}{'hf s':>9}{'ratio':>8}"
    print(heading, flush=True)
    for kind, (figure, config) in KINDS.items():
        name = kind.replace(" ", "_").replace("-", "_")
        one = task(name, config)
        wanted = asked.documents if figure == "zero_shot" else asked.few_shot_documents
        documents = range(SHOTS, min(SHOTS + wanted, len(one.eval_docs)))
        size = best_batch_size(stock, name, one)
        evaluate(ours, name, one, range(SHOTS, SHOTS + TRIAL_DOCUMENTS))
        turns: dict[str, list[float]] = {"ours": [], "hf": []}
        for turn in range(asked.turns):
            sides = {"ours": ours, "hf": stock(size)}
            answers = {}
            for side in sorted(sides, reverse=turn % 2 == 1):
                took, answers[side] = evaluate(sides[side], name, one, documents)
                turns[side].append(took)
            share, off = agreement(answers["ours"], answers["hf"])
            same_documents += share * len(documents)
            num_documents += len(documents)
            largest = max(largest, off)
        seconds.setdefault(figure, {})[kind] = turns
        ratios = sorted(b / a for a, b in zip(turns["ours"], turns["hf"], strict=True))
        print(
            f"{kind:26}{len(documents):>10}{size:>6}{statistics.median(turns['ours']):>9.1f}"
            f"{statistics.median(turns['hf']):>9.1f}{statistics.median(ratios):>7.2f}x"
            f"  [{ratios[0]:.2f}, {ratios[-1]:.2f}]",
            flush=True,
        )

    def ratio(figure: str) -> float:
        """Of the times of all kinds of a figure together."""
        sums = {
            side: sum(statistics.median(turns[side]) for turns in seconds[figure].values())
            for side in ("ours", "hf")
        }
        return round(sums["hf"] / sums["ours"], 2)

    print(
        json.dumps(
            {
                "speed_ratio_zero_shot": ratio("zero_shot"),
                "speed_ratio_five_shot": ratio("five_shot"),
                "speed_ratio_generation": ratio("generation"),
                "answer_agreement": round(same_documents / num_documents, 5),
                "max_loglik_difference": largest,
                "turns": asked.turns,
                "model": loaded.name,
                "device": environment.device_name(loaded.model.device),
                "threads": torch.get_num_threads(),
                "versions": {name: version(name) for name in ("lm_eval", "torch", "transformers")},
            }
        )
    )


if __name__ == "__main__":
    main()
