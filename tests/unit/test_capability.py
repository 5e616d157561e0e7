import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from explorer.errors import BadInput, NoRoom, RunCancelled, UnknownTask
from explorer.evaluate import capability, contamination, subset
from explorer.evaluate.backends import prefix_lm
from explorer.evaluate.task_output import FinishedTask, TaskFiles
from explorer.models import loading
from explorer.records import Capability
from explorer.specs import CapabilitySpec
from explorer.store.progress import Progress
from explorer.tasks import safe_loading, task_loading
from tests import local_tasks

CPU = torch.device("cpu")


@pytest.fixture
def tiny(tiny_llama):
    """A random Llama of two layers."""
    return loading.load(str(tiny_llama(num_layers=2)))


@pytest.fixture
def tasks(tmp_path) -> Path:
    """A folder with tasks of every kind, on 30 documents each."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    local_tasks.write(folder)
    return folder


@pytest.fixture
def only_local(monkeypatch) -> None:
    """lm-eval's own 14,000 task files take a quarter of a minute to index: leave them out."""
    monkeypatch.setattr(
        task_loading,
        "SafeTaskManager",
        lambda folders, **_: safe_loading.SafeTaskManager(folders, lm_eval_files=()),
    )


@pytest.fixture
def ask(tiny, tasks, tmp_path, store_root):
    """A function that evaluates the tiny model on local tasks."""

    def run(
        *names: str, fingerprint: str = "f", listener: Any = None, loaded: Any = tiny, **fields: Any
    ) -> tuple[Capability, pd.DataFrame]:
        spec = CapabilitySpec(tasks=names, include_path=str(tasks), batch_size=4, **fields)
        progress = Progress(store_root, "run-1", listener)
        folder = tmp_path / "capability"
        return capability.evaluate(
            loaded, spec, folder, progress, fingerprint=fingerprint, device=CPU
        )

    return run


def stock(tiny: Any, tasks: Path, names: list[str], batch_size: int = 4) -> dict[str, Any]:
    """What lm-eval itself says."""
    found = simple_evaluate(
        HFLM(pretrained=tiny.model, tokenizer=tiny.tokenizer, batch_size=batch_size),
        tasks=names,
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
    )
    assert found is not None
    return found


def test_scores_equal_those_of_lm_eval(ask, tiny, tasks):
    """Every kind of task gets exactly the score and the answers that lm-eval gives."""
    theirs = stock(tiny, tasks, list(local_tasks.NAMES))

    ours, answers = ask(*local_tasks.NAMES)

    assert {score.task for score in ours.scores} == set(local_tasks.NAMES)
    for score in ours.scores:
        assert score.score == pytest.approx(
            theirs["results"][score.task][f"{score.metric},none"], rel=1e-6
        )
    for name in ["local_choice", "local_word"]:
        expected = [sample["acc"] for sample in theirs["samples"][name]]
        mine = answers[(answers.task == name) & (answers.metric == "acc")]
        assert mine.value.tolist() == expected
        assert mine.doc_hash.tolist() == [s["doc_hash"] for s in theirs["samples"][name]]


def test_limit_is_the_same_sample_for_every_model(ask, tiny_llama):
    """A limit takes the same documents for each model, and says where they stand in the data."""
    other = loading.load(str(tiny_llama(num_layers=4, seed=1)))

    _, first = ask("local_choice", limit=7)
    _, second = ask("local_choice", limit=7, loaded=other, fingerprint="other")

    assert first.doc_id.tolist() == second.doc_id.tolist()
    assert first.doc_hash.tolist() == second.doc_hash.tolist()
    assert sorted(set(first.doc_id)) == subset.choose_documents(
        "local_choice", ["/0", "/1"] * 15, 7, 0
    )


def test_doc_id_is_the_position_in_the_data(ask, tasks):
    """doc_id 17 is the 18th document of the task's file, limit or not."""
    _, everything = ask("local_choice")
    _, few = ask("local_choice", limit=5)

    hashes = everything[everything.metric == "acc"].set_index("doc_id").doc_hash
    assert set(few.doc_id) != set(range(5))
    for row in few.itertuples():
        assert hashes[row.doc_id] == row.doc_hash


