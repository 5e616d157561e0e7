"""CONTRIBUTING.md's recipes work as written: two are followed in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
PLACE = re.compile(
    r"(?:# |<!-- )(?P<path>\S+?)"
    r"(?: \((?P<new>new)\)|, (?P<side>before|after) (?P<line>.+?))(?: -->)?"
)


def recipe(title: str) -> list[tuple[str, str]]:
    """Language and text of each block of a recipe, in order."""
    section = re.search(rf"^### {title}\n(.*?)(?=^###? |\Z)", CONTRIBUTING, re.M | re.S)
    assert section, f"CONTRIBUTING.md has no recipe: {title}"
    return BLOCK.findall(section[1])


def apply(block: str, folder: Path) -> None:
    """Put a block of a recipe where its first line says."""
    first, _, text = block.partition("\n")
    place = PLACE.fullmatch(first)
    assert place, f"the first line should say where the block goes: {first}"
    path = folder / place["path"]
    if place["new"]:
        assert not path.exists(), f"{place['path']} exists already"
        path.write_text(text, encoding="utf-8")
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    found = [n for n, line in enumerate(lines) if line.strip().startswith(place["line"])]
    assert len(found) == 1, f"{len(found)} lines of {place['path']} begin with: {place['line']}"
    lines.insert(found[0] + (place["side"] == "after"), text)
    path.write_text("".join(lines), encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what Git tracks, without the results, which are linked."""
    folder = tmp_path / "project"
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if not name.startswith("results/") and source.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
    (folder / "results").symlink_to(ROOT / "results")
    return folder


@pytest.mark.parametrize("title", ["Add a loss", "Add a chart"])
def test_a_recipe_works_when_it_is_followed_literally(title, project):
    """Each block goes where it says, and every command of the recipe passes."""
    blocks = recipe(title)
    commands = [
        line for language, text in blocks if language == "sh" for line in text.splitlines() if line
    ]
    assert len(commands) >= 3, commands

    for language, text in blocks:
        if language != "sh":
            apply(text, project)

    scripts = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(project),
    }
    for line in commands:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}{done.stderr[-1000:]}"


def test_every_recipe_names_files_and_functions_that_exist():
    """A file in backticks exists, and `NAME in FILE` is defined there."""
    files = set(re.findall(r"`((?:explorer|tests|docs)/[\w./]+)`", CONTRIBUTING))
    assert len(files) > 15, files
    defined = re.findall(r"`(\w+)` in\s+`((?:explorer|tests)/[\w/]+\.py)`", CONTRIBUTING)
    assert len(defined) > 5, defined

    missing = [name for name in files if "NAME" not in name and not (ROOT / name).exists()]
    undefined = [
        (name, path)
        for name, path in defined
        if not re.search(rf"^(?:def |class |    )?{name}\b", (ROOT / path).read_text("utf-8"), re.M)
    ]

    assert missing == []
    assert undefined == []
