"""A run as files that others read; what leaves comes back as it was."""

import io
import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from explorer import cli
from explorer.errors import BadInput
from explorer.lm_eval_io import export_run, import_run, results, samples
from explorer.store import disk
from tests import records
from tests.records import STUDY
from tests.unit.test_import_run import STUDENT, TEACHER, old_format

SAME = (
    "score",
    "stderr",
    "chance",
    "headline",
    "higher_is_better",
    "num_documents",
    "num_documents_total",
    "num_fewshot",
    "task_version",
    "task_hash",
)


def scores_of(root, run_id):
    """Each score without its seconds, by task and metric."""
    found = disk.load(root, run_id).capability.scores
    return {(s.task, s.metric): [getattr(s, name) for name in SAME] for s in found}


def answers_of(root, run_id):
    keys = ["task", "metric", "doc_id"]
    return disk.load_answers(root, run_id).sort_values(keys, ignore_index=True)


def brought_back(root, run_id, folder):
    export_run.write_files(export_run.lm_eval_files(root, run_id), folder)
    again, problems = import_run.import_folder(root, folder, "again")
    assert problems == []
    return again


@pytest.mark.parametrize("run_id", [TEACHER, STUDENT])
def test_a_measured_run_comes_back_with_equal_scores(store_root, tmp_path, run_id):
    """Export in lm-eval's format, import: every score, chance level and answer is the same."""
    shutil.copytree(STUDY / run_id, store_root / run_id)

    again = brought_back(store_root, run_id, tmp_path / "out")

    assert scores_of(store_root, again) == scores_of(store_root, run_id)
    before, after = answers_of(store_root, run_id), answers_of(store_root, again)
    columns = ["task", "metric", "doc_id", "doc_hash", "value"]
    assert before[columns].equals(after[columns])
    assert disk.load(store_root, again).imported.dtype == "float32"


def test_an_imported_run_comes_back_too(store_root, tmp_path):
    """What an old lm-eval left is kept, and leaves in today's form with its settings."""
    old_format(tmp_path / "old")
    run_id, _ = import_run.import_folder(store_root, tmp_path / "old", "gpt2")

    again = brought_back(store_root, run_id, tmp_path / "out")

    assert scores_of(store_root, again) == scores_of(store_root, run_id)
    assert answers_of(store_root, again).equals(answers_of(store_root, run_id))
    assert disk.load(store_root, again).spec.teacher == "gpt2"


def test_a_run_whose_files_are_gone_still_leaves_with_its_scores(store_root, tmp_path):
    """The record alone gives scores, chance levels, shots and versions."""
    run_id = records.write_study(store_root, layers=(20,))[1]

    again = brought_back(store_root, run_id, tmp_path / "out")

    assert scores_of(store_root, again) == scores_of(store_root, run_id)
    assert disk.load(store_root, again).capability.lm_eval_version == "0.4.13"


def test_the_files_have_the_names_that_lm_eval_gives(store_root):
    """A folder of the model's name, one results file, samples of each task with the same date."""
    shutil.copytree(STUDY / STUDENT, store_root / STUDENT)

    names = [name for name, _ in export_run.lm_eval_files(store_root, STUDENT)]

    folder = f"run__{STUDENT}"
    date = results.file_date(disk.load(store_root, STUDENT).finished_at)
    assert f"{folder}/results_{date}.json" in names
    assert f"{folder}/samples_starter_facts_{date}.jsonl" in names
    assert len(names) == 6
    assert all(samples.FILE.fullmatch(Path(name).name) for name in names if "samples" in name)


def test_a_zip_of_the_same_run_is_the_same(store_root):
    """Two downloads can be told to be equal, and the zip holds what the folder does."""
    shutil.copytree(STUDY / STUDENT, store_root / STUDENT)

    first, second = (export_run.export_bytes(store_root, STUDENT, "lm-eval") for _ in range(2))

    assert first == second
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    assert content == dict(export_run.lm_eval_files(store_root, STUDENT))


