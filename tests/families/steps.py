"""What is done with each architecture: by the product's own functions, held against plain torch.

A step returns what the table says of it. It raises an `ExplorerError` if the product refuses it,
and anything else if the product is wrong.
"""

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch import Tensor, nn

from explorer import pipeline
from explorer.distill import train
from explorer.distill.losses import forward_kl
from explorer.distill.synthesise import sample_documents, user_turn_opening
from explorer.distill.teacher_cache import TeacherCache, local_teacher
from explorer.distill.teacher_signal import CachedTeacher, LiveTeacher, TrainingData
from explorer.evaluate.backends.prefix_lm import PrefixLM
from explorer.latency import timing
from explorer.latency.runtimes.gguf_check import write_checked
from explorer.latency.runtimes.pytorch import EagerRuntime
from explorer.models.layers import KEPT_LAYERS, layer_list
from explorer.models.loading import Loaded, load
from explorer.specs import DepthStudent, DistillSpec, LatencySpec, RunSpec, WidthStudent
from explorer.store.progress import Progress
from explorer.students import create

TASKS = Path(__file__).parents[1] / "tasks"
NUM_TOKENS = 256
"""Ids below this exist in every model."""
RUN: dict[str, Any] = {
    "threads": 1,
    "name": "tiny",
    "capability": {"tasks": ["tiny_pairs"], "include_path": str(TASKS)},
    "latency": None,
}
DISTILL: dict[str, Any] = {
    "max_tokens": 3 * 4 * 31,
    "block_tokens": 32,
    "heldout_blocks": 2,
    "top_k": 8,
    "learning_rate": 1e-3,
}
OPENING = "a user asks"


@dataclasses.dataclass(frozen=True)
class Subject:
    """One architecture, and where its steps may write."""

    name: str
    folder: Path
    """The model and its tokenizer."""
    scratch: Path
    store: Path

    def load(self) -> Loaded:
        """The model as the product loads it."""
        return load(str(self.folder), dtype="float32")


def blocks(num_blocks: int = 3, num_tokens: int = 40) -> Tensor:
    """Random token ids, longer than the windows."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(2, NUM_TOKENS, (num_blocks, num_tokens), generator=generator)


def questions() -> list[tuple[str, str]]:
    """Some with a long common beginning, some without, all longer than the windows."""
    draw = random.Random(0)

    def text(num_words: int) -> str:
        return "".join(draw.choice(["ab", "abc ", " x", "yz ", " the"]) for _ in range(num_words))

    header, longer = text(40), text(100)
    pairs = []
    for i in range(8):
        context = header + text(draw.randint(1, 9)) if i % 2 else text(draw.randint(1, 12))
        pairs += [(context, text(draw.randint(1, 4))) for _ in range(2)]
    beyond = [(longer + text(20), text(3)) for _ in range(3)]
    return [*pairs, (text(90), "end"), (text(30), text(30)), *beyond]


def evaluate(subject: Subject) -> str:
    """Log-likelihoods within 1e-4 of stock lm-eval's, one request at a time, and its texts."""
    loaded = subject.load()
    ours = PrefixLM(loaded.model, tokenizer=loaded.tokenizer, batch_size=4)
    stock = HFLM(loaded.model, tokenizer=loaded.tokenizer, batch_size=1)

    def both(kind: str, arguments: list[tuple[Any, ...]]) -> tuple[Any, Any]:
        requests = [Instance(kind, {}, each, i) for i, each in enumerate(arguments)]
        return getattr(ours, kind)(requests, True), getattr(stock, kind)(requests, True)

    mine, wanted = both("loglikelihood", questions())
    assert [value for value, _ in mine] == pytest.approx([v for v, _ in wanted], abs=1e-4)
    assert [greedy for _, greedy in mine] == [greedy for _, greedy in wanted]
    mine, wanted = both("loglikelihood_rolling", [(text[:60],) for text, _ in questions()[::6]])
    assert mine == pytest.approx(wanted, abs=1e-4)
    settings = {"until": ["q!"], "max_gen_toks": 40}
    mine, wanted = both("generate_until", [(text, settings) for text, _ in questions()[::3]])
    assert mine == wanted
    return "trees" if ours.shares_prefixes else "lm-eval's own code"


def depth(subject: Subject) -> str:
    """Students by each choice of layers compute what the teacher does without the others."""
    teacher = subject.load()
    for num_layers, choice in ((3, "uniform"), (3, "block_influence"), (2, "greedy")):
        spec = DepthStudent(num_layers=num_layers, choice=choice, sample_blocks=2)
        student = create.create_student(teacher, teacher, spec, blocks(2)).model
        kept = getattr(student.config, KEPT_LAYERS)
        assert len(layer_list(student)[1]) == num_layers == len(kept)
        ids_BT = blocks(1)
        with torch.inference_mode():
            found = student(ids_BT, use_cache=False).logits
            wanted = _logits_without_other_layers(teacher.model, kept, ids_BT)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    return "yes"


