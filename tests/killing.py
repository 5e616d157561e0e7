"""A process that is killed between any two changes of the disk, without ending the tests' own.

A kill runs no handler. So from its moment on every change of the disk raises, whatever handlers
try; what lies on the disk then is what a kill -9 would leave.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

CHANGES = ("fsync", "mkdir", "rename", "replace", "rmdir", "unlink")
"""Functions of `os` that Path and shutil call; files are written before their fsync."""


class Killed(BaseException):
    """The end of the process."""


class Kill:
    """Ends the process before one of its changes of the disk, counted while `armed`."""

    def __init__(self, moment: int) -> None:
        self.moment, self.armed = moment, True
        self.changes: list[str] = []
        """What was done before it."""
        self.dead = False

    def watch(self, name: str, change: Callable[..., Any]) -> Callable[..., Any]:
        """The change as it is, until the moment has come."""

        def watched(*arguments: Any, **options: Any) -> Any:
            if self.armed:
                self.dead |= len(self.changes) == self.moment
            if self.dead:
                raise Killed(f"before {name} {arguments}")
            if self.armed:
                self.changes.append(name)
            return change(*arguments, **options)

        return watched


def moments(work: Callable[[Kill], None], changes: tuple[str, ...] = CHANGES) -> Iterator[Kill]:
    """Let `work` be killed before its first change, its second, and so on.

    Gives each kill when it is over, so that the caller looks at what it left; ends with the first
    `work` that outlives its moment.
    """
    for moment in range(1000):
        kill = Kill(moment)
        with pytest.MonkeyPatch.context() as patch:
            for name in changes:
                patch.setattr(os, name, kill.watch(name, getattr(os, name)))
            with contextlib.suppress(Killed):
                work(kill)
        if not kill.dead:
            return
        yield kill
    raise AssertionError("the work never ended")
