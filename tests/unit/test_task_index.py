"""The list of tasks: what it says, when it is read again, what is on this machine."""

import json
import re
from pathlib import Path

import datasets
import pytest
import yaml
from datasets.naming import camelcase_to_snakecase
from lm_eval.tasks._index import TaskIndex
from lm_eval.tasks._yaml_loader import load_yaml

from explorer.errors import BadInput, UnknownTask
from explorer.tasks import (
    code_policy,
    dataset_cache,
    index,
    index_builder,
    presets,
    task_list,
    task_loading,
)

OPEN = {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}


def task(**more):
    """A task file as a mapping."""
    return {"task": "t", "dataset_path": "org/DataSet", "output_type": "multiple_choice", **more}


def write(folder, name, **config):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def own_part(cache):
    """The file of lm-eval's own tasks."""
    return cache / "tasks" / f"lm-eval-{index.lm_eval_version()}-{index.FORMAT}.json"


def test_every_preset_is_made_of_tasks_that_lm_eval_has(known_tasks):
    """Each name of each preset stands for tasks of text that the explorer runs."""
    found = index.read_cached()

    assert len(presets.presets()) >= 6
    for key, preset in presets.presets().items():
        for name in preset.tasks:
            leaves = found.leaves(name)
            assert leaves, (key, name)
            assert not [leaf.name for leaf in leaves if leaf.refused], (key, name)
    assert len(found.leaves("leaderboard")) == 39
    with pytest.raises(BadInput, match=r"preset knows starter, common_sense.*'nothing'"):
        presets.find_preset("nothing")


def test_the_list_says_of_a_task_what_its_file_says(known_tasks):
    """Output type, shots, chance, headline metric, data set, groups and description."""
    rows = task_list.task_table(index.read_cached(), dataset_cache.cached_datasets()).set_index(
        "task"
    )

    assert len(rows) > 14_000
    piqa = rows.loc["piqa"]
    assert (piqa["output_type"], piqa["num_fewshot"]) == ("multiple_choice", 0)
    assert (piqa["chance"], piqa["metric"], piqa["data"]) == (0.5, "acc_norm", "baber/piqa")
    assert "pythia" in piqa["groups"]
    assert "physical commonsense" in piqa["description"]
    assert rows.loc["gsm8k", "num_fewshot"] == 5
    assert rows.loc["gsm8k", "chance"] == 0.0
    # A choice that is read from the document: their number does not follow from the file.
    assert rows["chance"].isna()["hellaswag"]
    assert (rows.loc["mmlu", "kind"], rows.loc["mmlu", "num_tasks"]) == ("group", 57)
    assert rows.loc["starter", "here"]
    assert not rows.loc["piqa", "here"]


@pytest.mark.parametrize(
    ("config", "chance"),
    [
        ({"doc_to_choice": ["no", "yes"]}, 0.5),
        ({"doc_to_choice": "{{[a, b, c, d]}}"}, 0.25),
        ({"doc_to_choice": " {{ ['a', 'b'] }} "}, 0.5),
        ({"doc_to_choice": {"a": "x", "b": "y", "c": "z"}}, 1 / 3),
        ({"doc_to_choice": "choices"}, None),
        ({"doc_to_choice": "{{choices.text}}"}, None),
        ({"doc_to_choice": "{{[a, b]"}, None),
        ({"doc_to_choice": []}, None),
        ({"doc_to_choice": "choices", "metadata": {"chance": 0.2}}, 0.2),
        ({"doc_to_choice": ["a", "b"], "metadata": {"chance": {"acc_norm": 0.4}}}, 0.4),
        ({"doc_to_choice": ["a", "b"], "process_results": "utils.f"}, None),
        ({"output_type": "generate_until"}, 0.0),
        ({"output_type": "loglikelihood_rolling"}, None),
        ({"output_type": "loglikelihood", "metric_list": [{"metric": "acc"}]}, 0.0),
        ({"metric_list": [{"metric": "mcc"}], "doc_to_choice": ["a", "b"]}, None),
    ],
)
def test_chance_is_what_follows_from_the_file(config, chance):
    """As for a finished run's score, and None where only the documents tell."""
    row = index_builder.task_row("t", task(**config), "t.yaml")

    assert row.chance == pytest.approx(chance) if chance is not None else row.chance is None


