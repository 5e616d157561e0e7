"""Every kind of student, from cut to record, with tiny random models."""

import json

import pytest

from explorer import pipeline as engine
from explorer.errors import BadInput
from explorer.models.loading import load
from explorer.specs import RunSpec
from explorer.store import disk


@pytest.fixture
def asked(tiny_llama, tmp_path):
    """Makes a spec of a student: cut, one step of distillation, no test and no timing."""
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(f"Document {i} says that {i} is a number." for i in range(80)))

    def make(student, **changes):
        return RunSpec.parse(
            {
                "name": "tiny",
                "teacher": str(tiny_llama()),
                "student": student,
                "distill": {
                    "corpus": str(path),
                    "max_tokens": 90,
                    "block_tokens": 16,
                    "heldout_blocks": 2,
                    "top_k": 8,
                    "train_embeddings": True,
                },
                "capability": None,
                "latency": None,
                "device": "cpu",
                "threads": 1,
                **changes,
            }
        )

    return make


def _log(root, spec):
    return (root / spec.run_id / disk.LOG).read_text()


@pytest.mark.parametrize(
    "student",
    [
        {"num_layers": 2, "choice": "greedy", "sample_blocks": 1},
        {"kind": "width", "intermediate_size": 40, "num_attention_heads": 2, "sample_blocks": 1},
        {"kind": "width", "num_parameters": 35_000, "sample_blocks": 1},
        {"kind": "both", "num_parameters": 35_000, "sample_blocks": 1},
        {"kind": "fresh", "num_layers": 2, "hidden_size": 16},
    ],
    ids=["greedy", "width", "width to a size", "both", "fresh"],
)
def test_every_kind_goes_the_whole_way(asked, student, store_root):
    """The record has the smaller model and what teaching did; the weights load by the run's id."""
    spec = asked(student)

    record = engine.run(spec, store_root)

    teacher = disk.load(store_root, record.teacher_run_id)
    assert record.status == "finished"
    assert record.model.num_parameters < teacher.model.num_parameters
    assert record.distillation.steps == 1
    assert record.distillation.kl_after != record.distillation.kl_before
    student = load(f"run:{spec.run_id}").model
    assert student.num_parameters() == record.model.num_parameters
    cut = spec.student.kind != "fresh"
    assert (record.model.kept_layers is not None) == cut
    assert ("The student keeps" in _log(store_root, spec)) == cut


def test_a_sibling_with_another_padding_is_a_student(asked, tiny_llama, store_root):
    """Both lose the rows that no token has, and the log says so; the teacher's run does not."""
    sibling = str(tiny_llama(num_layers=2, vocab_size=352, seed=3))
    spec = asked({"kind": "checkpoint", "model": sibling})

    record = engine.run(spec, store_root)

    assert record.model.vocab_size == 259
    assert record.model.num_layers == 2
    assert record.model.kept_layers is None
    assert "320 rows and the student's 352; both are cut to the 259 tokens" in _log(
        store_root, spec
    )
    assert disk.load(store_root, record.teacher_run_id).model.vocab_size == 320


def test_another_tokenizer_is_refused_and_recorded(asked, tiny_llama, tmp_path, store_root):
    """Logits of other tokens cannot be compared; text can teach, as the record says."""
    other = load(str(tiny_llama(num_layers=2)))
    vocabulary = other.tokenizer.backend_tokenizer.to_str()
    data = json.loads(vocabulary)
    tokens = data["model"]["vocab"]
    first, second = sorted(tokens, key=tokens.get)[3:5]
    tokens[first], tokens[second] = tokens[second], tokens[first]
    other.model.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(data))
    spec = asked({"kind": "checkpoint", "model": str(tmp_path / "other")})

    with pytest.raises(BadInput, match=r"different vocabularies: 2 of .*method: text"):
        engine.run(spec, store_root)

    assert "different vocabularies" in disk.load(store_root, spec.run_id).error.message
    by_text = {**spec.distill.model_dump(), "method": "text"}
    taught = engine.run(spec.with_(distill=by_text), store_root).distillation
    assert taught.targets is None
    assert taught.kl_after is None
    assert taught.curve[-1].heldout_label_loss != taught.curve[0].heldout_label_loss
    assert engine.run(spec.with_(distill=None), store_root).status == "finished"


def test_two_steps_lead_from_the_teacher_to_a_small_student(asked, store_root):
    """The second student is cut from the first, learns from the teacher, and maps to it."""
    first = asked({"num_layers": 3, "choice": "uniform"})
    engine.run(first, store_root)
    second = asked({"num_layers": 2, "choice": "uniform", "start_from": f"run:{first.run_id}"})

    record = engine.run(second, store_root)

    assert record.model.kept_layers == [0, 3]
    assert record.teacher_run_id == disk.load(store_root, first.run_id).teacher_run_id
    straight = engine.run(asked({"num_layers": 2, "choice": "uniform"}), store_root)
    assert straight.model.kept_layers == [0, 3]
    assert straight.model.fingerprint != record.model.fingerprint


def test_a_first_step_that_is_not_there_is_named(asked, store_root):
    """A start without weights fails with how to get them."""
    spec = asked({"num_layers": 2, "start_from": "run:nothing-12345678"})

    with pytest.raises(Exception, match="nothing-12345678"):
        engine.run(spec, store_root)


def test_a_fresh_student_with_a_frozen_embedding_is_refused(asked, store_root):
    """What is random would stay random; the message says which key to set."""
    spec = asked({"kind": "fresh", "num_layers": 2})
    spec = spec.with_(distill=spec.distill.with_(train_embeddings=False).model_dump())

    with pytest.raises(BadInput, match=r"distill\.train_embeddings: true"):
        engine.run(spec, store_root)
