"""The study that an installed package brings along, so that the first view is not empty.

setup.py puts the committed runs of results/ into the wheel, as explorer/store/example_study.
"""

import os
import shutil
from pathlib import Path

PACKED = Path(__file__).with_suffix("")
"""The runs in an installed package. A checkout has them in results/ instead."""


def copy_to_new_store(root: Path, source: Path = PACKED) -> bool:
    """Copy the example study to `root` if nothing is there yet; returns whether it did.

    The copy is the user's own: its runs can be hidden, deleted and compared with new ones, and
    deleted runs do not come back.
    """
    if root.exists() or not source.is_dir():
        return False
    partial = root.with_name(f"{root.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    # Contents only: the files of an installed package may be read-only.
    shutil.copytree(source, partial, copy_function=shutil.copyfile)
    try:
        partial.rename(root)
    except OSError:
        # Another dashboard that started at the same moment was faster.
        shutil.rmtree(partial)
        return False
    return True