def hub_run(root, **config):
    """The study's student with a first task that asks about a data set of the Hub."""
    shutil.copytree(STUDY / STUDENT, root / STUDENT)
    for path in (root / STUDENT / "capability").glob("results_*.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        if "starter_facts" in document["configs"]:
            document["configs"]["starter_facts"] |= config
            path.write_text(json.dumps(document), encoding="utf-8")
    return STUDENT


def test_a_model_card_takes_every_score(store_root):
    """huggingface_hub reads the front matter and finds each metric with its value."""
    run_id = hub_run(store_root, dataset_path="allenai/ai2_arc", dataset_name="ARC-Easy")

    text = export_run.export_bytes(store_root, run_id, "model-index").decode()

    found = ModelCard(text).data.eval_results
    values = {(one.dataset_name, one.metric_type): one.metric_value for one in found}
    assert values == {key: row[0] for key, row in scores_of(store_root, run_id).items()}
    facts = next(one for one in found if one.dataset_name == "starter_facts")
    assert (facts.dataset_type, facts.dataset_config) == ("allenai/ai2_arc", "ARC-Easy")
    assert (facts.dataset_split, facts.dataset_args) == ("test", {"num_few_shot": 0})
    assert "lm-eval 0.4.13" in facts.metric_name
    other = next(one for one in found if one.dataset_name == "starter_cause")
    assert other.dataset_type == "starter_cause"


def test_the_hubs_results_name_the_data_sets_of_the_hub(store_root):
    """One entry a task on a Hub data set, its headline metric; local tasks are left out."""
    run_id = hub_run(store_root, dataset_path="allenai/ai2_arc", dataset_name="ARC-Easy")

    text = export_run.export_bytes(store_root, run_id, "eval-results").decode()

    (entry,) = parse_eval_result_entries(yaml.safe_load(text))
    assert (entry.dataset_id, entry.task_id) == ("allenai/ai2_arc", "ARC-Easy")
    assert entry.value == scores_of(store_root, run_id)["starter_facts", "acc"][0]
    assert entry.date == disk.load(store_root, run_id).finished_at
    assert entry.notes.startswith("acc, lm-eval 0.4.13, task version 1.0, 0-shot")


@pytest.mark.parametrize(
    "config",
    [{}, {"dataset_path": "json"}, {"dataset_path": "a/b", "dataset_kwargs": {"data_files": "x"}}],
)
def test_a_run_on_local_data_has_no_place_on_the_hub(store_root, config):
    """The sentence names the format that takes every task."""
    with pytest.raises(BadInput, match="model-index takes every task"):
        export_run.export_bytes(store_root, hub_run(store_root, **config), "eval-results")


def test_a_run_without_scores_is_refused(store_root):
    """Nothing is written of a run that was never tested."""
    record = records.make_record(num_layers=20, status="failed")
    disk.save(store_root, record)

    with pytest.raises(BadInput, match="has no scores"):
        export_run.export_bytes(store_root, record.run_id, "model-index")


def test_the_command_writes_a_folder_a_zip_or_yaml(store_root, tmp_path, monkeypatch, capsysbinary):
    """`explorer export RUN --format ...`; a table's formats and these stand in one option."""
    shutil.copytree(STUDY / STUDENT, store_root / STUDENT)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["explorer", "export", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsysbinary.readouterr()
        return stopped.value.code, out, err.decode()

    folder, archive = tmp_path / "out", tmp_path / "out.zip"
    assert call(STUDENT, "--format", "lm-eval", "--out", str(folder))[0] == 0
    assert call(STUDENT, "--format", "lm-eval", "--out", str(archive))[0] == 0
    code, card, _ = call(STUDENT, "--format", "model-index")

    assert len(list(folder.rglob("*.json*"))) == 6
    assert zipfile.is_zipfile(archive)
    assert code == 0
    assert card.startswith(b"---\nmodel-index:\n")
    code, _, said = call("--format", "lm-eval")
    assert code != 0
    assert "is for one run" in said
