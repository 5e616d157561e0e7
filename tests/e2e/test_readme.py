"""What the README tells a newcomer to type works."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from explorer.specs import RunSpec, SweepSpec

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of a language."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)
    assert found, f"the README has no {language} block"
    return found


def commands() -> list[list[str]]:
    """Every command line of the README, in words."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run(*words: str) -> str:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr or done.stdout}"
    return done.stdout


def test_the_readme_names_the_commands_of_a_newcomer():
    """The dashboard, the demo and the tests are one command each."""
    assert {"make app", "make demo", "make test"} <= {" ".join(words) for words in commands()}


def test_the_ci_workflow_runs_what_the_readme_promises():
    """A public forge runs the checks, the tests and the demo, and opens the installed dashboard."""
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    steps = [step for job in yaml.safe_load(text)["jobs"].values() for step in job["steps"]]
    script = "\n".join(step["run"] for step in steps if "run" in step)

    for command in ("make check test", "make long", "python -m build", "explorer app"):
        assert command in script


def test_make_help_lists_what_the_readme_uses():
    """`make help` names every target of the README, each with what it is for."""
    targets = re.findall(r"^  make ([a-z-]+) +\S", run("make", "help"), re.M)

    used = {words[1] for words in commands() if words[0] == "make"}

    assert used
    assert used <= set(targets)


@pytest.mark.parametrize("words", commands(), ids=shlex.join)
def test_command_exists(words):
    """Each command line of the README names a target, or a command with these options."""
    if words[0] == "make":
        run("make", "--dry-run", *words[1:])
        return
    assert words[0] == ".venv/bin/explorer", f"the README should not need {words[0]}"
    listed = run(sys.executable, "-m", "explorer", words[1], "--help")
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert options <= set(re.findall(r"--[a-z-]+", listed))


@pytest.mark.parametrize("text", blocks("yaml"))
def test_spec_is_valid(text):
    """A spec that is copied from the README is accepted as it stands."""
    kind = SweepSpec if "students" in yaml.safe_load(text) else RunSpec

    assert kind.from_yaml(text, "README.md").teacher


def test_format_of_an_export_is_offered():
    """Every format that the README promises is one that `explorer export` writes."""
    help_text = run(sys.executable, "-m", "explorer", "export", "--help")

    for name in ("csv", "xlsx", "parquet", "md", "latex", "json"):
        assert re.search(rf"\b{name}\b", help_text), name
