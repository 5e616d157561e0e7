"""A run's numbers come from one evaluation, whatever lies in the folder that is imported."""

import codecs
import json

import pytest

from explorer.errors import BadInput
from explorer.lm_eval_io import evaluations, import_run, results
from explorer.lm_eval_io.evaluations import SeveralEvaluations
from explorer.store import disk, frames

MONDAY, TUESDAY = 1_790_000_000.0, 1_790_086_400.0


def evaluation(
    folder,
    *,
    name="2026-10-01T10-00-00.000001",
    tasks=("one",),
    values=(1.0, 1.0, 0.0, 0.0),
    model="acme/big",
    date=MONDAY,
    filter_name="none",
    metric="acc",
    config=None,
    **changes,
):
    """What lm-eval leaves of one evaluation: a results file, and samples of each task."""
    folder.mkdir(parents=True, exist_ok=True)
    score = sum(values) / len(values)
    document = {
        "results": {task: {f"{metric},{filter_name}": score, "alias": task} for task in tasks},
        "configs": {task: {"task": task, "output_type": "generate_until"} for task in tasks},
        "versions": dict.fromkeys(tasks, 1.0),
        "n-shot": dict.fromkeys(tasks, 0),
        "n-samples": {task: {"original": 9, "effective": len(values)} for task in tasks},
        "config": {"model": "hf", "model_args": f"pretrained={model}"} | (config or {}),
        "model_name": model,
        "date": date,
    } | changes
    if date is None:
        del document["date"]
    results_file = folder / f"results_{name}.json"
    results_file.write_text(json.dumps(document), "utf-8")
    for task in tasks:
        lines = [
            {"doc_id": i, "doc": {"q": i}, "filter": filter_name, "target": "a", metric: value}
            for i, value in enumerate(values)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"samples_{task}_{name}.jsonl").write_text(text, "utf-8")
    return results_file


def scores(folder, **options):
    """`task: score` of what is read, and the problems."""
    output = results.read_output_folder(folder, **options)
    return {score.task: score.score for score in output.scores}, output.problems


@pytest.mark.parametrize(
    ("other", "differ"),
    [
        ({"model": "acme/small"}, "model"),
        ({"config": {"model_args": "pretrained=acme/big,revision=step200"}}, "model arguments"),
        ({"config": {"model_sha": "b" * 40}}, "checkpoint"),
        ({"config": {"model_dtype": "torch.bfloat16"}}, "number format"),
        ({"config": {"limit": 10.0}}, "limit"),
        ({"config": {"gen_kwargs": {"temperature": 1}}}, "generation settings"),
        ({"chat_template": "{{ messages }}"}, "chat template"),
        ({"system_instruction": "Be brief."}, "system prompt"),
        ({"n-shot": {"one": 5}}, "number of shots"),
    ],
)
def test_evaluations_that_differ_are_named_and_none_is_chosen(tmp_path, store_root, other, differ):
    """Two models, checkpoints, templates or settings in one folder: nothing is imported."""
    evaluation(tmp_path, config={"model_args": "pretrained=acme/big"})
    evaluation(
        tmp_path, name="2026-10-02T10-00-00.000001", date=TUESDAY, values=(0.0, 0.0), **other
    )

    with pytest.raises(SeveralEvaluations, match="A run is one evaluation, and here are 2") as said:
        import_run.import_folder(store_root, tmp_path, "mixed")

    assert differ in str(said.value).partition("They differ in: ")[2]
    assert "results_2026-10-01T10-00-00.000001.json (acme/big, 2026-09-21 14:13" in str(said.value)
    assert not list(store_root.iterdir())
    assert scores(tmp_path, only="2026-10-01") == ({"one": 0.5}, [])
    assert scores(tmp_path, only=said.value.choices[0]) == ({"one": 0.0}, [])


def test_where_an_evaluation_runs_is_no_difference(tmp_path):
    """Another device, another batch size: the newer one replaces the older one."""
    evaluation(tmp_path, config={"model_args": "pretrained=acme/big,device=cuda:0,batch_size=8"})
    evaluation(
        tmp_path / "again",
        date=TUESDAY,
        values=(1.0,),
        config={"model_args": {"pretrained": "acme/big", "device": "cpu"}},
    )

    assert scores(tmp_path)[0] == {"one": 1.0}


