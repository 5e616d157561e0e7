import numpy as np
import pandas as pd
import pytest

from explorer.analysis.stats import pairing, retention


def answers(task, values, metric="acc", hashes=None):
    count = len(values)
    return pd.DataFrame(
        {
            "task": task,
            "metric": metric,
            "doc_id": range(count),
            "doc_hash": hashes or [f"{task}-{i}" for i in range(count)],
            "value": np.asarray(values, dtype=float),
        }
    )


def scores(run_id, frames, chance=0.5, **changes):
    rows = []
    for frame in frames:
        row = {
            "run_id": run_id,
            "task": frame["task"].iloc[0],
            "metric": frame["metric"].iloc[0],
            "score": frame["value"].mean(),
            "chance": chance,
            "higher_is_better": True,
            "headline": True,
            "num_documents": len(frame),
            "num_fewshot": 0,
            "task_version": "1",
        }
        rows.append(row | changes)
    return pd.DataFrame(rows)


def first(right, count=100):
    """The first documents right, the others wrong: the easiest pairing to reckon with."""
    return [1.0] * right + [0.0] * (count - right)


def frame(*run_ids):
    """Runs in which the first is the teacher of the others."""
    teacher, *students = run_ids
    return pd.DataFrame(
        {
            "run_id": run_ids,
            "role": ["teacher", *["student"] * len(students)],
            "teacher_run_id": [None, *[teacher] * len(students)],
        },
        index=range(10, 10 + len(run_ids)),
    )


def two(student, teacher, chance=0.5, **student_changes):
    """One task, one student, one teacher, as the arguments of `add`."""
    return (
        frame("t", "s"),
        pd.concat(
            [scores("t", [teacher], chance), scores("s", [student], chance, **student_changes)]
        ),
        {"t": teacher, "s": student},
    )


def test_retention_is_the_share_of_what_lies_above_chance():
    """0.70 where the teacher has 0.90 and a guesser 0.50 keeps half, and 78 % of the raw score."""
    added = retention.add_retention(*two(answers("a", first(70)), answers("a", first(90))))

    student = added.loc[added["run_id"] == "s"].iloc[0]
    assert student["retention"] == pytest.approx(0.5)
    assert student["raw_ratio"] == pytest.approx(7 / 9)
    assert student["retention_low"] < 0.5 < student["retention_high"]
    assert student["num_tasks"] == 1
    assert student["excluded_tasks"] == ""


def test_a_teacher_keeps_all_of_itself_without_an_interval():
    """A teacher's own row is exactly 100 %, and there is nothing uncertain about it."""
    added = retention.add_retention(*two(answers("a", first(70)), answers("a", first(90))))

    teacher = added.loc[added["run_id"] == "t"].iloc[0]
    assert teacher["retention"] == teacher["raw_ratio"] == 1.0
    assert teacher[["retention_low", "retention_high", "raw_low", "raw_high"]].isna().all()


def test_the_suite_is_the_mean_over_tasks_whatever_their_size():
    """A large task does not outvote a small one."""
    small = answers("a", first(18, 20)), answers("a", first(20, 20))
    large = answers("b", first(600, 1000)), answers("b", first(700, 1000))
    teacher, student = [small[1], large[1]], [small[0], large[0]]

    added = retention.add_retention(
        frame("t", "s"),
        pd.concat([scores("t", teacher), scores("s", student)]),
        {"t": pd.concat(teacher), "s": pd.concat(student)},
    )

    assert added["retention"].iloc[1] == pytest.approx(np.mean([0.4 / 0.5, 0.1 / 0.2]))