def test_chance_and_headline(ask):
    """Chance is 1/choices, averaged where it varies, what the file says, or unknown."""
    found, _ = ask("local_choice", "local_letter", "local_word", "local_generation")

    chance = {(score.task, score.metric): score.chance for score in found.scores}
    assert chance == {
        ("local_choice", "acc"): pytest.approx((1 / 2 + 1 / 3) / 2),
        ("local_choice", "acc_norm"): pytest.approx((1 / 2 + 1 / 3) / 2),
        ("local_letter", "acc"): 0.4,
        ("local_word", "perplexity"): None,
        ("local_word", "acc"): 0.0,
        ("local_generation", "exact_match"): 0.0,
    }
    assert {score.task: score.metric for score in found.scores if score.headline} == {
        "local_choice": "acc_norm",
        "local_letter": "acc",
        "local_word": "acc",
        "local_generation": "exact_match",
    }
    letter = next(score for score in found.scores if score.task == "local_letter")
    assert (letter.task_version, letter.num_fewshot, letter.num_documents) == ("3.0", 0, 30)
    perplexity = next(score for score in found.scores if score.metric == "perplexity")
    assert not perplexity.higher_is_better


def test_answers_carry_their_chance_and_what_they_share(ask, tasks):
    """Each document's own chance level, and the cluster that the task's metadata names."""
    path = tasks / "local_choice.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(config | {"metadata": {"cluster": "end"}}), encoding="utf-8")

    found, answers = ask("local_choice", "local_word")
    _, again = ask("local_choice", "local_word")

    choice = answers[(answers.task == "local_choice") & (answers.metric == "acc")]
    assert choice.chance.tolist() == [1 / 2, 1 / 3] * 15
    ends = [f"{city[: 1 + i % 3]}" for i, city in enumerate(local_tasks.CITIES * 3)]
    assert pd.factorize(choice.cluster)[0].tolist() == pd.factorize(pd.Series(ends))[0].tolist()
    word = answers[answers.task == "local_word"]
    assert word[word.metric == "acc"].chance.tolist() == [0.0] * 30
    assert word.cluster.isna().all()
    pd.testing.assert_frame_equal(answers, again)
    assert found.scores[0].chance == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_a_cluster_that_the_documents_lack_is_refused_before_anything_is_asked(ask, tasks):
    """The sentence names the field, and those that there are."""
    path = tasks / "local_choice.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(config | {"metadata": {"cluster": "text"}}), encoding="utf-8")

    with pytest.raises(BadInput, match="no such field; they have question, choices"):
        ask("local_choice", listener=lambda status: pytest.fail("asked") if status["done"] else 0)


def test_progress_counts_every_request(ask):
    """Progress ends at the number of requests of all tasks, one by one."""
    seen: list[tuple[float, float]] = []

    ask("local_letter", "local_word", listener=lambda s: seen.append((s["done"], s["total"])))

    assert seen[-1] == (120, 120)
    assert {done for done, _ in seen} == set(range(121))


def test_killed_evaluation_continues_with_the_missing_tasks(ask, tmp_path):
    """A task that was finished is not asked again; one that was cut off is."""

    def stop_in_second(status: dict[str, Any]) -> None:
        if status.get("task") == "local_word" and status["done"] > 95:
            raise RunCancelled("stop")

    with pytest.raises(RunCancelled):
        ask("local_letter", "local_word", listener=stop_in_second)
    folder = tmp_path / "capability"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert not [name for name in before if "local_word" in name]

    resumed, answers = ask("local_letter", "local_word")

    assert before.items() <= {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}.items()
    assert set(answers.task) == {"local_letter", "local_word"}
    whole, whole_answers = ask("local_letter", "local_word", fingerprint="anew")
    pd.testing.assert_frame_equal(answers, whole_answers)
    assert [s.score for s in resumed.scores] == [s.score for s in whole.scores]


def test_the_time_is_unknown_if_that_of_a_task_is(ask, tmp_path):
    """A finished task without its seconds does not count as one that took none."""
    timed, _ = ask("local_letter", "local_word")
    marker = tmp_path / "capability" / "finished_local_word.json"
    finished = json.loads(marker.read_text(encoding="utf-8"))
    for score in finished["scores"]:
        del score["seconds"]
    marker.write_text(json.dumps(finished), encoding="utf-8")

    resumed, _ = ask("local_letter", "local_word")

    assert timed.seconds > 0
    assert resumed.seconds is None


