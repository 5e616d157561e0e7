"""Names beside points, placed so that they never overlap; hovering shows those left out."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import plotly.graph_objects as go

from explorer.charts import theme

Box = tuple[float, ...]
"""Left, top, right and bottom, in pixels of the plot area."""


@dataclasses.dataclass(frozen=True)
class View:
    """The ranges of both axes and the size of the plot area in pixels."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log: bool
    width: int
    height: int

    @property
    def x_axis(self) -> list[float]:
        """The range in Plotly's form: exponents for a logarithmic axis."""
        return [math.log10(v) for v in self.x_range] if self.log else list(self.x_range)

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Pixels from the left and the top of the plot area."""
        low, high = self.x_axis
        at = math.log10(x) if self.log else x
        bottom, top = self.y_range
        return (
            (at - low) / (high - low) * self.width,
            (top - y) / (top - bottom) * self.height,
        )


@dataclasses.dataclass(frozen=True)
class Label:
    """A name to place beside a point."""

    x: float
    y: float
    text: str
    of_star: bool = False
    """Whether the point is a teacher's star, which lies on the line at 100 %."""
    group: str | None = None
    """The entry of the legend that shows and hides it."""
    ringed: bool = False
    """Whether a ring lies around the point."""

    @property
    def clearance(self) -> int:
        """Pixels between the point and the name."""
        return RINGED_CLEARANCE if self.ringed else CLEARANCE


@dataclasses.dataclass(frozen=True)
class Placed:
    """A label and the side of its point on which there is room."""

    label: Label
    side: str
    """In Plotly's words, such as `middle left`."""


def point_boxes(
    points: Iterable[tuple[float, float]],
    view: View,
    ringed: Iterable[tuple[float, float]] = (),
) -> list[Box]:
    """Boxes of the points, and of the rings around some of them."""
    boxes = [_around(view.pixel(x, y), 9, 9) for x, y in points]
    outside = theme.PICK_RING_PIXELS / 2 + 1
    return boxes + [_around(view.pixel(x, y), outside, outside) for x, y in ringed]


def limit_boxes(figure: go.Figure, view: View) -> list[Box]:
    """Boxes of the lines of the limits and of their names."""
    boxes: list[Box] = []
    for note in figure.layout.annotations:
        wide = SMALL_LETTER_PIXELS * len(note.text)
        if note.yref == "paper":  # a limit on the horizontal axis: its line is vertical
            at = 10**note.x if view.log else note.x
            line, _ = view.pixel(at, view.y_range[1])
            boxes.append((line, 0, line + wide, 18))
            boxes.append((line - 1, 0, line + 1, view.height))
        else:
            _, line = view.pixel(view.x_range[0], note.y)
            start = view.width - wide if note.xanchor == "right" else 0
            boxes.append((start, line, start + wide, line + 18))
            boxes.append((0, line - 1, view.width, line + 1))
    return boxes


def roomier_end(name: str, y: float, taken: Sequence[Box], view: View) -> Literal["left", "right"]:
    """The end of a horizontal line at `y` where its name, below it, covers fewer boxes."""
    _, line = view.pixel(view.x_range[0], y)
    wide = SMALL_LETTER_PIXELS * len(name)
    on_left = _num_covered((0, line, wide, line + 18), taken)
    on_right = _num_covered((view.width - wide, line, view.width, line + 18), taken)
    return "right" if on_right < on_left else "left"


def fitting_ticks(values: Sequence[float], texts: Sequence[str], view: View) -> dict[str, Any]:
    """Settings of the horizontal axis: its ticks, fewer where their texts would touch.

    Args:
        values: Where the ticks may stand, in rising order.
        texts: What is written there.
        view: Its scale and size. Of a logarithmic axis the powers of ten stay longest.
    """
    every = range(len(values))
    powers = [at for at in every if view.log and math.log10(values[at]).is_integer()]
    fewer = powers if len(powers) > 1 else every
    centres = [view.pixel(value, view.y_range[0])[0] for value in values]

    def fit(ticks: Sequence[int]) -> bool:
        return all(
            abs(centres[b] - centres[a])
            > SMALL_LETTER_PIXELS * (len(texts[a]) + len(texts[b]) + 1) / 2
            for a, b in itertools.pairwise(ticks)
        )

    choices = [every, *(fewer[::step] for step in range(1, len(values) + 1))]
    kept = next(ticks for ticks in choices if fit(ticks))  # one tick always does
    return {"tickvals": [values[at] for at in kept], "ticktext": [texts[at] for at in kept]}


