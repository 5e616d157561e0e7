"""Orders with files, models and tasks from outside: refused before any compute, or run to the end.

Each kind is an order of the tiny run with one thing changed. What the full preflight accepts must
not fail later; what it refuses must not have measured anything.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from explorer import pipeline
from explorer.errors import ExplorerError
from explorer.models import loading
from explorer.pipeline import preflight
from explorer.specs import RunSpec
from explorer.store import disk
from explorer.tasks import custom, question_columns, question_files
from tests.families import tiny

Order = dict[str, Any]
TEXTS = [f"Document {i} says that {i} is a number, and then some more words." for i in range(60)]
BENCHMARK: Order = {"student": None, "distill": None}
TIMED: Order = {"prompt_tokens": 8, "output_tokens": 2, "warmup": 0, "repeats": 2}


def corpus(name: str, content: bytes) -> Callable[[Order, Path], Order]:
    """The order with this training text."""

    def change(order: Order, folder: Path) -> Order:
        (folder / name).write_bytes(content)
        return {"distill": order["distill"] | {"corpus": str(folder / name)}}

    return change


def lines(texts: list[Any], **dumps: Any) -> bytes:
    return "".join(json.dumps({"text": text}, **dumps) + "\n" for text in texts).encode()


def parquet(texts: list[Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": texts}), sink)
    return sink.getvalue().to_pybytes()


def questions(*rows: dict[str, Any]) -> Callable[[Order, Path], Order]:
    """The order with a task made from a question file."""

    def change(order: Order, folder: Path) -> Order:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        read = question_files.read_rows("mine.jsonl", content)
        columns = question_columns.guess_columns("mine.jsonl", read).columns
        documents = custom.read_questions("mine.jsonl", read, columns).documents
        custom.add_task("mine", documents, origin="mine.jsonl")
        return BENCHMARK | {"capability": {"tasks": ["mine"]}}

    return change


def empty_choice(order: Order, folder: Path) -> Order:
    """The order with a task of somebody else's, one of whose choices is empty."""
    rows = [{"q": "One or two?", "c": ["one", "two"]}, {"q": "This or nothing?", "c": ["this", ""]}]
    (folder / "marks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "marks.yaml").write_text(
        "task: marks\ndataset_path: json\noutput_type: multiple_choice\ntest_split: test\n"
        f"dataset_kwargs: {{data_files: {{test: {folder / 'marks.jsonl'}}}}}\n"
        "doc_to_text: '{{q}}'\ndoc_to_choice: '{{c}}'\ndoc_to_target: 0\n"
    )
    return BENCHMARK | {"capability": {"tasks": ["marks"], "include_path": str(folder)}}


def model(change: Callable[[Path], Any], **more: Any) -> Callable[[Order, Path], Order]:
    """The order with a damaged or unusual copy of its teacher."""

    def changed(order: Order, folder: Path) -> Order:
        copy = shutil.copytree(order["teacher"], folder / "teacher")
        teacher = change(copy) or copy
        return {"teacher": str(teacher), **more}

    return changed


def family(name: str, **more: Any) -> Callable[[Order, Path], Order]:
    """The order with a tiny teacher of another architecture."""
    return lambda order, folder: {"teacher": str(tiny.save(name, folder / name)), **more}


def without_a_layer(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({k: v for k, v in tensors.items() if ".2." not in k}, path, {"format": "pt"})


def head_of_its_own(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    head = tensors["model.embed_tokens.weight"].flip(0).contiguous()
    save_file(tensors | {"lm_head.weight": head}, path, {"format": "pt"})


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_an_end(folder: Path) -> None:
    tokenizer = loading.load_tokenizer(str(folder))
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)


def without_begin_and_end(folder: Path) -> None:
    tokenizer = loading.load_tokenizer(str(folder))
    tokenizer.eos_token = tokenizer.bos_token = None
    tokenizer.save_pretrained(folder)


def padding_beyond_the_rows(folder: Path) -> None:
    tokenizer = loading.load_tokenizer(str(folder))
    tokenizer.add_tokens([f"<{i}>" for i in range(320 - len(tokenizer))])
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)


def code_of_its_own(folder: Path) -> None:
    (folder / "modeling_own.py").write_text("raise SystemExit('this ran')\n")
    path = folder / "config.json"
    auto_map = {"AutoConfig": "modeling_own.C", "AutoModelForCausalLM": "modeling_own.M"}
    own = {"model_type": "own_kind", "auto_map": auto_map}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))