def test_the_newest_is_the_one_with_the_later_date_inside(tmp_path):
    """A file's name has the local time of its machine, and clocks differ."""
    evaluation(tmp_path / "tokyo", name="2026-11-20T20-00-00.000000", date=MONDAY)
    evaluation(tmp_path / "new", name="2026-11-20T08-00-00.000000", date=TUESDAY, values=(1.0,))

    found, problems = scores(tmp_path)

    assert found == {"one": 1.0}
    (problem,) = problems
    assert problem.startswith("tokyo/results_2026-11-20T20-00-00.000000.json is left out: new/")


def test_the_name_dates_a_file_that_states_no_date(tmp_path):
    """Between files without a date, the name's; the record's time is that of the file."""
    evaluation(tmp_path, name="2026-11-20T08-00-00.000000", date=None)
    evaluation(tmp_path, name="2026-11-21T08-00-00.000000", date=None, values=(1.0,))

    assert scores(tmp_path)[0] == {"one": 1.0}


def test_a_name_with_a_day_that_does_not_exist_has_no_date(tmp_path):
    """So nothing says which of two files is the newest; alone it is imported."""
    evaluation(tmp_path, name="2026-13-40T08-00-00.000000", date=None)
    assert scores(tmp_path)[0] == {"one": 0.5}

    evaluation(tmp_path, name="2026-11-21T08-00-00.000000", date=None, values=(1.0,))
    with pytest.raises(BadInput, match=r"2026-13-40\S+ \(acme/big, no date: one\)\. No date says"):
        scores(tmp_path)


def test_evaluations_of_other_tasks_are_one_run_only_on_request(tmp_path):
    """The same model on two days, a task each: named; with `combine` each task's own newest."""
    evaluation(tmp_path, tasks=("one", "two"), total_evaluation_time_seconds="5")
    evaluation(
        tmp_path,
        name="2026-10-02T10-00-00.000001",
        date=TUESDAY,
        values=(1.0,),
        total_evaluation_time_seconds="2.5",
    )

    with pytest.raises(SeveralEvaluations, match=r"The newest has no two.*--combine") as said:
        scores(tmp_path)
    assert said.value.can_combine
    output = results.read_output_folder(tmp_path, combine=True)

    assert {s.task: (s.score, s.num_documents) for s in output.scores} == {
        "one": (1.0, 1),
        "two": (0.5, 4),
    }
    assert {task: len(lines) for task, lines in output.samples.items()} == {"one": 1, "two": 4}
    assert output.about["total_evaluation_time_seconds"] == 7.5
    assert output.problems == []


