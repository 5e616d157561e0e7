"""Code runs only if this user allowed its bytes: explorer trust, the digests, the import."""

import importlib.util
import json
import os
import py_compile
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from explorer.cli import app
from explorer.consent import trust
from explorer.errors import BadInput, CodeNotAllowed
from explorer.models import check, loading, own_code
from explorer.pipeline import preflight
from explorer.specs import RunSpec
from explorer.tasks import code_policy, task_loading
from tests import task_with_code

MODEL = """
import pathlib

from transformers import LlamaConfig, LlamaForCausalLM

pathlib.Path("RAN").write_text("MARK", encoding="utf-8")


class OwnConfig(LlamaConfig):
    model_type = "own_kind"


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def folder(tmp_path, allow_code):
    """A task folder whose module leaves ran.txt beside it; nothing is allowed."""
    allow_code()
    made = task_with_code.write(tmp_path / "tasks")
    (made / "notes.txt").write_text("data", encoding="utf-8")
    return made


@pytest.fixture
def model(tiny_llama, tmp_path, monkeypatch, allow_code):
    """A model's folder with code of its own, which leaves ran.txt; nothing is allowed."""
    allow_code()
    cache = tmp_path / "modules"
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(cache))
    made = shutil.copytree(tiny_llama(num_layers=2), tmp_path / "model")
    ran = tmp_path / "ran.txt"
    text = MODEL.replace("RAN", str(ran))
    (made / "modeling_own.py").write_text(text, encoding="utf-8")
    classes = {"AutoConfig": "OwnConfig", "AutoModelForCausalLM": "OwnForCausalLM"}
    auto_map = {auto: f"modeling_own.{name}" for auto, name in classes.items()}
    _configure(made, model_type="own_kind", auto_map=auto_map)
    return made


def _configure(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values), encoding="utf-8")


def explorer(*arguments, **options):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)


def load(folder):
    return task_loading.load_tasks(["quiz"], str(folder))["quiz"]


def refused(folder):
    """The refusal of the check and of loading, alike; nothing has run."""
    for act in (task_loading.check_tasks, task_loading.load_tasks):
        with pytest.raises(CodeNotAllowed) as error:
            act(["quiz"], str(folder))
    assert not (folder / "ran.txt").exists()
    return str(error.value)


def test_a_task_runs_its_code_only_after_explorer_trust(folder):
    """The sentence names the command; the command shows files, sizes and digests, and asks."""
    path = folder / "quiz.yaml"
    assert f"explorer trust {path}" in refused(folder)

    said = explorer("trust", path, input="n\n")
    assert said.exit_code == 1
    assert "Nothing was allowed" in said.output
    for file in (path, folder / "quiz_code.py"):
        item = trust.CodeFile.of(file)
        assert f"{item.sha256}  {item.num_bytes:>9,} bytes  {file}" in said.output
    refused(folder)
    assert explorer("trust", path, input="y\n").exit_code == 0

    assert load(folder).eval_docs[0]["question"] == "q"
    assert (folder / "ran.txt").exists()


def test_without_an_answer_nothing_is_allowed(folder):
    """A script has to say --yes."""
    said = explorer("trust", folder)
    assert isinstance(said.exception, BadInput)
    assert "add --yes" in str(said.exception)
    refused(folder)

    assert explorer("trust", folder, "--yes").exit_code == 0
    assert load(folder)


@pytest.mark.parametrize("changed", ["quiz.yaml", "quiz_code.py", "base.yaml", "beside.py"])
@pytest.mark.parametrize("how", ["command", "configuration"])
def test_a_file_that_changes_asks_again(folder, changed, how, allow_code):
    """The task, its module, what it includes, what the module may import; and so does a new file.

    A folder that the configuration lists counts as it was when it was first used.
    """
    (folder / "base.yaml").write_text("description: a\n", encoding="utf-8")
    with (folder / "quiz.yaml").open("a", encoding="utf-8") as file:
        file.write("include: base.yaml\n")
    if changed != "beside.py":
        (folder / "beside.py").write_text("x = 1\n", encoding="utf-8")
    if how == "command":
        assert explorer("trust", folder, "--yes").exit_code == 0
    else:
        allow_code(folder)
    assert load(folder)
    (folder / "ran.txt").unlink()

    with (folder / changed).open("a", encoding="utf-8") as file:
        file.write("# another line\n")

    said = refused(folder)
    assert f"{changed} {'is new' if changed == 'beside.py' else 'has changed'} since" in said
    assert explorer("trust", folder, "--yes").exit_code == 0
    assert load(folder)