def linked(folder: Path) -> Path:
    link = folder.parent / "link"
    link.symlink_to(folder)
    return link


def long_blocks(order: Order, folder: Path) -> Order:
    return {"distill": order["distill"] | {"block_tokens": 513, "max_tokens": 600}}


def uniform(num_layers: int) -> Order:
    return {"student": {"num_layers": num_layers, "choice": "uniform", "sample_blocks": 2}}


AS_PYTHON = ["[1,2]", "007", "{{x}}", "None"]
"""Choices that look like code to lm-eval's templates."""

RUNS = {
    "the tiny run": lambda order, folder: {},
    "line separators in JSON Lines": corpus(
        "a.jsonl", lines(["One\u2028two\u2029three\u0085four. " * 3, *TEXTS], ensure_ascii=False)
    ),
    "a byte order mark": corpus("a.txt", b"\xef\xbb\xbf" + "\n\n".join(TEXTS).encode()),
    "UTF-16 with its mark": corpus("a.txt", "\n\n".join(TEXTS).encode("utf-16")),
    "Parquet with strings": corpus("a.parquet", parquet(TEXTS)),
    "choices that look like code": questions(
        *({"question": "Which?", "choices": AS_PYTHON, "answer": text} for text in AS_PYTHON)
    ),
    "a head of its own": model(head_of_its_own),
    "a tokenizer without an end": model(without_an_end),
    "a padding token beyond the rows": model(padding_beyond_the_rows),
    "a teacher behind a link": model(linked),
    "sizes in text_config": family("gemma3", latency=TIMED),
    "attention scaled by layer": family("gpt2_scaled", **uniform(3)),
    "dense layers before those with experts": family("deepseek_v3", **uniform(3)),
    "no key-value cache and no heads": family("mamba", latency=TIMED),
}
"""What must be accepted, and then run."""

REFUSED = {
    "half a character": (corpus("a.jsonl", lines(["\ud83d", *TEXTS])), "line 1: expected whole"),
    "Parquet with bytes": (corpus("a.parquet", parquet([b"\xff\xfe"] * 60)), "a.parquet"),
    "Parquet with chats": (
        corpus("a.parquet", parquet([[{"role": "user", "content": text}] for text in TEXTS])),
        "a.parquet",
    ),
    "Latin-1": (corpus("a.txt", "\n\n".join([*TEXTS, "café"]).encode("latin-1")), "a.txt"),
    "an empty choice": (empty_choice, "marks"),
    "a layer without weights": (model(without_a_layer), "weights missing: model.layers.2"),
    "pickled weights": (model(pickled), "pytorch_model.bin"),
    "a tokenizer without begin and end": (model(without_begin_and_end), "part the documents"),
    "its own code": (model(code_of_its_own), "trust_remote_code"),
    "blocks beyond the positions": (long_blocks, "block_tokens is 513"),
    "a vocabulary in the way": (
        lambda order, folder: {"distill": order["distill"] | {"top_k": 320}},
        "must be below the 320 tokens",
    ),
}
"""What must be refused, and words of the reason."""


@pytest.mark.parametrize("change", RUNS.values(), ids=RUNS)
def test_what_the_preflight_accepts_runs_to_its_end(change, tiny_run, store_root, tmp_path):
    """Nothing that could be known at the start fails an accepted order later."""
    spec = RunSpec.parse(tiny_run | change(tiny_run, tmp_path))

    found = preflight.findings([spec], store_root)

    assert [finding.message for finding in found if finding.error] == []
    record = pipeline.run(spec, store_root)
    assert record.status == "finished"
    assert disk.is_finished(store_root, spec.run_id)


@pytest.mark.parametrize(("change", "says"), REFUSED.values(), ids=REFUSED)
def test_what_the_preflight_refuses_measures_nothing(change, says, tiny_run, store_root, tmp_path):
    """The run ends with the same words, before its teacher is measured or anything is trained."""
    spec = RunSpec.parse(tiny_run | change(tiny_run, tmp_path))

    found = preflight.findings([spec], store_root)

    assert says in " ".join(finding.message for finding in found if finding.error)
    with pytest.raises(ExplorerError) as refused:
        pipeline.run(spec, store_root)
    assert says in str(refused.value)
    assert not list(store_root.glob("*/answers.parquet"))
    assert not list(store_root.glob(".students/*"))