def _logits_without_other_layers(model: Any, kept: list[int], ids_BT: Tensor) -> Tensor:
    """The model's logits if each other layer leaves the hidden state as it enters."""

    def skip(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        entered = args[0] if args else kwargs["hidden_states"]
        return (entered, *output[1:]) if isinstance(output, tuple) else entered

    layers = layer_list(model)[1]
    dropped = [layers[i] for i in range(len(layers)) if i not in kept]
    hooks = [layer.register_forward_hook(skip, with_kwargs=True) for layer in dropped]
    try:
        logits: Tensor = model(ids_BT, use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    return logits


def width(subject: Subject) -> str:
    """Half of the channels of the MLP; half of the hidden size too where heads allow it."""
    teacher = subject.load()
    spec = WidthStudent(kind="width", intermediate_size=32)
    student = create.create_student(teacher, teacher, spec, blocks(2)).model
    assert student.num_parameters() < teacher.model.num_parameters()
    assert student(blocks(1)).logits.isfinite().all()
    return "yes"


def training(subject: Subject) -> str:
    """Three steps by three methods; the first loss is that of the models' own logits."""
    teacher = subject.load()
    identity = {"teacher": "t", "top_k": 8, "temperature": 1.0, "vocab_size": NUM_TOKENS}
    identity["vocab_size"] = int(teacher.model.config.get_text_config().vocab_size)
    targets = TeacherCache(subject.scratch / "targets", blocks(14), identity)
    targets.fill(lambda: local_teacher(teacher), list(range(14)), lambda *_: None)
    methods: list[dict[str, Any]] = [
        {"method": "live", "on_policy_fraction": 0.5, "prompt_tokens": 8},
        {"vocab_sample": 64, "kd_weight": 0.5},
        {},
    ]
    for number, method in enumerate(methods):
        spec = DistillSpec(**DISTILL | {"block_tokens": 40, "max_tokens": 3 * 4 * 39} | method)
        student = create.create_student(
            teacher, teacher, DepthStudent(num_layers=3, choice="uniform"), blocks(1)
        ).model
        signal: Any = CachedTeacher(targets, spec)
        if spec.method == "live":
            signal = LiveTeacher(teacher.model, targets.blocks_NT, spec)
            plain = dataclasses.replace(signal, spec=spec.with_(on_policy_fraction=0.0))
            _check_loss(teacher.model, student, plain)
        data = TrainingData(signal, list(range(2, 14)), CachedTeacher(targets), [0, 1])
        before = student.state_dict()[_a_weight(student)].clone()
        progress = train.train(student, data, spec, subject.scratch / f"checkpoint-{number}")
        assert progress.step == 3
        assert not torch.equal(student.state_dict()[_a_weight(student)], before)
    return "yes"


def _a_weight(student: Any) -> str:
    """The name of a matrix in the student's last layer."""
    names = [name for name, weight in student.named_parameters() if weight.ndim > 1]
    prefix = layer_list(student)[0]
    return [name for name in names if name.startswith(prefix)][-1]


def _check_loss(teacher: Any, student: Any, signal: LiveTeacher) -> None:
    """The chunked loss is the KL of the two models' logits."""
    ids_BT = signal.blocks_NT[[2, 3]]
    data = TrainingData(signal, [2, 3], signal, [0])
    spec = signal.spec.with_(kd_weight=1.0)
    terms, _ = train.gradients(student, data, 0, [2, 3], spec)
    student.zero_grad()
    with torch.inference_mode():
        pair = [model(ids_BT, use_cache=False).logits[:, :-1] for model in (student, teacher)]
        wanted = forward_kl(*(logits.flatten(0, 1) for logits in pair)).mean()
    assert terms["loss"] == pytest.approx(float(wanted), rel=1e-3, abs=1e-6)


def run(subject: Subject) -> str:
    """`explorer run`: cut, trained, saved, loaded and evaluated, with its record."""
    corpus = subject.scratch / "corpus.txt"
    corpus.write_text("\n\n".join(f"Document {i} says that {i} is a number." for i in range(40)))
    spec = RunSpec.parse(
        RUN
        | {
            "teacher": str(subject.folder),
            "student": {"num_layers": 3, "choice": "uniform", "sample_blocks": 1},
            "distill": DISTILL | {"corpus": str(corpus)},
        }
    )
    record = pipeline.run(spec, subject.store)
    assert record.distillation is not None
    assert record.distillation.steps == 3
    assert record.capability is not None
    again = load(f"run:{spec.run_id}", dtype="float32").model
    assert len(layer_list(again)[1]) == 3
    return "yes"


def save(subject: Subject) -> str:
    """Saved after it answered and loaded again, the model has the same logits."""
    first = subject.load()
    with torch.inference_mode():
        wanted = first.model(blocks(1), use_cache=False).logits
        first.model.save_pretrained(subject.scratch / "again")
        first.tokenizer.save_pretrained(subject.scratch / "again")
        again = load(str(subject.scratch / "again"), dtype="float32")
        assert torch.equal(again.model(blocks(1), use_cache=False).logits, wanted)
    return "yes"


def _continued(model: Any, ids_BT: Tensor, num_new: int) -> Tensor:
    """The most likely tokens, each from the whole text before it."""
    length = ids_BT.shape[1]
    with torch.inference_mode():
        for _ in range(num_new):
            best = model(ids_BT, use_cache=False).logits[:, -1:].argmax(-1)
            ids_BT = torch.cat([ids_BT, best], dim=1)
    return ids_BT[:, length:]


def synthesise(subject: Subject) -> str:
    """At its most likely tokens the written text is what the model writes without a cache."""
    loaded = subject.load()
    opening = user_turn_opening(loaded) + OPENING
    texts = sample_documents(
        loaded, opening, num_documents=2, num_tokens=40, temperature=1.0, top_k=1, seed=0
    )
    ids = loaded.tokenizer(opening, return_tensors="pt", add_special_tokens=False).input_ids
    wanted = loaded.tokenizer.decode(_continued(loaded.model, ids, 40)[0])
    assert len(texts) == 2
    assert all(text.endswith(wanted) for text in texts)
    return "yes"


def time(subject: Subject) -> str:
    """The timed answer is what the model gives without a cache, for two texts at once."""
    loaded = subject.load()
    spec = LatencySpec(prompt_tokens=40, output_tokens=40, warmup=0, repeats=2)
    runtime = EagerRuntime(loaded)
    found = timing.time_in_turns(runtime, None, spec, Progress(subject.store, "run-1"))
    assert found.own.turns
    prompt_BT = blocks(2)
    streamed = np.array(list(runtime.stream(prompt_BT, 40))).T
    assert streamed.tolist() == _continued(loaded.model, prompt_BT, 40).tolist()
    return "whole text each time" if runtime.rereads else "yes"


def gguf(subject: Subject) -> str:
    """llama.cpp loads the file, reads the same tokens and has torch's most likely next token."""
    from explorer.latency.runtimes.llamacpp import LlamaCppRuntime

    loaded = subject.load()
    path = subject.scratch / "model.gguf"
    write_checked(loaded, "f16", path)
    runtime = LlamaCppRuntime(path, threads=1)
    try:
        for text in ("Document 12 says that 345 is a number.", "the ab abc yz  x " * 6):
            tokens = loaded.tokenizer.encode(text)[: runtime.context_tokens]
            assert runtime.tokenize(text)[: runtime.context_tokens] == tokens
            found = runtime.logits(tokens)
            with torch.inference_mode():
                wanted = loaded.model(torch.tensor([tokens])).logits[0].numpy()
            assert found[-1].argmax() == wanted[-1].argmax()
            assert np.abs(found - wanted).max() < 0.1
    finally:
        runtime.close()
    return "yes"


STEPS: dict[str, Callable[[Subject], str]] = {
    "Evaluate": evaluate,
    "Depth students": depth,
    "Train": training,
    "Run": run,
    "Width students": width,
    "Save, reload": save,
    "Synthesise": synthesise,
    "Time": time,
    "GGUF": gguf,
}


def specs(subject: Subject) -> dict[str, RunSpec]:
    """A run for each step that can be refused, as a person would order it."""
    teacher = {"name": "tiny", "teacher": str(subject.folder), "latency": None, "threads": 1}
    student = {"num_layers": 3, "choice": "uniform"}
    corpus = subject.scratch / "corpus.txt"
    corpus.write_text("\n\n".join(f"Document {i} says that {i} is a number." for i in range(40)))
    distill = DISTILL | {"corpus": str(corpus)}
    return {
        "Evaluate": RunSpec.parse(teacher | {"capability": RUN["capability"]}),
        "Depth students": RunSpec.parse(teacher | {"student": student}),
        "Train": RunSpec.parse(teacher | {"student": student, "distill": distill}),
        "Run": RunSpec.parse(teacher | {"student": student, "distill": distill}),
        "Width students": RunSpec.parse(
            teacher | {"student": {"kind": "width", "intermediate_size": 32}}
        ),
        "GGUF": RunSpec.parse(teacher | {"gguf": "f16", "device": "cpu"}),
    }


def described(row: dict[str, str]) -> str:
    """A row as JSON, for messages."""
    return json.dumps(row, indent=1)