def test_killed_at_random_points_the_answers_are_the_same_bytes(ask, tmp_path, monkeypatch):
    """Cut off anywhere, in the middle of a line too, and asked again: every file is the same."""
    monkeypatch.setattr(prefix_lm, "ROLLING_BATCH", 4)
    folder, draw = tmp_path / "capability", random.Random(0)

    def files() -> dict[str, bytes]:
        return {
            path.stem: (folder / json.loads(path.read_text())["samples"]).read_bytes()
            for path in folder.glob("finished_*.json")
        }

    class Killed(BaseException):
        """Not caught by anything of ours."""

    def kill_after(num_updates: int) -> Any:
        def listener(status: dict[str, Any]) -> None:
            nonlocal num_updates
            num_updates -= 1
            if not num_updates:
                raise Killed

        return listener

    ask(*local_tasks.NAMES)
    whole = files()
    shutil.rmtree(folder)
    assert len(whole) == len(local_tasks.NAMES)
    num_kills = 0
    while len(files()) < len(whole):
        # A task that is under way counts its known answers again: few updates never end it.
        most = draw.choice((20, 60, 120))
        try:
            ask(*local_tasks.NAMES, listener=kill_after(draw.randint(1, most)))
        except Killed:
            num_kills += 1
            for log in folder.glob("asked_*.jsonl"):
                kept = log.read_bytes()
                log.write_bytes(kept[: len(kept) - draw.choice((0, 0, 1, 30))])
    assert num_kills > 4
    assert files() == whole


@pytest.mark.parametrize(
    "changed", [{"fingerprint": "other"}, {"limit": 9}, {"apply_chat_template": True}]
)
def test_what_decides_answers_makes_a_task_be_asked_again(ask, tmp_path, changed):
    """Another model, sample or prompt never reads the old answers; the old files go."""
    ask("local_letter")
    folder = tmp_path / "capability"
    old = {path.name for path in folder.glob("samples_*")}

    ask("local_letter", **changed)

    new = {path.name for path in folder.glob("samples_*")}
    assert len(new) == 1
    assert not old & new
    assert len(list(folder.glob("results_*.json"))) == 1


def test_changed_documents_make_a_task_be_asked_again(ask, tasks, tmp_path):
    """Editing a task's data file is noticed."""
    ask("local_letter")
    old = {path.name for path in (tmp_path / "capability").glob("samples_*")}
    path = tasks / "documents.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("Rome", "Bonn"), encoding="utf-8")

    ask("local_letter")

    assert old != {path.name for path in (tmp_path / "capability").glob("samples_*")}


def test_files_are_those_of_lm_eval(ask, tmp_path):
    """Other tools find lm-eval's keys in results_*.json and samples_*.jsonl."""
    ask("local_choice", limit=3)

    (path,) = (tmp_path / "capability").glob("results_*.json")
    results = json.loads(path.read_text(encoding="utf-8"))
    keys = "results configs versions n-shot n-samples higher_is_better config date task_hashes"
    assert set(keys.split()) <= set(results)
    assert "acc,none" in results["results"]["local_choice"]
    assert results["n-samples"]["local_choice"] == {"original": 30, "effective": 3}
    assert "config_source" not in results["configs"]["local_choice"]["metadata"]
    (path,) = (tmp_path / "capability").glob("samples_local_choice_*.jsonl")
    samples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    keys = "doc_id doc target arguments resps filtered_resps filter metrics doc_hash prompt_hash"
    assert set(keys.split()) <= set(samples[0])
    assert samples[0]["arguments"]["gen_args_0"]["arg_0"] == samples[0]["doc"]["question"]


def test_groups_tags_and_patterns_become_leaf_tasks(only_local, tasks):
    """A group, a tag and a pattern each stand for their tasks; a task is taken once."""
    assert list(task_loading.load_tasks(["local_group", "local_choice"], str(tasks))) == [
        "local_choice",
        "local_letter",
    ]
    assert len(task_loading.load_tasks(["local_all"], str(tasks))) == 5
    assert list(task_loading.load_tasks(["local_[cl]*"], str(tasks))) == [
        "local_choice",
        "local_letter",
    ]


def test_starter_group_is_ours(store_root):
    """`starter` needs no folder and no network."""
    names = list(task_loading.load_tasks(["starter"]))

    assert len(names) >= 4
    assert all(name.startswith("starter_") for name in names)


def test_unknown_task_names_close_ones(only_local, tasks):
    """A mistyped task is refused with what was probably meant and where all are listed."""
    with pytest.raises(UnknownTask, match=r"'local_chioce'.*local_choice.*explorer tasks"):
        task_loading.load_tasks(["local_chioce"], str(tasks))
    with pytest.raises(BadInput, match="no folder"):
        task_loading.load_tasks(["starter"], "/nowhere/tasks")


