"""Charts as SVG, drawn here, beside the numbers that they show."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

WIDTH, HEIGHT = 480, 160
LEFT, BOTTOM, TOP = 44, 20, 10


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a bar, in the units of the drawing. `series` is the place of its series, from below."""

    x: float
    y: float
    width: float
    height: float
    series: int
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Stacked bars over time.

    Parameters:
        title: what is counted.
        series: the names of the stacked parts, from below.
        rows: the numbers: a moment, and a value for each of the series.
        bars: the drawing.
        top: the value at the upper end of the axis.
    """

    title: str
    series: Sequence[str]
    rows: Sequence[tuple[datetime, Sequence[int]]]
    bars: Sequence[Bar]
    top: int

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(any(values) for _, values in self.rows)


def stacked(title: str, values: Mapping[str, Mapping[datetime, float]]) -> Chart:
    """Return a chart of stacked bars.

    Parameters:
        title: what is counted.
        values: by series and moment. A missing one counts as 0.

    Example:
        >>> noon = datetime(2027, 1, 31, 12)
        >>> chart = stacked("Tries", {"done": {noon: 3}, "failed": {noon: 1}})
        >>> chart.rows
        [(datetime.datetime(2027, 1, 31, 12, 0), (3, 1))]
    """
    series = tuple(values)
    moments = sorted({moment for points in values.values() for moment in points})
    rows = [(moment, tuple(round(values[one].get(moment, 0)) for one in series)) for moment in moments]
    top = max((sum(numbers) for _, numbers in rows), default=0)
    return Chart(title, series, rows, _bars(series, rows, max(top, 1)), top)


def _bars(series: Sequence[str], rows: Sequence[tuple[datetime, Sequence[int]]], top: int) -> list[Bar]:
    step = (WIDTH - LEFT) / max(len(rows), 1)
    scale = (HEIGHT - BOTTOM - TOP) / top
    bars = []
    for place, (moment, numbers) in enumerate(rows):
        y = float(HEIGHT - BOTTOM)
        for number, (name, value) in enumerate(zip(series, numbers, strict=True)):
            y -= value * scale
            if value:
                title = f"{moment:%H:%M} {name}: {value:,}"
                x = LEFT + place * step
                bars.append(
                    Bar(
                        round(x, 1), round(y, 1), round(step * 0.8, 1), round(value * scale, 1), number, title
                    )
                )
    return bars


def summed(
    series: Mapping[tuple[str, ...], Sequence[tuple[datetime, float]]], place: int
) -> dict[str, dict[datetime, float]]:
    """Return samples by one of their labels, added up over the others.

    Parameters:
        series: by labels, as `db.samples` has them.
        place: of the label.
    """
    found: dict[str, dict[datetime, float]] = defaultdict(lambda: defaultdict(float))
    for labels, points in series.items():
        for moment, value in points:
            found[labels[place]][moment] += value
    return found
