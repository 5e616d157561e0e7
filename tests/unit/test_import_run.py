"""Results that were made elsewhere: any lm-eval since 0.4.0 becomes a run."""

import json
import shutil
import sys

import numpy as np
import pytest

from explorer import cli
from explorer.analysis.stats import differences, retention
from explorer.errors import BadInput
from explorer.lm_eval_io import import_run, samples
from explorer.store import disk, frames
from tests import records

TEACHER, STUDENT = records.committed(), records.committed(20)


def folder_of(run_id):
    return records.STUDY / run_id / "capability"


def test_our_own_files_come_back_as_they_were_measured(store_root):
    """Scores, chance levels, headline metrics and answers of the committed teacher, exactly."""
    run_id, problems = import_run.import_folder(store_root, folder_of(TEACHER), "mine")

    old, new = disk.load(records.STUDY, TEACHER), disk.load(store_root, run_id)
    ours = {(s.task, s.metric): s for s in new.capability.scores}
    assert problems == []
    assert len(ours) == len(old.capability.scores)
    for score in old.capability.scores:
        again = ours[score.task, score.metric]
        same = (
            "score",
            "stderr",
            "headline",
            "num_documents",
            "num_fewshot",
            "task_version",
            "task_hash",
            "higher_is_better",
        )
        assert [getattr(again, k) for k in same] == [getattr(score, k) for k in same]
        assert again.chance == pytest.approx(score.chance)
    keys = ["task", "metric", "doc_id"]
    before = disk.load_answers(records.STUDY, TEACHER).sort_values(keys)
    after = disk.load_answers(store_root, run_id).sort_values(keys)
    assert before["doc_hash"].tolist() == after["doc_hash"].tolist()
    assert before["value"].tolist() == after["value"].tolist()


def test_the_hash_of_a_document_is_lm_evals_own():
    """Older versions wrote none; ours is the same, so that both can be paired."""
    from explorer.lm_eval_io import results

    path = samples.newest_files(folder_of(TEACHER))["starter_facts"]
    line = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    bare = {key: value for key, value in line.items() if key != "doc_hash"}

    assert results._sample(bare)["doc_hash"] == line["doc_hash"]


def test_an_imported_student_is_held_against_a_measured_teacher(store_root):
    """Retention is that of the measured run: same documents, same conditions, no latency."""
    shutil.copytree(records.STUDY / TEACHER, store_root / TEACHER)
    run_id, _ = import_run.import_folder(store_root, folder_of(STUDENT), "brought", TEACHER)
    found, problems = disk.load_records(store_root)
    runs, scores = frames.runs(found), frames.scores(found)
    answers = {one.run_id: disk.load_answers(store_root, one.run_id) for one in found}

    added = retention.add_retention(runs, scores, answers).set_index("run_id").loc[run_id]

    assert problems == []
    assert (added["basis"], added["role"], added["label"]) == ("imported", "student", "brought")
    assert (added["teacher"], added["model"]) == ("starter", f"run:{STUDENT}")
    assert added["num_tasks"] == 5
    assert added["retention"] == pytest.approx(0.7238, abs=1e-3)
    assert np.isnan(added["tpot_ms"])
    rows, _ = differences.compare_runs(
        scores[scores["run_id"] == run_id],
        scores[scores["run_id"] == TEACHER],
        answers[run_id],
        answers[TEACHER],
    )
    assert (rows["reason"] == "").all()


def old_format(folder):
    """What lm-eval 0.4.0 left: results.json and an array of samples, without hashes."""
    folder.mkdir()
    doc = {"passage": "A text.", "question": "Sky?"}
    lines = [
        {
            "doc_id": i,
            "doc": doc | {"n": i},
            "target": 1,
            "arguments": [["The sky is", " green"], ["The sky is", " blue"]],
            "resps": [[[-4.5, False]], [[-1.0 - i, True]]],
            "filtered_resps": [[-4.5, False], [-1.0 - i, True]],
            "acc": float(i < 3),
        }
        for i in range(4)
    ]
    (folder / "pretrained__gpt2_boolq.jsonl").write_text(json.dumps(lines, indent=2))
    results = {
        "results": {"boolq": {"acc,none": 0.75, "acc_stderr,none": 0.25, "alias": "boolq"}},
        "configs": {"boolq": {"task": "boolq", "output_type": "multiple_choice", "num_fewshot": 2}},
        "versions": {"boolq": 2.0},
        "n-shot": {"boolq": 2},
        "config": {"model": "hf", "model_args": "pretrained=gpt2,dtype=float32"},
        "git_hash": "abc1234",
    }
    (folder / "results.json").write_text(json.dumps(results, indent=2))


def test_the_format_of_0_4_0_is_read(store_root, tmp_path):
    """No date, no version, no hashes, samples as one array: everything that is there is kept."""
    old_format(tmp_path / "out")

    run_id, problems = import_run.import_folder(store_root, tmp_path / "out", "gpt2")

    record, answers = disk.load(store_root, run_id), disk.load_answers(store_root, run_id)
    (score,) = record.capability.scores
    assert problems == []
    assert (score.score, score.num_documents, score.num_fewshot, score.chance) == (0.75, 4, 2, 0.5)
    assert record.capability.lm_eval_version is None
    assert record.imported.git_hash == "abc1234"
    assert record.spec.teacher == "gpt2"
    assert answers["value"].tolist() == [1, 1, 1, 0]
    assert answers["cluster"].nunique() == 1, "all four ask about one text"
    kept = samples.newest_files(store_root / run_id / "capability")["boolq"]
    (sample,) = samples.read_lines(kept, [samples.line_offsets(kept)[0]])
    assert samples.parse_answer(sample, "acc").response == "blue"


