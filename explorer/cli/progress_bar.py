"""A run's progress: a bar on a terminal, plain lines in a file or a pipe."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column
from rich.text import Text

from explorer.store.progress import Listener

LINE_EVERY_S = 15.0


@contextmanager
def stage_bar(console: Console, title: str = "") -> Iterator[Listener]:
    """Give a listener that shows the stage, the share done, the speed and the time left."""
    if not console.is_terminal:
        yield _lines(console, title)
        return
    with _TitledBar(console, title) as progress:
        bar = progress.add_task("", total=None, note="")

        def show(status: dict[str, Any]) -> None:
            progress.update(
                bar,
                description=str(status["stage"]),
                completed=status["done"],
                total=status["total"] or None,
                note=note(status),
            )

        yield show


class _TitledBar(Progress):
    """A bar whose title has a line of its own, so that a run's id is never cut short."""

    def __init__(self, console: Console, title: str) -> None:
        self._title = title
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20 if console.width < 120 else 40),
            TextColumn("{task.fields[note]}", table_column=Column()),
            console=console,
            transient=True,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        if self._title:
            yield Text(self._title)
        yield from super().get_renderables()


def _lines(console: Console, title: str) -> Listener:
    """One line when a stage begins, then one every `LINE_EVERY_S` seconds."""
    last_stage, last_at = "", 0.0

    def show(status: dict[str, Any]) -> None:
        nonlocal last_stage, last_at
        now = time.monotonic()
        if status["stage"] == last_stage and now - last_at < LINE_EVERY_S:
            return
        last_stage, last_at = status["stage"], now
        console.print(f"{title}  {status['stage']}  {note(status)}".strip(), markup=False)

    return show


def note(status: Mapping[str, Any]) -> str:
    """The text beside a bar: amount done, speed, loss, time left."""
    parts = []
    if status.get("total"):
        parts.append(f"{status['done']:,.0f} of {status['total']:,.0f} {status.get('unit') or ''}")
    if status.get("tokens_per_s"):
        parts.append(f"{status['tokens_per_s']:.0f} tokens/s")
    if status.get("loss") is not None:
        parts.append(f"loss {status['loss']:.3f}")
    if status.get("seconds_left") is not None:
        parts.append(f"{clock(status['seconds_left'])} left")
    if status.get("busy"):
        parts.append("other processes use this machine")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """Seconds as `42 s` or `3 min 05 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