def test_a_changed_folder_is_read_again_and_only_that(known_tasks, tmp_path):
    """A new file makes the folder's part stale; lm-eval's own part stays as it is."""
    folder = tmp_path / "more"
    write(folder, "one", task="mine_one", tag="mine", **{"dataset_path": "org/x"})
    assert index.read_cached(str(folder)) is None
    told = []
    before = (own_part(known_tasks)).stat().st_mtime_ns

    assert "mine_one" in index.build_index(str(folder), lambda *at: told.append(at)).rows
    write(folder, "two", task="mine_two", tag="mine", **{"dataset_path": "org/x"})
    assert index.read_cached(str(folder)) is None
    found = index.build_index(str(folder))

    assert [row.name for row in found.leaves("mine")] == ["mine_one", "mine_two"]
    assert [row.name for row in found.leaves("mine_*")] == ["mine_one", "mine_two"]
    assert told[-1] == (1, 1)
    after = (own_part(known_tasks)).stat().st_mtime_ns
    assert after == before


def test_a_damaged_cache_is_made_again(known_tasks):
    """Half a file, another version's or no JSON counts as none."""
    part = own_part(known_tasks)
    whole = part.read_text(encoding="utf-8")
    kept = json.loads(whole)
    for bad in (whole[:1000], "[]", json.dumps(kept | {"stamp": "0.0.1"}), "null"):
        part.write_text(bad, encoding="utf-8")
        assert index.read_cached() is None
    part.write_text(whole, encoding="utf-8")
    assert index.read_cached() is not None


def test_files_that_are_no_tasks_are_named(tmp_path):
    """A broken file costs nothing but itself, and an unknown name speaks of it."""
    folder = tmp_path / "more"
    write(folder, "good", **task(task="good"))
    (folder / "broken.yaml").write_text("task: broken\n  output: [", encoding="utf-8")
    (folder / "a_list.yaml").write_text("- 1\n- 2\n", encoding="utf-8")
    write(folder, "template", dataset_path="org/x")
    write(folder, "turning", task="turning", include="turning.yaml")

    rows, problems = index_builder.read_task_rows(folder)

    assert [row.name for row in rows] == ["good"]
    assert [
        next(name for name in ("a_list", "broken", "turning") if f"{name}.yaml" in said)
        for said in problems
    ] == ["a_list", "broken", "turning"]
    with pytest.raises(
        UnknownTask, match=r"'brken'.*broken\.yaml, line 2, column 9: expected YAML"
    ):
        raise index.unknown_task_error("brken", ["good"], problems[1:2])


def test_files_are_read_as_lm_eval_reads_them():
    """Includes, whose keys give way to the file's own, and the places of functions."""
    read = {}
    files = sorted(index_builder.LM_EVAL.glob("[c-m]*/**/*.yaml"))[::97]
    assert len(files) > 30

    for path in files:
        assert index_builder.load_task_yaml(path, read) == load_yaml(path, resolve_func=False)


def test_groups_within_groups_and_their_own_parts(tmp_path):
    """Inline groups and tasks are found below their group, and cannot be asked alone."""
    folder = tmp_path / "more"
    write(folder, "a", **task(task="a"))
    inline = [{"task": "b", "dataset_path": "org/b"}, "a"]
    write(folder, "g", group="g", task=["a", {"group": "sub", "task": inline}])
    rows, _ = index_builder.read_task_rows(folder)
    found = index.TaskIndex({row.name: row for row in rows}, [])

    assert [row.name for row in found.leaves("g")] == ["a", "g::sub::b"]
    assert "g::sub" not in set(
        task_list.task_table(found, dataset_cache.CachedDatasets({}))["task"]
    )


