"""Whether distillation helped: a student against its control arm."""

import numpy as np
import pytest

from explorer.analysis.stats import control_pairs
from explorer.specs import DepthStudent, DistillSpec, SweepSpec
from explorer.store import disk, frames
from tests import records

SWEEP = SweepSpec(
    name="c",
    students=(DepthStudent(num_layers=20),),
    distill=DistillSpec(kd_weight=0.9, loss="jsd"),
    control=True,
)


def _write(root, spec, like):
    """A finished run of this spec that answers as a student of `like` layers does."""
    answering = records.make_record(num_layers=like)
    record = records.make_record(spec=spec)
    records.write_run(root, record.model_copy(update={"capability": answering.capability}))
    disk.write_answers(root, spec.run_id, records.make_answers(like))


def _effect(root, run_id):
    found, _ = disk.load_records(root)
    runs, scores = frames.runs(found), frames.scores(found)
    answers = {one: disk.load_answers(root, one) for one in runs["run_id"]}
    return control_pairs.distillation_effect(runs, scores, answers, run_id)


def test_a_control_arm_is_the_same_order_without_the_teacher():
    """Same student, corpus, budget and seed; nothing of the teacher's terms is left."""
    teacher, student, arm = SWEEP.runs()

    assert arm.student == student.student
    assert arm.distill == DistillSpec(method="labels")
    assert arm.name == "c-20l-labels"
    assert arm.teacher_run() == teacher
    assert student.arm() == arm.arm() == arm.recipe() != student.recipe()
    other_seed = student.with_(distill=student.distill.with_(seed=1).model_dump())
    assert other_seed.recipe() == student.recipe()
    longer = student.with_(distill=student.distill.with_(max_tokens=9).model_dump())
    assert longer.arm() != student.arm()
    assert teacher.recipe() is None


@pytest.mark.parametrize(
    ("like", "verdict", "says"),
    [
        (6, "helped", "Distillation helped by "),
        (20, "inconclusive", "Whether distillation helped is inconclusive: 0 points [0, 0]"),
        (28, "hurt", "Distillation hurt by "),
    ],
)
def test_the_verdict_follows_the_interval(store_root, like, verdict, says):
    """Against a weak control arm it helped, against an equal one nothing is known."""
    teacher, student, arm = SWEEP.runs()
    for spec, layers in ((teacher, 30), (student, 20), (arm, like)):
        _write(store_root, spec, layers)

    found = _effect(store_root, student.run_id)

    assert found.verdict == verdict
    assert found.low <= found.difference <= found.high
    assert found.in_words().startswith(says)
    assert found.in_words().endswith("against labels only (1 and 1 seeds).")
    assert _effect(store_root, arm.run_id) is None
    assert _effect(store_root, teacher.run_id) is None


def test_only_tasks_that_both_were_asked_alike_count(store_root):
    """A task that the control arm was asked with other shots is in neither of the two means."""
    teacher, student, arm = SWEEP.runs()
    for spec, like in ((teacher, 30), (student, 20), (arm, 20)):
        _write(store_root, spec, like)
    record = disk.load(store_root, arm.run_id)
    scores = [
        score.model_copy(update={"num_fewshot": 5}) if score.task == "starter_facts" else score
        for score in record.capability.scores
    ]
    changed = record.capability.model_copy(update={"scores": scores})
    disk.save(store_root, record.model_copy(update={"capability": changed}))

    found = _effect(store_root, student.run_id)

    assert (found.difference, found.low, found.high) == (0, 0, 0)


def test_without_a_control_arm_nothing_is_said(store_root):
    """Neither is a student of another size or budget taken for one."""
    teacher, student, arm = SWEEP.runs()
    other = arm.with_(distill=arm.distill.with_(max_tokens=99).model_dump())
    for spec, layers in ((teacher, 30), (student, 20), (other, 6)):
        _write(store_root, spec, layers)

    assert _effect(store_root, student.run_id) is None


def test_seeds_of_an_arm_count_together(store_root):
    """Several seeds widen the interval by what they differ."""
    teacher, student, arm = SWEEP.runs()
    again = arm.with_(distill=arm.distill.with_(seed=1).model_dump())
    for spec, layers in ((teacher, 30), (student, 20), (arm, 6)):
        _write(store_root, spec, layers)
    one_seed = _effect(store_root, student.run_id)
    _write(store_root, again, 15)

    two_seeds = _effect(store_root, student.run_id)

    assert (two_seeds.num_seeds, two_seeds.num_control_seeds) == (1, 2)
    assert two_seeds.difference < one_seed.difference
    assert two_seeds.high - two_seeds.low > one_seed.high - one_seed.low


def test_the_interval_is_that_of_a_plain_bootstrap():
    """Against a loop that draws documents anew, on one task."""
    rng = np.random.default_rng(0)
    num_draws = 4000
    teacher, own, plain = (rng.random(300) < p for p in (0.9, 0.6, 0.45))
    by_hand = []
    for _ in range(num_draws):
        picks = rng.integers(0, 300, 300)
        by_hand.append((own[picks].mean() - plain[picks].mean()) / teacher[picks].mean())

    runs, scores, answers = _frames({"t": teacher, "s": own, "c": plain})
    found = control_pairs.distillation_effect(runs, scores, answers, "s", draws=num_draws)

    np.testing.assert_allclose(
        [found.low, found.high], np.quantile(by_hand, [0.025, 0.975]), atol=0.02
    )


def _frames(values):
    """Frames of a teacher t, a student s and its control arm c on one task without guessing."""
    import pandas as pd

    runs = pd.DataFrame(
        {
            "run_id": ["t", "s", "c"],
            "role": ["teacher", "student", "student"],
            "teacher_run_id": [None, "t", "t"],
            "status": "finished",
            "method": [None, "cached", "labels"],
            "recipe": [None, "r", "a"],
            "arm": [None, "a", "a"],
        }
    )
    scores = frames.scores_of(
        [
            {
                "run_id": r,
                "task": "a",
                "metric": "acc",
                "score": v.mean(),
                "chance": 0.0,
                "higher_is_better": True,
                "headline": True,
                "num_documents": len(v),
                "num_documents_total": len(v),
                "num_fewshot": 0,
            }
            for r, v in values.items()
        ]
    )
    answers = {
        r: pd.DataFrame(
            {
                "task": "a",
                "metric": "acc",
                "doc_id": range(len(v)),
                "doc_hash": [str(i) for i in range(len(v))],
                "value": v.astype(float),
            }
        )
        for r, v in values.items()
    }
    return runs, scores, answers