def test_a_document_may_hold_any_line_end(store_root, tmp_path):
    """lm-eval writes U+2028 as it is: the sample is whole all the same."""
    old_format(tmp_path / "out")
    path = tmp_path / "out" / "pretrained__gpt2_boolq.jsonl"
    lines = json.loads(path.read_text())
    lines[0]["doc"]["passage"] = "A text.\u2028And more.\u0085"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")

    run_id, problems = import_run.import_folder(store_root, tmp_path / "out", "gpt2")

    assert problems == []
    assert len(disk.load_answers(store_root, run_id)) == len(lines)


def test_the_good_part_is_kept_and_the_rest_named(store_root, tmp_path):
    """A damaged file, a task without numbers, a broken line: a sentence each."""
    old_format(tmp_path / "out")
    (tmp_path / "out" / "results_2026-01-01T00-00-00.000001.json").write_text("{oh")
    path = tmp_path / "out" / "results.json"
    data = json.loads(path.read_text())
    data["results"]["empty"] = {"acc,none": "N/A"}
    data["configs"]["empty"] = {}
    path.write_text(json.dumps(data))
    lines = json.loads((tmp_path / "out" / "pretrained__gpt2_boolq.jsonl").read_text())
    (tmp_path / "out" / "pretrained__gpt2_boolq.jsonl").write_text(json.dumps([*lines, 3, {}]))

    run_id, problems = import_run.import_folder(store_root, tmp_path / "out", "gpt2")

    assert [score.task for score in disk.load(store_root, run_id).capability.scores] == ["boolq"]
    assert len(problems) == 3
    assert any("is not JSON" in one for one in problems)
    assert any("empty is left out" in one for one in problems)
    assert any("2 lines are not samples" in one for one in problems)


def test_a_task_with_an_impossible_number_is_left_out(store_root, tmp_path):
    """A negative standard error is one sentence; the other tasks are imported."""
    old_format(tmp_path / "out")
    path = tmp_path / "out" / "results.json"
    data = json.loads(path.read_text())
    data["results"]["odd"] = data["results"]["boolq"] | {"acc_stderr,none": -0.1}
    data["configs"]["odd"] = data["configs"]["boolq"]
    data["n-samples"] = {"odd": {"effective": 10, "original": 10}}
    path.write_text(json.dumps(data))

    run_id, problems = import_run.import_folder(store_root, tmp_path / "out", "gpt2")

    assert [score.task for score in disk.load(store_root, run_id).capability.scores] == ["boolq"]
    (problem,) = [one for one in problems if one.startswith("odd is left out")]
    assert "stderr of acc" in problem
    assert "-0.1" in problem


def test_the_same_folder_under_the_same_name_is_the_same_run(store_root):
    """Importing twice makes one run; another name makes another."""
    first, _ = import_run.import_folder(store_root, folder_of(STUDENT), "one")
    again, _ = import_run.import_folder(store_root, folder_of(STUDENT), "one")
    other, _ = import_run.import_folder(store_root, folder_of(STUDENT), "two")

    assert first == again
    assert other.startswith("two-")


@pytest.mark.parametrize(
    ("name", "teacher", "says"),
    [("Not a name!", None, "cannot be a run's name"), ("fine", "ghost", "no record of 'ghost'")],
)
def test_a_wrong_request_leaves_nothing_behind(store_root, name, teacher, says):
    """A name that is none, a teacher that is not there: one sentence and no folder."""
    with pytest.raises(BadInput, match=says):
        import_run.import_folder(store_root, folder_of(STUDENT), name, teacher)
    assert not list(store_root.iterdir())


def test_a_folder_without_results_says_what_was_looked_for(store_root, tmp_path):
    """The sentence names the file that should be there."""
    with pytest.raises(BadInput, match=r"There is no results_\*.json"):
        import_run.import_folder(store_root, tmp_path, "x")
    with pytest.raises(BadInput, match="is not a folder"):
        import_run.import_folder(store_root, tmp_path / "none", "x")


def test_the_command_imports_and_the_run_is_listed(store_root, monkeypatch, capsys):
    """`explorer import FOLDER --as NAME`, then ls, show and compare know it."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["explorer", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, capsys.readouterr().out

    code, out = call("import", str(folder_of(TEACHER)), "--as", "mine")
    run_id = out.split()[2].rstrip(".")

    assert code == 0
    assert run_id in call("ls", "--json")[1]
    assert "imported" in call("show", run_id)[1]
    assert call("compare")[0] == 0


def test_a_time_that_is_not_known_stays_unknown(store_root, tmp_path):
    """An evaluation whose files do not say how long it took has cost nobody nothing."""
    shutil.copytree(folder_of(TEACHER), tmp_path / "out")
    for path in (tmp_path / "out").rglob("results_*.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        document.pop("total_evaluation_time_seconds", None)
        path.write_text(json.dumps(document), encoding="utf-8")

    run_id, _ = import_run.import_folder(store_root, tmp_path / "out", "mine")

    assert disk.load(store_root, run_id).capability.seconds is None