def old_evaluation(folder, arguments, values, task="easy"):
    """What 0.4.2 left: no date, samples named by arguments and task, as one array."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "results": {task: {"acc,none": sum(values) / len(values)}},
        "configs": {task: {"task": task}},
        "versions": {task: 1.0},
        "config": {"model": "hf", "model_args": arguments},
    }
    (folder / "results.json").write_text(json.dumps(document))
    lines = [{"doc_id": i, "doc": {"q": i}, "acc": value} for i, value in enumerate(values)]
    name = arguments.replace("=", "__").replace("/", "__")
    (folder / f"{name}_{task}.jsonl").write_text(json.dumps(lines))


def test_results_without_any_date_are_not_mixed(tmp_path):
    """Before 0.4.3 nothing says which of two files is the newer one."""
    old_evaluation(tmp_path / "a", "pretrained=acme/big", [1.0, 0.0])
    old_evaluation(tmp_path / "b", "pretrained=acme/big", [1.0, 1.0])

    with pytest.raises(SeveralEvaluations, match="No date says which is the newest"):
        scores(tmp_path)
    assert scores(tmp_path, only="b/results.json") == ({"easy": 1.0}, [])


def test_a_date_inside_and_one_in_a_name_are_not_compared(tmp_path):
    """A name has the local time of an unknown place, so it never makes a file the newest."""
    for place, when in (("a", "2026-11-20T08-00-00.0"), ("b", "2026-11-20T20-00-00.0")):
        old_evaluation(tmp_path / place, "pretrained=acme/big", [1.0, 0.0])
        file = tmp_path / place / "results.json"
        if place == "a":
            document = json.loads(file.read_text()) | {"date": 1_795_000_000.0}
            file.write_text(json.dumps(document))
        file.rename(file.with_name(f"results_{when}.json"))

    with pytest.raises(SeveralEvaluations, match="No date says which is the newest"):
        scores(tmp_path)


def test_a_samples_file_belongs_to_a_task_by_its_whole_name(tmp_path):
    """The answers to `arc_easy` are not those to `easy`, in a folder of today and of 0.4.2."""
    old_evaluation(tmp_path / "old", "pretrained=acme/big", [1.0, 0.0])
    own = tmp_path / "old" / "pretrained__acme__big_easy.jsonl"
    own.rename(own.with_name("pretrained__acme__big_arc_easy.jsonl"))
    path = evaluation(tmp_path / "new", tasks=("arc_easy",))
    path.write_text(path.read_text().replace("arc_easy", "easy"))

    output = results.read_output_folder(tmp_path / "new")

    assert [score.task for score in output.scores] == ["easy"]
    assert output.samples == {}
    with pytest.raises(BadInput, match="neither n-samples nor a samples file"):
        results.read_output_folder(tmp_path / "old")


def test_samples_of_another_date_are_not_taken(tmp_path):
    """Newer samples whose results are missing belong to no score of this folder."""
    evaluation(tmp_path)
    other = evaluation(tmp_path, name="2026-10-02T10-00-00.000001", values=(0.0,) * 4)
    other.unlink()

    output = results.read_output_folder(tmp_path)

    assert [answers["value"].tolist() for answers in output.answers] == [[1, 1, 0, 0]]
    assert output.problems == []


def test_a_score_that_its_samples_do_not_give_is_flagged(tmp_path):
    """The sentence has the score, the mean, and the number of samples."""
    path = evaluation(tmp_path)
    path.write_text(path.read_text().replace("0.5", "0.75"))

    (problem,) = scores(tmp_path)[1]

    assert problem.startswith("one: acc,none is 0.75 in the results file, and the mean of its 4 ")


def test_samples_that_were_cut_are_flagged(tmp_path):
    """In the middle of a character, and at the end of a line: the number of documents shows it."""
    evaluation(tmp_path, values=(1.0, 0.0, 1.0, 0.0))
    (path,) = tmp_path.glob("samples_*")
    data = path.read_bytes().replace(b'"q": 2', '"q": "é"'.encode())
    path.write_bytes(data[: data.index("é".encode()) + 1])

    broken, short = scores(tmp_path)[1]

    assert "1 lines are not samples" in broken
    assert short.startswith("one: its score is of 4 documents, and its samples hold 2.")


def test_samples_that_are_no_samples_of_a_score_are_flagged(tmp_path):
    """An empty file, and one with more documents than the score has."""
    evaluation(tmp_path / "empty")
    evaluation(tmp_path / "more")
    (empty,) = (tmp_path / "empty").glob("samples_*")
    (more,) = (tmp_path / "more").glob("samples_*")
    empty.write_bytes(b"")
    more.write_text(more.read_text() + more.read_text().replace('"doc_id": ', '"doc_id": 1'))

    (problem,) = scores(tmp_path / "empty")[1]
    assert "is empty, so one cannot be compared" in problem
    (problem, *_) = scores(tmp_path / "more")[1]
    assert "of 4 documents, and its samples hold 8. Do they belong to another" in problem


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("0.5", "50.0", "one is left out: acc,none is 50 in .* lies between 0 and 1"),
        ("0.5", "-0.5", "lies between 0 and 1"),
        (
            "acc,none",
            "acc",
            "names acc without a filter, where lm-eval since 0.4.0 writes acc,none",
        ),
        (
            '{"results"',
            '{"results": {}, "results"',
            "expected each key once, found 'results' twice",
        ),
    ],
)
def test_a_file_of_another_tool_is_left_out_in_a_sentence(tmp_path, old, new, says):
    """Percent, names without filters as of lm-eval 0.3 and lighteval, a key twice."""
    path = evaluation(tmp_path)
    path.write_text(path.read_text().replace(old, new))

    with pytest.raises(BadInput, match=says):
        scores(tmp_path)


def test_a_models_name_is_one_line_that_can_be_shown(tmp_path):
    """A line end or a sign that turns the writing round would change the tables around it."""
    evaluation(tmp_path, model="x")
    (path,) = tmp_path.glob("results_*")
    path.write_text(path.read_text().replace('"model_name": "x"', '"model_name": "a\\u202eb\\nc"'))

    assert evaluations.model_name(results.read_output_folder(tmp_path).about) == "a?b?c"


def test_a_document_that_stands_twice_is_flagged(tmp_path):
    """A file that two evaluations wrote to at once."""
    evaluation(tmp_path)
    (path,) = tmp_path.glob("samples_*")
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[0])

    assert any("1 documents stand twice in its samples" in said for said in scores(tmp_path)[1])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_that_another_program_saved_again_are_read(tmp_path, encoding):
    """With a byte order mark, in two bytes a character, with Windows line ends."""
    evaluation(tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        text = path.read_text("utf-8").replace("\n", "\r\n")
        path.write_bytes(text.encode(encoding))
        assert path.read_bytes().startswith((codecs.BOM_UTF8, codecs.BOM_UTF16))

    output = results.read_output_folder(tmp_path / "out")

    assert output.problems == []
    assert len(output.samples["one"]) == 4


def test_a_results_file_may_have_any_name(tmp_path):
    """`--output_path out.json` names it, and a person may name the file itself."""
    path = evaluation(tmp_path)
    date = path.stem.partition("_")[2]
    renamed = path.rename(tmp_path / f"out_{date}.json")
    (tmp_path / "notes.json").write_text('{"results": {"acc": 1}}')

    for given in (tmp_path, renamed):
        output = results.read_output_folder(given)
        assert (len(output.scores), len(output.answers)) == (1, 1)


def test_an_adapter_is_named_and_not_its_base(tmp_path):
    """lm-eval's order: peft, delta, pretrained."""
    evaluation(
        tmp_path, model_name=None, config={"model_args": "pretrained=acme/big,peft=acme/fine"}
    )

    assert import_run.evaluations.model_name(results.read_output_folder(tmp_path).about) == (
        "acme/fine"
    )