def corner_box(notes: list[str], view: View) -> Box:
    """The box of the small notes in the bottom right corner, one line each."""
    wide = 6.0 * max(map(len, notes), default=0)
    return (view.width - wide, view.height - 15.0 * len(notes) - 4, view.width, view.height)


LETTER_PIXELS = 7.0
"""Width of a letter in a name, at most."""
SMALL_LETTER_PIXELS = 6.5
"""Width of a letter in a tick or in the name of a limit, at most."""
ABOVE_PLOT_PIXELS = 8
"""How far a name may rise above the plot area, below the legend."""
CLEARANCE = 12
"""Pixels between a point and its name."""
RINGED_CLEARANCE = 18
"""Pixels between a point and its name where a ring lies between them."""
SIDES = {
    # The frontier runs below and to the right, so the left of a point is usually free.
    "middle left": (-1, 0),
    "top left": (-1, -1),
    "bottom right": (1, 1),
    "middle right": (1, 0),
    "top center": (0, -1),
}
"""Where a name may stand, in order of preference: the direction from its point, right and down."""


def place_labels(
    wanted: list[Label], taken: list[Box], view: View, avoided: Sequence[Box] = ()
) -> list[Placed]:
    """Place labels in free space, in order of priority; leave out those that do not fit.

    Args:
        wanted: The labels, the most important first.
        taken: Boxes that are occupied; those of the placed labels are added.
        view: The chart's ranges and size.
        avoided: Boxes that a label covers only where it has no other place, such as intervals.
    """
    placed = []
    for label in wanted:
        free = [
            (side, box)
            for side, box in _places(label, view)
            if not any(_overlap(box, other) for other in taken)
        ]
        if free:
            side, box = min(free, key=lambda place: _num_covered(place[1], avoided))
            taken.append(box)
            placed.append(Placed(label, side))
    return placed


def interval_boxes(intervals: Iterable[Sequence[float]], view: View) -> list[Box]:
    """Boxes of intervals, each given by its place and its two ends."""
    boxes: list[Box] = []
    for x, low, high in intervals:
        (at, bottom), (_, top) = view.pixel(x, low), view.pixel(x, high)
        boxes.append((at - 2, top, at + 2, bottom))
    return boxes


def _places(label: Label, view: View) -> Iterator[tuple[str, Box]]:
    """The sides of a label's point that lie in the plot, the preferred one first, with the box."""
    at_x, at_y = view.pixel(label.x, label.y)
    wide, high = LETTER_PIXELS * len(label.text) + 4, 16.0
    # Above its point, a star's name is clear of the line at 100 %.
    sides = sorted(SIDES, key=lambda side: side != "top left") if label.of_star else SIDES
    for side in sides:
        across, down = SIDES[side]
        dx, dy = across * label.clearance, down * (label.clearance + high / 2)
        left = at_x + dx - (wide if dx < 0 else wide / 2 if dx == 0 else 0)
        box = (left, at_y + dy - high / 2, left + wide, at_y + dy + high / 2)
        inside = box[0] > 0 and box[2] < view.width and box[3] < view.height
        if inside and box[1] > -ABOVE_PLOT_PIXELS:
            yield side, box


def add_names(figure: go.Figure, placed: list[Placed], ink: dict[str, str]) -> None:
    """Write the names beside their points: texts of traces, so that the legend hides them too."""
    for group in dict.fromkeys(one.label.group for one in placed):
        own = [one for one in placed if one.label.group == group]
        theme.add_scatter(
            figure,
            x=[one.label.x for one in own],
            y=[one.label.y for one in own],
            mode="markers+text",
            text=[theme.escape(one.label.text) for one in own],
            textposition=[one.side for one in own],
            textfont={"size": 13, "color": ink["text"]},
            # Plotly keeps the text as far away as the mark is large, also one that is not seen.
            marker={"size": [1.6 * (one.label.clearance - 1) for one in own], "opacity": 0},
            cliponaxis=False,
            hoverinfo="skip",
            showlegend=False,
            legendgroup=group,
        )


def _around(centre: tuple[float, float], dx: float, dy: float) -> Box:
    return centre[0] - dx, centre[1] - dy, centre[0] + dx, centre[1] + dy


def _num_covered(box: Box, others: Sequence[Box]) -> int:
    return sum(_overlap(box, other) for other in others)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
