"""Adds the example study to the package; everything else is in pyproject.toml.

The wheel holds the committed runs of results/ as explorer/store/example_study. Runs of your own in
a checkout's results/ are left out.
"""

import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

STUDY = Path("results")
PACKED = Path("explorer/store/example_study")


def study_files() -> list[Path]:
    """The files of the study: those that Git tracks, or all of them in a source distribution."""
    if not Path(".git").exists():
        return sorted(path for path in STUDY.rglob("*") if path.is_file())
    command = ["git", "ls-files", "-z", str(STUDY)]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in names.split("\0") if name]


class BuildWithStudy(build_py):
    """Copies the study beside the modules. An editable installation needs no copy."""

    def run(self) -> None:
        """Build the modules, then add the study."""
        super().run()
        if self.editable_mode:
            return
        for path in study_files():
            target = Path(self.build_lib) / PACKED / path.relative_to(STUDY)
            self.mkpath(str(target.parent))
            self.copy_file(str(path), str(target), preserve_mode=False)

    def get_source_files(self) -> list[str]:
        """What a source distribution has to hold."""
        return [*super().get_source_files(), *map(str, study_files())]


setup(cmdclass={"build_py": BuildWithStudy})