def test_a_task_at_chance_is_left_out_and_named():
    """A teacher that guesses cannot be kept; the reader is told which task and why."""
    good = answers("a", first(70)), answers("a", first(90))
    guessed = answers("b", first(50)), answers("b", first(54))

    added = retention.add_retention(
        frame("t", "s"),
        pd.concat([scores("t", [good[1], guessed[1]]), scores("s", [good[0], guessed[0]])]),
        {"t": pd.concat([good[1], guessed[1]]), "s": pd.concat([good[0], guessed[0]])},
    )

    assert added["retention"].iloc[1] == pytest.approx(0.5)
    assert (added["num_tasks"] == 1).all()
    assert (
        added["excluded_tasks"]
        .str.fullmatch(r"b: the teacher .* not clearly above chance .*")
        .all()
    )


def test_a_teacher_at_chance_everywhere_leaves_retention_missing_with_the_reason():
    """No number is shown where none can exist, for the teacher neither."""
    added = retention.add_retention(*two(answers("a", first(50)), answers("a", first(52))))

    assert added["retention"].isna().all()
    assert (added["num_tasks"] == 0).all()
    assert added["excluded_tasks"].str.contains("not clearly above chance").all()


OTHER_HASHES = [f"other-{i}" for i in range(100)]


@pytest.mark.parametrize(
    ("student", "changes", "reason"),
    [
        (answers("a", first(70)), {"num_fewshot": 5}, "shots differ (student 5, teacher 0)"),
        (answers("a", first(70)), {"task_version": "2"}, "versions differ (student 2, teacher 1)"),
        (answers("a", first(70)), {"metric": "f1"}, "metrics differ (student f1, teacher acc)"),
        (answers("a", first(70)), {"task": "z"}, "the student has no score"),
        (answers("a", first(60, 90)), {}, "documents differ (student 90, teacher 100, 90 the same"),
        (answers("a", first(70), hashes=OTHER_HASHES), {}, "documents differ (student 100"),
        (answers("a", first(70)), {"score": 0.9}, "is not the mean 0.7 of its answers"),
        (pd.concat([answers("a", first(70))] * 2), {}, "the student answered a document twice"),
        (answers("a", first(70)).assign(value=np.nan), {"score": 0.7}, "answers have gaps"),
        (answers("b", first(70)), {"task": "a"}, "a: the answers of run s are missing"),
    ],
)
def test_what_cannot_be_paired_is_left_out_with_the_reason(student, changes, reason):
    """Two scores are compared only where both answered the same questions in the same way."""
    added = retention.add_retention(*two(student, answers("a", first(90)), **changes))

    assert np.isnan(added["retention"].iloc[1])
    assert reason in added["excluded_tasks"].iloc[1]
    assert added["retention"].iloc[0] == 1.0


def test_a_run_without_answers_is_named_once_with_what_to_do():
    """However many tasks it has, and whichever of the two it is."""
    tasks = [answers(task, first(90)) for task in "abc"]
    both = pd.concat([scores("t", tasks), scores("s", tasks)])
    everything = pd.concat(tasks)

    def left_out(**kept):
        return retention.add_retention(frame("t", "s"), both, kept)["excluded_tasks"].tolist()

    lost = (
        "the answers of run {0} are missing or can't be read, so measure it again with "
        "explorer run {0} --again"
    )
    assert left_out(t=everything) == ["", f"all tasks: {lost.format('s')}"]
    assert left_out(s=everything) == [f"all tasks: {lost.format('t')}"] * 2
    assert left_out(t=everything, s=tasks[0]) == ["", f"b, c: {lost.format('s')}"]


def test_an_unknown_chance_level_is_no_zero():
    """Without a known chance level there is no retention, rather than one against 0."""
    added = retention.add_retention(
        *two(answers("a", first(70)), answers("a", first(90)), chance=np.nan)
    )

    assert "chance level is not known" in added["excluded_tasks"].iloc[1]


def test_runs_without_scores_or_without_a_teacher_say_so():
    """A failed run, and a student whose teacher is not in the store, are named as such."""
    student = answers("a", first(70))
    runs = frame("t", "s", "failed")

    added = retention.add_retention(runs, scores("s", [student]), {"s": student})

    assert added["excluded_tasks"].tolist() == [
        "all tasks: this run has no scores",
        "all tasks: the teacher's run t has no scores here",
        "all tasks: this run has no scores",
    ]
    assert added["retention"].isna().all()
    assert added.index.equals(runs.index)