def test_missing_documents_are_named(tasks, tmp_path):
    """A data file that is not there is named, and so is the folder that paths count from."""
    text = (tasks / "local_choice.yaml").read_text(encoding="utf-8")
    text = text.replace(str(tasks / "documents.jsonl"), "nowhere/documents.jsonl")
    (tasks / "local_choice.yaml").write_text(text, encoding="utf-8")

    with pytest.raises(BadInput, match=r"local_choice.*working directory"):
        task_loading.load_tasks(["local_group"], str(tasks))


def test_relative_documents_are_read_from_the_working_directory(tasks, monkeypatch):
    """A task file may name its data relative to where the command is run, as in lm-eval."""
    text = (tasks / "local_choice.yaml").read_text(encoding="utf-8")
    text = text.replace(str(tasks / "documents.jsonl"), "../tasks/documents.jsonl")
    (tasks / "local_choice.yaml").write_text(text, encoding="utf-8")
    (tasks.parent / "work").mkdir()
    monkeypatch.chdir(tasks.parent / "work")

    assert (
        len(task_loading.load_tasks(["local_choice"], str(tasks))["local_choice"].eval_docs) == 30
    )


def test_data_of_the_hub_is_named_when_offline(tasks):
    """A task whose data lies on the hub says which data, and that HF_HUB_OFFLINE=1 is set."""
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    config = {
        "task": "hub_task",
        "dataset_path": "nobody/no_such_data",
        "test_split": "test",
        "output_type": "loglikelihood",
        "doc_to_text": "a",
        "doc_to_target": "b",
    }
    (tasks / "hub_task.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    with pytest.raises(BadInput, match=r"hub_task needs .*nobody/no_such_data.*HF_HUB_OFFLINE=1"):
        task_loading.load_tasks(["hub_task"], str(tasks))


def test_model_without_chat_template_is_refused(ask, tiny):
    """apply_chat_template with a base model is one clear sentence."""
    tiny.tokenizer.chat_template = None

    with pytest.raises(BadInput, match="no chat template"):
        ask("local_letter", apply_chat_template=True)


def test_full_memory_says_to_lower_batch_size(ask, tiny, monkeypatch):
    """Out of memory is one sentence with the way out; nothing half-written stays."""

    def full(*args: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tiny.model, "forward", full)

    with pytest.raises(NoRoom, match="Lower batch_size"):
        ask("local_letter")


def test_task_that_runs_written_code_is_refused(tasks):
    """Code that a model wrote is never run."""
    path = tasks / "local_word.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "\nunsafe_code: true\n", encoding="utf-8")

    with pytest.raises(BadInput, match="runs code"):
        task_loading.load_tasks(["local_word"], str(tasks))


def test_overlap_counts_documents_that_stand_in_the_corpus():
    """A shared run of 13 words counts, case and punctuation aside; 12 words do not."""
    thirteen = "One two three four five six seven eight nine ten eleven twelve thirteen"
    documents = {
        "a": [f"before {thirteen}", f"another {thirteen[:-9]}", "nothing in common with it at all"],
        "b": ["two three four five six seven eight nine", "two three four five six seven eight"],
        "c": [f"zero{contamination.BREAK}{thirteen}", "one two three\x1efour five six seven eight"],
    }

    found = contamination.count_overlaps([f"The text: {thirteen.upper()}!"], documents)

    assert found == {"a": 1, "b": 1, "c": 1}
    assert contamination.count_overlaps([], documents) == {"a": 0, "b": 0, "c": 0}


def test_task_documents_hold_question_and_choices(tasks):
    """Overlap looks at what the model reads: the question with each of its choices."""
    found = contamination.task_documents(["local_letter", "local_word"], str(tasks))

    assert len(found["local_letter"]) == 30
    readings = found["local_letter"][0].split(contamination.BREAK)
    assert readings == [f"Rome and number 0 are {letter}" for letter in "ABC"]
    assert found["local_word"][0] == "Rome and number 0 are R"


def test_a_finished_task_is_read_whatever_its_documents_hold(tmp_path):
    """Line ends that JSON leaves as they are (U+2028) do not make a task be asked again."""
    sample = {"doc_id": 0, "doc": {"text": "before\u2028after\u0085"}}
    files = TaskFiles(tmp_path, "task", "key")

    finished = FinishedTask([], [sample, sample], {}, [])
    files.write({}, finished)

    assert files.read() == finished
