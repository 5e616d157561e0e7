"""Names beside points, placed so that they never overlap; hovering shows those left out."""

import dataclasses
import math
from collections.abc import Iterable

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


def occupied_boxes(
    figure: go.Figure, points: Iterable[tuple[float, float]], view: View
) -> list[Box]:
    """Boxes of the points, and of the target line and its name."""
    boxes = [_around(view.pixel(x, y), 9, 9) for x, y in points]
    for note in figure.layout.annotations:
        _, line = view.pixel(view.x_range[0], note.y)
        boxes.append((0, line, 7.0 * len(note.text), line + 18))
        boxes.append((0, line - 1, view.width, line + 1))
    return boxes


def corner_box(notes: list[str], view: View) -> Box:
    """The box of the small notes in the bottom right corner, one line each."""
    wide = 6.0 * max(map(len, notes), default=0)
    return (view.width - wide, view.height - 15.0 * len(notes) - 4, view.width, view.height)


def place_labels(
    figure: go.Figure, wanted: list[Label], taken: list[Box], view: View, ink: dict[str, str]
) -> None:
    """Place labels in free space, in order of priority; leave out those that do not fit."""
    for label in wanted:
        at_x, at_y = view.pixel(label.x, label.y)
        wide, high = 7.0 * len(label.text) + 4, 16.0
        # The frontier runs below and to the right, so the left of a point is usually free.
        places = [(-14, 0), (-14, -14), (14, 14), (14, 0), (0, -20)]
        if label.of_star:
            places.insert(0, (-10, -16))  # clear of the line at 100 %
        for dx, dy in places:
            left = at_x + dx - (wide if dx < 0 else wide / 2 if dx == 0 else 0)
            box = (left, at_y + dy - high / 2, left + wide, at_y + dy + high / 2)
            inside = box[0] > 0 and box[2] < view.width and box[1] > 0 and box[3] < view.height
            if inside and not any(_overlap(box, other) for other in taken):
                break
        else:
            continue
        taken.append(box)
        figure.add_annotation(
            x=math.log10(label.x) if view.log else label.x,
            y=label.y,
            text=theme.escape(label.text),
            showarrow=False,
            xshift=dx,
            yshift=-dy,
            yanchor="middle",
            xanchor="right" if dx < 0 else "left" if dx > 0 else "center",
            font={"size": 13, "color": ink["text"]},
        )


def _around(centre: tuple[float, float], dx: float, dy: float) -> Box:
    return centre[0] - dx, centre[1] - dy, centre[0] + dx, centre[1] + dy


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