def test_no_runs_give_no_rows_but_all_columns():
    """An empty store does not break the page."""
    added = retention.add_retention(frame("t").iloc[:0], scores("t", []), {})

    assert added.empty
    assert set(retention.COLUMNS) <= set(added.columns)


def test_the_same_seed_gives_the_same_interval():
    """Numbers on the page do not flicker between two visits."""
    case = two(answers("a", first(70)), answers("a", first(90)))

    pd.testing.assert_frame_equal(
        retention.add_retention(*case, seed=3), retention.add_retention(*case, seed=3)
    )


def test_an_interval_stays_finite_where_the_teacher_is_barely_above_chance():
    """Draws in which the teacher falls to chance widen the interval; they do not explode it."""
    added = retention.add_retention(*two(answers("a", first(60)), answers("a", first(61))))

    student = added.iloc[1]
    assert np.isfinite(student[["retention_low", "retention_high"]].astype(float)).all()
    assert abs(student["retention_high"]) < 10


def simulated(rng, count, teacher, student, shared):
    """Right-or-wrong pairs: with probability `shared` one die decides for both."""
    together = rng.uniform(size=count) < shared
    die = rng.uniform(size=(2, count))
    die[1] = np.where(together, die[0], die[1])
    return (die[0] < teacher).astype(float), (die[1] < student).astype(float)


def test_the_interval_covers_the_truth_about_95_times_in_100():
    """What the page calls a 95 % interval is one, within the error of 400 simulations."""
    rng = np.random.default_rng(20261124)
    tasks = {"a": (0.5, 0.80, 0.68, 250), "b": (0.25, 0.62, 0.45, 200), "c": (0.0, 0.45, 0.30, 200)}
    truth = np.mean([(s - c) / (t - c) for c, t, s, _ in tasks.values()])
    repeats, covered = 400, 0
    for _ in range(repeats):
        pairs = []
        for task, (chance, teacher, student, count) in tasks.items():
            teacher_N, student_N = simulated(rng, count, teacher, student, shared=0.6)
            pairs.append(pairing.TaskPair(task, "acc", chance, student_N, teacher_N))
        drawn = retention._draw({"s": pairs}, 300, seed=int(rng.integers(2**31)))
        row = retention._suite("s", "t", pairs, drawn["s"])
        covered += row["retention_low"] <= truth <= row["retention_high"]
    # Three standard errors of a share of 0.95 over 400 simulations.
    assert abs(covered / repeats - 0.95) < 3 * np.sqrt(0.95 * 0.05 / repeats)


def test_pairing_narrows_the_interval():
    """What is hard for both models cancels: the same documents tell more than different ones."""
    rng = np.random.default_rng(5)
    widths = []
    for shared in (0.0, 0.9):
        teacher_N, student_N = simulated(rng, 2000, 0.8, 0.75, shared)
        case = two(answers("a", student_N), answers("a", teacher_N))
        student = retention.add_retention(*case).iloc[1]
        widths.append(student["retention_high"] - student["retention_low"])
    assert widths[1] < 0.6 * widths[0]


def table(student, teacher, metric="acc"):
    own, theirs = answers("a", student, metric), answers("a", teacher, metric)
    return retention.per_task(scores("s", [own]), scores("t", [theirs]), own, theirs).iloc[0]


@pytest.mark.parametrize(
    ("student", "verdict"),
    [
        (first(70), "worse"),
        (first(90), "inconclusive"),
        (first(89), "inconclusive"),
        (first(100), "better"),
    ],
)
def test_a_verdict_follows_the_exact_test(student, verdict):
    """A difference is called one only where it is hardly luck."""
    row = table(student, first(90))

    assert row["verdict"] == verdict
    assert row["difference"] == pytest.approx(np.mean(student) - 0.9)
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]