def test_what_is_allowed_is_listed_and_taken_back(folder, tmp_path):
    """`explorer trust` alone lists; --remove takes back; a second time is a sentence."""
    assert "No code is allowed" in explorer("trust").output
    explorer("trust", folder, "--yes")
    assert f"{folder}: 2 files, allowed on 20" in explorer("trust", "--list").output

    assert explorer("trust", folder, "--remove").exit_code == 0
    refused(folder)
    gone = explorer("trust", folder, "--remove")
    assert "is not among the allowed sources" in str(gone.exception)
    assert "no file or folder" in str(explorer("trust", tmp_path / "gone").exception)
    assert "Name the source" in str(explorer("trust", "--yes").exception)


def test_a_line_that_is_taken_out_of_the_configuration_takes_its_permission_with_it(
    folder, allow_code
):
    """What was noted at the first use counts only while the folder is listed."""
    allow_code(folder)
    assert load(folder)
    (folder / "ran.txt").unlink()
    allow_code()

    refused(folder)


def test_data_is_not_part_of_a_permission(folder):
    """Questions may change without a question."""
    explorer("trust", folder, "--yes")
    (folder / "notes.txt").write_text("other data", encoding="utf-8")

    assert load(folder)


def test_a_compiled_copy_of_other_code_does_not_run(folder):
    """Python would take a .pyc with the time and size of the source; we run the source."""
    explorer("trust", folder, "--yes")
    source = folder / "quiz_code.py"
    stat, own = source.stat(), source.read_text(encoding="utf-8")
    source.write_text(own.replace("MARK", "EVIL"), encoding="utf-8")
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    cached = Path(importlib.util.cache_from_source(str(source)))
    py_compile.compile(str(source), cfile=str(cached))
    source.write_text(own, encoding="utf-8")
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert load(folder)
    assert (folder / "ran.txt").read_text(encoding="utf-8") == "MARK"


def test_permissions_in_the_store_are_refused(folder, store_root, monkeypatch):
    """Whoever writes into a store could otherwise allow their own code."""
    explorer("trust", folder, "--yes")
    shutil.copy(trust.trust_file(), store_root / trust.FILE)
    monkeypatch.setenv("EXPLORER_CONFIG", str(store_root / "config.yaml"))

    with pytest.raises(BadInput, match="lies in the store"):
        task_loading.load_tasks(["quiz"], str(folder))
    assert not (folder / "ran.txt").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sources": 3}', '{"sources": {"/x": {}}}'])
def test_a_damaged_list_of_permissions_allows_nothing(folder, text):
    """One sentence names the file; tasks that ship need no list."""
    explorer("trust", folder, "--yes")
    trust.trust_file().write_text(text, encoding="utf-8")

    with pytest.raises(BadInput, match=r"trusted\.json"):
        task_loading.load_tasks(["quiz"], str(folder))
    assert not (folder / "ran.txt").exists()
    assert task_loading.load_tasks(["starter_facts"])


def test_a_permission_covers_no_more_than_it_shows(folder, tmp_path):
    """A task file allows no other task file beside it, and a link in a folder not its target."""
    explorer("trust", folder / "quiz.yaml", "--yes")
    other = (folder / "quiz.yaml").read_text(encoding="utf-8").replace("quiz\n", "other\n")
    (folder / "other.yaml").write_text(other + "description: x\n", encoding="utf-8")
    with pytest.raises(CodeNotAllowed):
        code_policy.refuse_code(folder / "other.yaml")

    elsewhere = tmp_path / "elsewhere.py"
    elsewhere.write_text("y = 2\n", encoding="utf-8")
    (folder / "linked.py").symlink_to(elsewhere)
    assert elsewhere not in [path.resolve() for path in trust.code_below(folder)]


