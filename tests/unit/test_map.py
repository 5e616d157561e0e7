"""The map is the territory: what the package docstrings and the README list is on the disk."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "explorer"
ENTRY = re.compile(r"^(\w+(?:\.py|/)) +(\S.*)$", re.M)


def packages() -> list[Path]:
    """Every folder of modules, the package itself first."""
    return sorted(path.parent for path in PACKAGE.rglob("__init__.py"))


def listed(folder: Path) -> dict[str, str]:
    """The entries of a package's docstring, each with what it says."""
    text = (folder / "__init__.py").read_text(encoding="utf-8")
    entries = ENTRY.findall(ast.get_docstring(ast.parse(text)) or "")
    names = [name for name, _ in entries]
    assert len(names) == len(set(names)), f"{folder.name} lists a name twice: {names}"
    return dict(entries)


def on_disk(folder: Path) -> set[str]:
    """The modules and folders of a package as a docstring names them."""
    return {
        path.name if path.is_file() else f"{path.name}/"
        for path in folder.iterdir()
        if (path.suffix == ".py" and path.name != "__init__.py")
        or (path.is_dir() and not path.name.startswith((".", "__")))
    }


def name_of(folder: Path) -> str:
    return folder.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("folder", packages(), ids=name_of)
def test_a_package_lists_its_modules(folder):
    """Each package's docstring has a line for each module and folder in it, and no other."""
    assert set(listed(folder)) == on_disk(folder)


def test_the_packages_are_found():
    """The check above reads the package itself and those within others."""
    names = {name_of(folder) for folder in packages()}

    assert {"explorer", "explorer/pages/run", "explorer/models/gguf"} <= names


def test_the_readme_shows_the_same_map():
    """README's tree has the lines of the package's docstring, and names each inner package."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^```text\nexplorer/\n(.*?)^```$", readme, re.M | re.S)
    assert block, "README should show the tree of explorer/"

    shown = dict(re.findall(r"^[├└]── (\S+) +(\S.*)$", block[1], re.M))

    assert shown == listed(PACKAGE)
    for folder in packages():
        parent = folder.parent
        if parent != PACKAGE and folder != PACKAGE:
            line = shown[f"{parent.relative_to(PACKAGE).parts[0]}/"]
            assert re.search(rf"\b{folder.name}\b", line), f"{name_of(folder)} is not in: {line}"
