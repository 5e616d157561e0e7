"""How tables, sentences and the page call students of every kind."""

import pytest

from explorer.analysis import headline
from explorer.analysis.tables import run_table
from explorer.pages.explore import how_made
from explorer.specs import RunSpec
from explorer.store import frames
from tests import records

WIDTHS = {"hidden": (468, 576), "channels": (1216, 1536), "heads": (9, 9), "groups": (3, 3)}
KINDS = [
    (
        {"num_layers": 20, "choice": "greedy"},
        None,
        "20 layers",
        "Cut to 20 layers, chosen greedily by KL",
    ),
    (
        {"num_layers": 10, "start_from": "run:first-12345678"},
        None,
        "10 layers",
        "Cut to 10 layers, chosen by importance, from run:first-12345678",
    ),
    (
        {"kind": "width", "hidden_size": 468},
        WIDTHS,
        "81.3M wide",
        "Cut to 81.3M wide: 468 of 576 hidden dimensions, 1216 of 1536 MLP channels",
    ),
    (
        {"kind": "both", "num_parameters": 81_400_000},
        WIDTHS,
        "81.4M both ways",
        "Cut to 81.4M both ways: 24 layers chosen by importance, 468 of 576 hidden dimensions, "
        "1216 of 1536 MLP channels",
    ),
    (
        {"kind": "checkpoint", "model": "org/SmolLM2-360M"},
        None,
        "SmolLM2-360M",
        "org/SmolLM2-360M, unchanged",
    ),
    (
        {"kind": "fresh", "num_layers": 4, "seed": 3},
        None,
        "81.3M fresh",
        "The teacher's architecture with random weights, seed 3",
    ),
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind[2])
def kind(request):
    """(record of a student of this kind, its label, how it was made)."""
    student, widths, label, made = request.param
    record = records.make_record(num_layers=24)
    spec = RunSpec.parse({**record.spec.model_dump(), "student": student})
    model = record.model.model_copy(
        update={"num_parameters": 81_252_756, "num_layers": 24, "kept_widths": widths}
    )
    return record.model_copy(update={"spec": spec, "model": model}), label, made


def test_a_student_is_called_by_its_kind_and_size(kind):
    """The same words on the chart, in the table and in the column `kind`."""
    record, label, _ = kind
    frame = frames.runs([record])

    assert frame["label"][0] == label
    assert frame["kind"][0] == record.spec.student.kind
    assert run_table.comparison_table(frame)["Model"].tolist() == [label]
    assert run_table.comparison_table(frame)["Parameters"].tolist() == ["81.3 M"]


def test_how_a_student_was_made_is_one_sentence(kind):
    """What was cut and how it was chosen, or where else the student comes from."""
    record, _, made = kind

    assert how_made.how_made(record).startswith(f"{made}; trained on ")


def test_how_a_student_was_made_says_what_was_less_exact():
    """A sampled vocabulary and bfloat16 training are named beside the training budget."""
    record = records.make_record(num_layers=24)
    taught = {"vocab_sample": 4096, "precision": "bfloat16"}
    spec = RunSpec.parse({**record.spec.model_dump(), "distill": taught})

    said = how_made.how_made(record.model_copy(update={"spec": spec}))

    assert "(4,096 sampled tokens, in bfloat16) in " in said


def test_how_a_student_was_made_says_what_was_left_alone():
    """Frozen layers are named, because training did not change them."""
    record = records.make_record(num_layers=24)
    assert "frozen" not in how_made.how_made(record)
    left = record.distillation.model_copy(update={"num_untrained_layers": 4})

    said = how_made.how_made(record.model_copy(update={"distillation": left}))

    assert "(the first 4 layers frozen) in " in said


def test_the_finding_names_other_kinds_by_their_label(kind):
    """A depth student is an N-layer student; another is called as on the chart."""
    record, label, _ = kind
    frame = frames.runs([record]).assign(
        retention=0.97, retention_low=0.95, retention_high=0.99, excluded_tasks=""
    )

    said = headline.headline(frame)

    depth = record.spec.student.kind == "depth"
    assert said.startswith("A 24-layer student keeps" if depth else f"The student {label} keeps")