def test_a_model_runs_its_code_only_with_the_flag_and_the_permission(model, tmp_path):
    """The spec's flag alone is not enough: each reader refuses, and nothing has run."""
    ran = tmp_path / "ran.txt"
    readers = (loading.load, loading.load_tokenizer, loading.load_config, check.check_model)
    for read in readers:
        with pytest.raises(CodeNotAllowed, match=r"modeling_own\.py.*explorer trust .*model"):
            read(str(model), trust_remote_code=True)
    spec = RunSpec(teacher=str(model), trust_remote_code=True, capability=None)
    found = preflight.findings([spec], tmp_path / "results", "quick")
    assert [finding.as_dict()["source"] for finding in found if finding.error] == [str(model)]
    assert not ran.exists()

    said = explorer("trust", model, "--yes")
    assert str(model / "modeling_own.py") in said.output
    assert "config.json" not in said.output
    assert type(loading.load(str(model), trust_remote_code=True).model).__name__ == "OwnForCausalLM"
    assert ran.exists()


def test_a_model_whose_code_changes_asks_again(model, tmp_path):
    """Also where transformers has a copy of the code from before."""
    explorer("trust", model, "--yes")
    assert loading.load_config(str(model), trust_remote_code=True)
    (tmp_path / "ran.txt").unlink()
    with (model / "modeling_own.py").open("a", encoding="utf-8") as file:
        file.write("\n# changed\n")

    with pytest.raises(CodeNotAllowed, match="has changed since you allowed it on 20"):
        loading.load_config(str(model), trust_remote_code=True)
    assert not (tmp_path / "ran.txt").exists()


def test_the_same_code_elsewhere_is_allowed_and_other_code_beside_it_is_not(model, tmp_path):
    """A student in a store keeps its teacher's code; a file that is added to it asks."""
    explorer("trust", model, "--yes")
    student = shutil.copytree(model, tmp_path / "student")
    assert loading.load_config(str(student), trust_remote_code=True)

    (student / "more.py").write_text("print('more')\n", encoding="utf-8")
    with pytest.raises(CodeNotAllowed, match=r"more\.py"):
        loading.load_config(str(student), trust_remote_code=True)


def test_code_that_a_configuration_takes_from_another_repository_asks_as_well(
    model, tmp_path, monkeypatch
):
    """It is refused when transformers is about to import it, wherever it was fetched from."""
    from transformers import dynamic_module_utils

    other = tmp_path / "modules" / "transformers_modules" / "org" / "other"
    other.mkdir(parents=True)
    (other / "code.py").write_text((model / "modeling_own.py").read_text(), encoding="utf-8")
    classes = {"AutoConfig": "org/other--code.OwnConfig"}
    _configure(model, auto_map=classes)
    (model / "modeling_own.py").unlink()
    cached = "transformers_modules/org/other/code.py"
    monkeypatch.setattr(
        dynamic_module_utils, "get_cached_module_file", lambda *names, **options: cached
    )

    assert own_code.other_repositories(model) == ["org/other"]
    with pytest.raises(CodeNotAllowed, match=rf"code\.py.*explorer trust {other}"):
        loading.load_config(str(model), trust_remote_code=True)
    assert not (tmp_path / "ran.txt").exists()


def test_a_chat_template_reaches_into_nothing(tiny_llama, tmp_path):
    """A model brings its template; it renders in a sandbox and runs nothing."""
    folder = shutil.copytree(tiny_llama(num_layers=2), tmp_path / "model")
    template = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    tokenizer = loading.load_tokenizer(str(folder))
    assert tokenizer.chat_template == template

    with pytest.raises(Exception, match="unsafe"):
        tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)


def test_a_file_that_never_ends_is_no_code(folder):
    """A pipe or a device among the files of a folder is left out, not waited for."""
    os.mkfifo(folder / "pipe.py")
    (folder / "endless.py").symlink_to("/dev/zero")

    assert explorer("trust", folder, "--yes").exit_code == 0
    assert not trust.allowed(folder / "pipe.py")