def test_graded_answers_get_the_paired_t_test():
    """Answers that are not right or wrong are judged too, and the row says by which test."""
    from scipy import stats

    teacher = np.linspace(0.6, 0.9, 100)
    student = teacher - 0.1 + 0.02 * np.sin(np.arange(100))
    row = table(student, teacher, metric="f1")

    assert row["test"] == "t, paired"
    assert row["p_value"] == pytest.approx(stats.ttest_rel(student, teacher).pvalue)
    assert row["verdict"] == "worse"


def test_draws_of_two_students_share_their_documents():
    """Two students with the same answers are equal in every draw, so ranking them is fair."""
    teacher, student = answers("a", first(90)), answers("a", first(70))
    all_scores = pd.concat(
        [scores(n, [f]) for n, f in (("t", teacher), ("x", student), ("y", student))]
    )

    draws = retention.draws_by_run(
        frame("t", "x", "y"), all_scores, {"t": teacher, "x": student, "y": student}, draws=50
    )

    assert draws["x"].equals(draws["y"].rename("x"))
    assert (draws["t"] == 1.0).all()


@pytest.mark.parametrize(("right", "count", "chance"), [(0, 9, 0.0), (1, 9, 0.0), (60, 100, 0.5)])
def test_above_chance_is_scipys_exact_binomial_test(right, count, chance):
    """The teacher counts exactly when scipy's one-sided test says so."""
    from scipy import stats

    answers = np.array([1.0] * right + [0.0] * (count - right))
    expected = stats.binomtest(right, count, chance, alternative="greater").pvalue

    assert (pairing._at_chance(answers, chance) == "") == (expected < 0.05)


def test_old_answers_and_new_ones_give_the_same_numbers():
    """A chance level that is the same for all and a passage each change nothing, on either side."""
    student, teacher = answers("a", first(70)), answers("a", first(90))
    newer = [
        one.assign(chance=0.5, cluster=[f"text {i}" for i in range(100)])
        for one in (student, teacher)
    ]
    plain = retention.add_retention(*two(student, teacher))

    for pair in ((newer[0], newer[1]), (newer[0], teacher), (student, newer[1])):
        pd.testing.assert_frame_equal(retention.add_retention(*two(*pair)), plain)


def test_shared_passages_widen_the_interval():
    """Twenty texts of five questions are less evidence than a hundred questions."""
    rng = np.random.default_rng(3)
    right = np.repeat(rng.random((20, 2)) < [0.55, 0.85], 5, axis=0).astype(float)
    student, teacher = answers("a", right[:, 0]), answers("a", right[:, 1])
    texts = [f"text {i // 5}" for i in range(100)]

    plain = retention.add_retention(*two(student, teacher)).iloc[1]
    clustered = retention.add_retention(*two(student.assign(cluster=texts), teacher)).iloc[1]

    assert clustered["retention"] == plain["retention"]
    width = [one["retention_high"] - one["retention_low"] for one in (clustered, plain)]
    assert width[0] > 1.5 * width[1]


def test_means_over_different_tasks_are_warned_of():
    """A student that misses a task of its siblings is named; equal ones are not."""
    teacher = [answers("a", first(90)), answers("b", first(80))]
    student = [answers("a", first(70)), answers("b", first(75))]
    runs = frame("t", "s", "u", "v")
    per_run = {"t": teacher, "s": student, "u": student, "v": student}
    all_scores = pd.concat([scores(run_id, of) for run_id, of in per_run.items()])
    of_all = {run_id: pd.concat(of) for run_id, of in per_run.items()}

    same = retention.add_retention(runs, all_scores, of_all)
    all_scores.loc[(all_scores["run_id"] == "v") & (all_scores["task"] == "b"), "num_fewshot"] = 5
    other = retention.add_retention(runs, all_scores, of_all)

    assert retention.over_different_tasks(same) == ""
    assert retention.over_different_tasks(other).startswith("The retention of v is a mean over")
