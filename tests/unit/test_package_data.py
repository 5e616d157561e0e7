"""Files beside the code that an installed package needs."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_an_installed_package_has_every_file_of_ours():
    """Tables, tasks, texts and the icon are in the wheel, not only in a checkout."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    patterns = tomllib.loads(text)["tool"]["setuptools"]["package-data"]
    packed = {
        path
        for package, names in patterns.items()
        for name in names
        for path in ROOT.joinpath(*package.split(".")).glob(name)
    }

    files = {
        path
        for path in (ROOT / "explorer").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".py"
    }

    assert files >= {ROOT / "explorer" / "pages" / "dashboard" / "icon.svg"}
    assert files <= packed
