"""Tasks of every kind that lm-eval has, in a folder, on documents that are on this machine."""

import json
from pathlib import Path
from typing import Any

import yaml

CITIES = ["Rome", "Paris", "Oslo", "Lima", "Cairo", "Quito", "Tunis", "Delhi", "Seoul", "Accra"]
NAMES = ("local_choice", "local_letter", "local_word", "local_generation", "local_rolling")


def write(folder: Path, num_rounds: int = 3) -> None:
    """Five tasks of ten documents a round each, and a group of two of them."""
    documents = [
        {
            "question": f"{city} and number {i} are",
            "choices": [f"in list {i}", f"not in the list {i % 7}", "elsewhere"][: 2 + i % 2],
            "letters": ["A", "B", "C"],
            "answer": i % 2,
            "end": f"{city[: 1 + i % 3]}",
        }
        for i, city in enumerate(CITIES * num_rounds)
    ]
    lines = "".join(json.dumps(document) + "\n" for document in documents)
    (folder / "documents.jsonl").write_text(lines, encoding="utf-8")

    def add(name: str, **more: Any) -> None:
        config = {
            "task": name,
            "tag": "local_all",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(folder / "documents.jsonl")}},
            "test_split": "test",
            "doc_to_text": "{{question}}",
            **more,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    def metrics(*names: str) -> list[dict[str, Any]]:
        return [{"metric": n, "aggregation": "mean", "higher_is_better": True} for n in names]

    choice = {"output_type": "multiple_choice", "doc_to_target": "answer"}
    add("local_choice", **choice, doc_to_choice="choices", metric_list=metrics("acc", "acc_norm"))
    add(
        "local_letter",
        **choice,
        doc_to_choice="letters",
        metric_list=metrics("acc"),
        metadata={"version": 3.0, "chance": 0.4, "headline_metric": "acc"},
    )
    add(
        "local_word",
        output_type="loglikelihood",
        doc_to_target="{{end}}",
        metric_list=[
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            *metrics("acc"),
        ],
    )
    add(
        "local_generation",
        output_type="generate_until",
        doc_to_target="{{end}}",
        generation_kwargs={"until": ["\n"], "max_gen_toks": 4},
        metric_list=metrics("exact_match"),
    )
    add(
        "local_rolling",
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{question}}",
        metric_list=[
            {
                "metric": "word_perplexity",
                "aggregation": "weighted_perplexity",
                "higher_is_better": False,
            }
        ],
    )
    group = {"group": "local_group", "task": ["local_choice", "local_letter"]}
    (folder / "local_group.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