@pytest.mark.parametrize(
    ("row", "folders", "expected"),
    [
        ({"dataset_path": "Rowan/hellaswag"}, {"Rowan___hellaswag": {"default"}}, True),
        ({"dataset_path": "org/MyData"}, {"org___my_data": {"default"}}, True),
        ({"dataset_path": "org/MyData"}, {"org___mydata": {"default"}}, False),
        ({"dataset_path": "glue", "dataset_name": "mrpc"}, {"glue": {"rte"}}, False),
        ({"dataset_path": "glue", "dataset_name": "mrpc"}, {"glue": {"mrpc"}}, True),
        ({"dataset_path": "glue", "dataset_name": "mrpc"}, {"glue": {"mrpc-1f"}}, True),
        ({"dataset_path": "glue", "dataset_name": "mr"}, {"glue": {"mrpc"}}, False),
        ({"dataset_path": "json"}, {"json": {"default-1f"}}, None),
        ({}, {}, None),
        ({"dataset_path": "json", "files": ("/nowhere/x.jsonl",)}, {}, False),
        ({"dataset_path": "json", "files": (__file__,)}, {}, True),
    ],
)
def test_data_here_follows_the_cache_of_datasets(row, folders, expected, tmp_path, monkeypatch):
    """A data set is here when its configuration lies in the cache; files when they exist."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    for name, configurations in folders.items():
        for configuration in configurations:
            place = tmp_path / name / configuration / "0.0.0" / "abc"
            place.mkdir(parents=True)
            (place / "dataset_info.json").write_text("{}")

    assert dataset_cache.cached_datasets().has(index.TaskRow("t", "task", **row)) is expected


def test_the_cache_of_datasets_is_found_where_datasets_looks():
    """The names and the place of folders are those of the library itself."""
    for name in ("MMLU-Pro", "TruthfulQA", "ai2_arc", "XNLIv2", "BBH"):
        assert dataset_cache.cache_folder(f"Org/{name}") == f"Org___{camelcase_to_snakecase(name)}"
    assert dataset_cache._datasets_cache() == Path(datasets.config.HF_DATASETS_CACHE)


def test_missing_data_is_refused_before_the_start(known_tasks, tmp_path, monkeypatch):
    """Offline, the sentence names task, data set and how to fetch; online nothing is refused."""
    found = index.read_cached()

    dataset_cache.refuse_missing(["starter"], found)
    said = r"piqa needs the dataset baber/piqa, .*=1.* -u HF_HUB_OFFLINE explorer tasks fetch piqa"
    with pytest.raises(BadInput, match=said):
        dataset_cache.refuse_missing(["piqa"], found)
    with pytest.raises(BadInput, match=r"leaderboard_\w+ and 38 more need .* and \d+ more"):
        dataset_cache.refuse_missing(["leaderboard"], found)
    with pytest.raises(BadInput, match="images or audio"):
        dataset_cache.refuse_missing(["chartqa"], found)
    with pytest.raises(UnknownTask, match="'hellaswagg'.*hellaswag"):
        dataset_cache.refuse_missing(["hellaswagg"], found)
    write(tmp_path, "gone", task="gone", dataset_path="json")
    file = str(tmp_path / "gone.yaml")
    gone = index.TaskRow("gone", "task", dataset_path="json", files=("no/x.jsonl",), source=file)
    for name, value in OPEN.items():
        monkeypatch.setenv(name, value)
    dataset_cache.refuse_missing(["piqa"], found)
    with pytest.raises(BadInput, match=r"gone reads no/x\.jsonl, .*gone\.yaml.*start at"):
        dataset_cache.refuse_missing(["gone"], index.TaskIndex({"gone": gone}, []))


@pytest.mark.parametrize("name", ["piqa", "mmlu", "pythia", "arc_*", "super-glue-lm-eval-v1"])
def test_a_run_reads_those_of_lm_evals_files_that_its_tasks_need(known_tasks, name):
    """A task, a group of groups, a tag and a pattern: all that they stand for, of 14,000 files."""
    known = index.read_cached()
    assert known is not None

    manager = task_loading._manager([name, "starter"], None)

    leaves = [leaf for leaf in known.leaves(name) if leaf.kind != "part"]
    assert leaves
    for leaf in leaves:
        assert str(manager.task_index[leaf.name].yaml_path) == leaf.source
    assert len(manager.task_index) < 300
    assert "starter" in manager.task_index


def test_an_unknown_name_is_refused_without_reading_them(known_tasks, monkeypatch):
    """The list has its close names."""
    read = []
    build = staticmethod(lambda folders: read.extend(folders) or {})
    monkeypatch.setattr(TaskIndex, "build", build)

    with pytest.raises(UnknownTask, match="arc_esay.*Close names: arc_easy"):
        task_loading._manager(["arc_esay"], None)

    assert set(read) == {code_policy.SHIPPED}


def test_search_puts_names_first(known_tasks):
    """Every word has to stand somewhere; a name that begins with it comes before the others."""
    found = task_list.task_table(index.read_cached(), dataset_cache.cached_datasets())

    assert task_list.search_tasks(found, "piqa")["task"].iloc[0] == "piqa"
    assert "arc_easy" in set(task_list.search_tasks(found, "easy REASONING diverse")["task"])
    assert task_list.search_tasks(found, "no such words at all").empty
    assert len(task_list.search_tasks(found, " ")) == len(found)


GOOD = "task: quiz\ndataset_path: json\noutput_type: multiple_choice\n"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a.yaml": GOOD, "b.yaml": GOOD}, r"b\.yaml .*defines 'quiz' again, after .*a\.yaml"),
        (
            {"a.yaml": GOOD + "include: b\n", "b": "include: a.yaml\n"},
            r"a\.yaml is not a task file: it includes itself through .*b\.$",
        ),
        ({"a.yaml": GOOD + "include: gone\n"}, r"includes .*gone, which does not exist"),
        ({"a.yaml": GOOD + "include: 5\n"}, "its include should be a file, got 5"),
        ({"a.yaml": "task: quiz\n  x: [\n"}, r"a\.yaml, line 2, column 4: expected YAML"),
        ({"a.yaml": GOOD + "x: " + "[" * 9999}, "line 4: nested more than 100 levels"),
        ({"a.yaml": GOOD + GOOD}, "line 4, column 1: expected each key once"),
        ({"a.yaml": "task: no\n"}, "its task should be a name, got False; put it in quotes"),
        ({"a.yaml": "class: x\n"}, "its task should be a name, got None"),
        ({"a.yaml": GOOD + "tag: {a: 1}\n"}, "its tag should be a name or a list of names"),
        ({"a.yaml": "group: g\ntask: 7\n"}, "task of a group should be a list of names, got 7"),
        (
            {"a.yaml": "group: g\ntask: [h]\n", "b.yaml": "group: h\ntask: [g]\n"},
            r"The group 'g' in .*a\.yaml contains itself",
        ),
    ],
)
def test_a_folder_of_ones_own_is_read_strictly(tmp_path, files, says):
    """One sentence for each file that lm-eval would skip or misread; its names are left out."""
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")

    rows, problems = index_builder.read_task_rows(tmp_path)

    assert not rows
    assert re.search(says, problems[0])
    assert "\n" not in problems[0]


def test_links_in_a_task_folder_are_followed_once(tmp_path):
    """To a file, to a folder on another disk, and to the folder itself; a broken one is named."""
    folder, other = tmp_path / "folder", tmp_path / "other"
    for place in (folder, other):
        place.mkdir()
    (other / "quiz.yaml").write_text(GOOD, encoding="utf-8")
    (folder / "there").symlink_to(other)
    (folder / "again").symlink_to(folder)
    (folder / "gone.yaml").symlink_to(tmp_path / "gone")

    rows, problems = index_builder.read_task_rows(folder)

    assert [row.name for row in rows] == ["quiz"]
    assert len(problems) == 1
    assert "gone.yaml can't be read: No such file" in problems[0]
