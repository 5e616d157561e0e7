"""Code in task files: what is refused before it runs, what may run, and what is sandboxed."""

import json
from pathlib import Path

import jinja2
import jinja2.meta
import pytest
import yaml
from typer.testing import CliRunner

from explorer.cli import app
from explorer.errors import BadInput
from explorer.tasks import code_policy, custom, index, render_prompts, safe_loading, task_loading

ROOT = Path(__file__).parents[2]
EVIL = """
import pathlib
pathlib.Path(__file__).parents[1].joinpath("ran.txt").write_text("it ran")


def load(**options):
    return {}


class Task:
    pass
"""
TASK = {
    "task": "t",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": ["a", "b"],
    "doc_to_target": 0,
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


@pytest.fixture
def folder(tmp_path):
    """A task folder that is not allowed; its module leaves ran.txt beside the folder."""
    made = tmp_path / "evil"
    made.mkdir()
    (made / "evil.py").write_text(EVIL, encoding="utf-8")
    (made / "q.jsonl").write_text('{"question": "q"}\n', encoding="utf-8")
    return made


def data(folder):
    return {"dataset_kwargs": {"data_files": {"test": str(folder / "q.jsonl")}}}


def write(folder, more="", name="t", **changes):
    """A task of plain data, with keys changed and lines added as they are."""
    config = TASK | data(folder) | {"task": name} | changes
    added = {line.partition(":")[0] for line in more.splitlines()}
    text = yaml.safe_dump(
        {key: value for key, value in config.items() if value is not None and key not in added}
    )
    (folder / f"{name}.yaml").write_text(text + more, encoding="utf-8")


def refused(folder, *says, name="t", ran=None):
    """The refusals of the check before a run, of loading, and of the command, all alike."""
    for act in (task_loading.check_tasks, task_loading.load_tasks):
        with pytest.raises(BadInput) as error:
            act([name], str(folder))
        for part in says:
            assert part in str(error.value)
        assert "\n" not in str(error.value)
    assert not (ran or folder.parent / "ran.txt").exists()


FUNCTIONS = {
    "custom_dataset": "custom_dataset: !function evil.load\n",
    "process_docs": "process_docs: !function evil.load\n",
    "process_results": "process_results: !function evil.load\n",
    "doc_to_text": "doc_to_text: !function evil.load\n",
    "class": "class: !function evil.Task\n",
    "metric": "metric_list:\n- metric: !function evil.load\n",
    "aggregation": "metric_list:\n- {metric: acc, aggregation: !function evil.load}\n",
    "filter": "filter_list:\n- name: n\n  filter:\n  - {function: custom, "
    "filter_fn: !function evil.load}\n",
    "sampler": "fewshot_config:\n  sampler: !function evil.Task\n",
    "samples": "fewshot_config:\n  samples: !function evil.load\n",
    "metadata": "metadata: {deep: [{down: !function evil.load}]}\n",
}


@pytest.mark.parametrize("lines", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function_of_a_task_file_is_not_imported(folder, lines, allow_code):
    """Wherever the file names it; the sentence says what, where, and the command that asks."""
    write(folder, lines)
    allow_code()

    path = str(folder / "t.yaml")
    refused(folder, "would run Python code", "evil.", path, f"explorer trust {path}")


def test_a_key_that_stands_twice_is_refused_before_its_function(folder):
    """lm-eval would import the first value's function and use the second value."""
    write(folder, "gen_prefix: !function evil.load\ngen_prefix: plain\n")

    refused(folder, "expected each key once, found 'gen_prefix' again")


def test_a_function_of_an_included_file_is_not_imported(folder):
    """Also where the including file overrides it, and where the ending hides it."""
    (folder / "base_yaml").write_text("doc_to_text: !function evil.load\n", encoding="utf-8")
    write(folder, "include: base_yaml\n")

    refused(folder, "the function evil.load", "base_yaml")


def test_a_function_inside_a_group_is_not_imported(folder):
    """Of an inline task, of a task that the group changes, and of a group within the group."""
    write(folder)
    for number, member in enumerate(
        (
            "- task: inline\n  process_docs: !function evil.load\n",
            "- task: t\n  process_docs: !function evil.load\n",
            "- group: inner\n  task:\n  - task: deep\n    process_docs: !function evil.load\n",
        )
    ):
        name = f"g{number}"
        (folder / f"{name}.yaml").write_text(f"group: {name}\ntask:\n{member}", encoding="utf-8")
        refused(folder, "the function evil.load", name=name)


@pytest.mark.parametrize(
    "function", ["os.system", "lm_eval.tasks._yaml_loader._import_fun_from_str", "this.s"]
)
def test_an_installed_function_needs_an_allowed_file_as_well(folder, function):
    """A file that may not run code cannot borrow code that is installed."""
    path = {"path_str": f"{folder / 'evil.py'}.load"}
    write(folder, f"custom_dataset: !function {function}\n", dataset_kwargs=path)

    refused(folder, f"the function {function}")


def test_tasks_of_lm_eval_lend_their_functions_to_no_other_file(folder):
    """Some of them load tokenizers with code of their own, at a path that the file gives."""
    theirs = code_policy.lm_eval_folder() / "hellaswag" / "hellaswag.yaml"
    write(folder, f"include: {theirs}\n")

    refused(folder, "the function utils.process_docs", str(folder / "t.yaml"))


PLAIN_KEYS = {
    "the Python class": {"class": "evil.Task"},
    "trust_remote_code": {"dataset_kwargs": {"trust_remote_code": True}},
    "the dataset 'pandas'": {"dataset_path": "pandas"},
    "which is a script": {"dataset_path": "{folder}/evil.py"},
    "which holds evil.py": {"dataset_path": "{folder}"},
    "the dataset 'hf::x'": {"dataset_path": "hf::x"},
    "the data file reference::": {"dataset_kwargs": {"data_files": "reference::{folder}/x"}},
    "the data file {folder}/x.pkl": {"dataset_kwargs": {"data_files": ["{folder}/x.pkl"]}},
    "the option storage_options": {"dataset_kwargs": {"storage_options": {"a": 1}}},
    "the metric '{folder}/evil.py'": {"metric_list": [{"metric": "{folder}/evil.py"}]},
    "the metric 'code_eval'": {"metric_list": [{"metric": "code_eval"}]},
    "hf_evaluate": {"metric_list": [{"metric": "acc", "hf_evaluate": True}]},
    "prompts from elsewhere": {"use_prompt": "{folder}/prompts.yaml:p"},
    "custom_generate": {"generation_kwargs": {"custom_generate": "{folder}"}},
    "__subclasses__": {"doc_to_text": "{{ ''.__class__.__mro__[1].__subclasses__() }}"},
    "__init__": {"description": "{% set a = cycler.__init__ %}{{ a.__globals__.os }}"},
    "__globals__": {"doc_to_choice": ["{{ lipsum['__globals__'] }}", "b"]},
    "__base__": {"gen_prefix": "{{ 1|attr('__base__') }}"},
}


@pytest.mark.parametrize("says", PLAIN_KEYS)
def test_what_runs_code_without_a_function_is_refused(folder, says):
    """Scripts, pickles, metrics of the evaluate library, templates that reach into Python."""

    def filled(value):
        return json.loads(json.dumps(value).replace("{folder}", str(folder)))

    write(folder, **filled(PLAIN_KEYS[says]))
    expected = says.replace("{folder}", str(folder))
    with pytest.raises(BadInput) as error:
        task_loading.load_tasks(["t"], str(folder))

    assert expected in str(error.value)
    assert f"explorer trust {folder / 't.yaml'}" in str(error.value)
    assert not (folder.parent / "ran.txt").exists()
    # A group may not bring it to its tasks either.
    changes = yaml.safe_dump([{"task": "plain", **filled(PLAIN_KEYS[says])}])
    (folder / "t.yaml").unlink()
    write(folder, name="plain")
    (folder / "g.yaml").write_text(f"group: g\ntask:\n{changes}", encoding="utf-8")
    with pytest.raises(BadInput, match="explorer trust"):
        task_loading.load_tasks(["g"], str(folder))


def test_a_template_that_hides_what_it_reaches_meets_the_sandbox(folder):
    """It is refused when it is rendered, in a sentence that names the task's file."""
    write(folder, doc_to_text="{{ (''|attr('_'~'_class_'~'_')).mro() }}")

    with pytest.raises(BadInput, match=r"template in .*t\.yaml reaches into Python") as error:
        task_loading.load_tasks(["t"], str(folder))
    assert "\n" not in str(error.value)


def test_a_template_cannot_call_what_writes_files():
    """Of a document's values only plain ones are open: a picture could save itself anywhere."""
    with pytest.raises(BadInput, match="reaches into Python"):
        safe_loading.apply_template("{{ p.write_text('x') }}", {"p": Path("never")})
    with pytest.raises(BadInput, match="reaches into Python"):
        safe_loading.apply_template("{{ l.append(1) }}", {"l": []})
    assert safe_loading.apply_template("{{ d.a.upper() }}", {"d": {"a": "b"}}) == "B"


def test_a_listed_folder_may_run_code(folder, allow_code):
    """Its functions are imported, its templates may reach into Python."""
    evil = (folder / "evil.py").read_text(encoding="utf-8")
    text = "def prompt(doc):\n    return doc['question'] + '!'\n"
    (folder / "evil.py").write_text(evil + text, encoding="utf-8")
    write(folder, "doc_to_text: !function evil.prompt\n", doc_to_text=None)
    write(folder, name="reaching", doc_to_text="{{ question.__class__.__name__ }}")
    allow_code(folder)

    assert render_prompts.render_preview("t", str(folder)).questions[0].prompt == "q!"
    assert (folder.parent / "ran.txt").exists()
    assert render_prompts.render_preview("reaching", str(folder)).questions[0].prompt == "str"


def test_a_listed_folder_works_from_the_command(allow_code, known_tasks):
    """`explorer tasks preview` shows the prompts of tests/tasks, and refuses it unlisted."""
    tasks = ROOT / "tests" / "tasks"
    command = ["tasks", "preview", "tiny_pairs", "--include-path", str(tasks)]

    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0
    assert "item 0 is fine" in shown.output
    allow_code()
    unlisted = CliRunner().invoke(app, command)
    assert isinstance(unlisted.exception, BadInput)
    assert f"explorer trust {tasks / 'tiny_pairs.yaml'}" in str(unlisted.exception)


def test_links_and_dots_do_not_lead_out_of_a_listed_folder(folder, tmp_path, allow_code):
    """What is allowed is the file that holds the code, after links and dots are followed."""
    listed = tmp_path / "listed"
    listed.mkdir()
    allow_code(listed)
    ran = tmp_path / "ran.txt"
    write(folder, "custom_dataset: !function evil.load\n")
    (listed / "t.yaml").symlink_to(folder / "t.yaml")
    refused(listed, "the function evil.load", str(folder / "t.yaml"), ran=ran)
    refused(listed / ".." / "evil", "the function evil.load", ran=ran)

    (listed / "t.yaml").unlink()
    write(listed, f"include: {folder / 't.yaml'}\n")
    refused(listed, "the function evil.load", str(folder / "t.yaml"), ran=ran)
    (listed / "evil.py").symlink_to(folder / "evil.py")
    write(listed, "custom_dataset: !function evil.load\n")
    refused(listed, "the function evil.load", str(folder / "evil.py"), ran=ran)


def test_a_package_beside_the_command_has_to_be_listed(folder, tmp_path, monkeypatch, allow_code):
    """An allowed task file may import what is installed, not what lies in the working folder."""
    package = tmp_path / "beside"
    package.mkdir()
    (package / "evil.py").write_text(EVIL, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    write(folder, "custom_dataset: !function beside.evil.load\n")
    allow_code(folder)

    refused(folder, "the function beside.evil.load", str(package))


def test_one_listed_file_allows_nothing_beside_it(folder, allow_code):
    """A module has to be listed like the task file that names it."""
    write(folder, "custom_dataset: !function evil.load\n")
    allow_code(folder / "t.yaml")

    refused(folder, str(folder / "evil.py"))
    allow_code(folder / "t.yaml", folder / "evil.py")
    task_loading.check_tasks(["t"], str(folder))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("allowed_task_cod: []\n", "unknown key allowed_task_cod; did you mean allowed_task_code"),
        ("allowed_task_code: [tasks]\n", "absolute paths, or paths that start with ~; 'tasks'"),
        ("allowed_task_code: /tasks\n", "allowed_task_code should be"),
        ("- x\n", "should be a mapping"),
        ("a: [\n", "expected YAML"),
    ],
)
def test_a_broken_configuration_allows_nothing(folder, allow_code, text, says):
    """One sentence says what is wrong with which file; shipped tasks need no configuration."""
    configuration = allow_code()
    configuration.write_text(text, encoding="utf-8")
    write(folder, "custom_dataset: !function evil.load\n")

    refused(folder, says, str(configuration))
    assert task_loading.load_tasks(["starter_facts"])


def test_the_doctor_says_where_the_configuration_is_and_whether_it_reads(tmp_path, allow_code):
    """Its path, what it lists, folders that are not there, or the sentence on what is wrong."""

    def doctor():
        return CliRunner().invoke(app, ["doctor"]).output

    path = allow_code(tmp_path, task_folders=(tmp_path, tmp_path / "gone"))
    said = doctor()
    assert f"{path}: 2 task folders, 1 places" in said
    assert f"not there: {tmp_path / 'gone'}" in said
    path.write_text("allowed: []\n", encoding="utf-8")
    assert "unknown key allowed;" in doctor()
    path.unlink()
    assert f"{path} is not there" in doctor()


def test_a_configuration_in_the_store_is_refused(folder, store_root, monkeypatch):
    """Whoever writes into a store could otherwise allow their own code."""
    path = store_root / "config.yaml"
    path.write_text(f"allowed_task_code: [{folder}]\n", encoding="utf-8")
    monkeypatch.setenv("EXPLORER_CONFIG", str(path))
    write(folder, "custom_dataset: !function evil.load\n")

    refused(folder, "lies in the store", "EXPLORER_CONFIG")


def test_plain_tasks_need_no_configuration(folder, monkeypatch):
    """Data and plain templates of any folder are asked as before."""
    monkeypatch.setenv("EXPLORER_CONFIG", str(folder / "nowhere.yaml"))
    write(folder, metadata={"version": 1.0, "class": "of words"})
    write(folder, "include: t.yaml\n", name="t2")
    members = "- {task: t, num_fewshot: 0}\n- t2\n- {task: starter_facts, num_fewshot: 1}\n"
    (folder / "g.yaml").write_text(f"group: g\ntask:\n{members}", encoding="utf-8")

    task_loading.check_tasks(["g"], str(folder))
    assert list(task_loading.load_tasks(["g"], str(folder))) == ["t", "t2", "starter_facts"]


def test_a_group_elsewhere_cannot_change_a_task_that_ships(folder):
    """It would be another task under the same name."""
    for number, item in enumerate(
        (
            "{task: starter_facts, doc_to_text: x}",
            "{task: starter_facts, metadata: {version: 9}}",
            "{group: starter, doc_to_text: x}",
        )
    ):
        name = f"g{number}"
        text = f"group: {name}\ntask:\n- {item}\n"
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(BadInput, match=r"changes \w+ of the task starter\w*, which is not its"):
            task_loading.load_tasks([name], str(folder))


def test_a_name_that_ships_is_never_replaced(folder, store_root, known_tasks):
    """Tasks, groups and tags of ours and of lm-eval's: the other file is left out, and named."""
    ours = custom.add_task("mine", [{"prompt": "p", "target": "x"}], origin="q.csv")
    for name in ("piqa", "starter_facts"):
        text = ours.read_text(encoding="utf-8").replace("task: mine", f"task: {name}")
        ours.with_name(f"{name}.yaml").write_text(text, encoding="utf-8")
    (ours.parent / "mmlu.yaml").write_text("group: mmlu\ntask: [mine]\n", encoding="utf-8")
    (ours.parent / "tagged.yaml").write_text(
        ours.read_text(encoding="utf-8").replace("task: mine", "task: tagged\ntag: ai2_arc"),
        encoding="utf-8",
    )

    found = index.build_index()
    assert code_policy.is_shipped(Path(found.rows["piqa"].source))
    assert len(found.leaves("mmlu")) == 57
    assert [row.name for row in found.leaves("ai2_arc")] == ["arc_challenge", "arc_easy"]
    assert "tagged" in found.rows
    said = [problem for problem in found.problems if str(ours.with_name("piqa.yaml")) in problem]
    assert said == [
        f"{ours.with_name('piqa.yaml')} defines 'piqa', which is a name of lm-eval's. "
        "It is left out: rename it."
    ]
    assert len(task_loading.load_tasks(["starter_facts"])["starter_facts"].eval_docs) == 328
    with pytest.raises(BadInput, match=r"defines 'starter_facts', which is a name of ours"):
        task_loading.load_task("starter_facts", None, str(ours.with_name("starter_facts.yaml")))
    # A folder that was given for the run was meant: it is not silently passed over.
    write(folder, name="starter_facts")
    for act in (task_loading.check_tasks, task_loading.load_tasks):
        with pytest.raises(BadInput, match=r"evil/starter_facts\.yaml defines 'starter_facts'"):
            act(["starter"], str(folder))


def test_a_task_of_ones_own_cannot_take_a_name_that_ships():
    """Not even to replace a file of that name."""
    documents = [{"prompt": "p", "target": "x"}]
    with pytest.raises(BadInput, match="has a task 'piqa'"):
        custom.add_task("piqa", documents, origin="q.csv", replace=True)


def test_the_loader_of_ones_own_tasks_is_ours_whatever_lies_there(store_root):
    """A changed copy in the store is refused; an exact copy is not what runs."""
    custom.add_task("mine", [{"prompt": "p", "target": "x"}], origin="q.csv")
    assert len(task_loading.load_tasks(["mine"])["mine"].eval_docs) == 1

    copy = store_root / ".tasks" / "data.py"
    ran = store_root / "ran.txt"
    changed = f"import pathlib; pathlib.Path({str(ran)!r}).touch()\n"
    copy.write_text(changed + copy.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(BadInput, match=r"the function data\.load of .*data\.py"):
        task_loading.load_tasks(["mine"])
    assert not ran.exists()


def names_of_lm_eval():
    """Every fifteenth task file of lm-eval, all of ours."""
    files = sorted(code_policy.lm_eval_folder().glob("**/*.yaml"))
    assert len(files) > 10_000
    return [*files[::15], *code_policy.SHIPPED.glob("*.yaml")]


def test_templates_render_in_the_sandbox_as_without_it():
    """Those of our tasks and of lm-eval's, on documents of several shapes, errors included."""
    values = ["A text. And more", 1, ["a", "b", "c"], {"text": ["x", "y"], "label": [0, 1]}, None]
    plain = safe_loading.PLAIN

    def rendered(render):
        try:
            return render()
        except Exception as error:
            return type(error)

    seen = set()
    for path in names_of_lm_eval():
        for template in set(code_policy.jinja_templates(path)) - seen:
            seen.add(template)
            names = jinja2.meta.find_undeclared_variables(plain.parse(template))
            for value in values:
                document = dict.fromkeys(names, value)
                expected = rendered(lambda t=template, d=document: plain.from_string(t).render(**d))
                assert (
                    rendered(lambda t=template, d=document: safe_loading.apply_template(t, d))
                    == expected
                ), template
    assert len(seen) > 200