def test_a_part_of_a_path_that_no_file_has_is_refused(tmp_path):
    """The sentence lists the files that there are."""
    evaluation(tmp_path)

    with pytest.raises(BadInput, match=r"No results file has 'small' in its path. There is resul"):
        scores(tmp_path, only="small")


def test_the_filter_is_in_the_record_and_in_the_name(tmp_path, store_root):
    """A metric behind a filter is named with it, alone or beside another."""
    evaluation(tmp_path, metric="exact_match", filter_name="strict-match")

    run_id, _ = import_run.import_folder(store_root, tmp_path, "strict")

    (score,) = disk.load(store_root, run_id).capability.scores
    assert (score.metric, score.filter) == ("exact_match,strict-match", "strict-match")
    answers = disk.load_answers(store_root, run_id)
    assert set(answers["metric"]) == {"exact_match,strict-match"}


def test_a_system_prompt_is_a_condition_of_a_score(tmp_path, store_root):
    """The same model with and without one is not compared: the reason has both."""
    plain, prompted = evaluation(tmp_path / "a"), evaluation(tmp_path / "b")
    document = json.loads(prompted.read_text()) | {"system_instruction": "Be brief."}
    prompted.write_text(json.dumps(document))

    ids = [import_run.import_folder(store_root, f.parent, "x")[0] for f in (plain, prompted)]

    (one,), (other,) = (frames.score_rows(disk.load(store_root, run_id)) for run_id in ids)
    assert one["chat_template"] == "off"
    assert other["chat_template"].startswith("off with system prompt ")
