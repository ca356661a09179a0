"""Charts as SVG, drawn here, beside the numbers that they show."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

WIDTH, HEIGHT = 480, 160
LEFT, BOTTOM, TOP = 44, 20, 10
NOTHING = "Nothing in this time."


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
        palette: names the colours: `results` or `answers`.
        series: the names of the stacked parts, from below.
        rows: the numbers: the beginning of a span of time, and a value for each of the series.
        bars: the drawing.
        top: the value at the upper end of the axis.
        nothing: what to say when there is nothing to draw.
    """

    title: str
    palette: str
    series: Sequence[str]
    rows: Sequence[tuple[datetime, Sequence[int]]]
    bars: Sequence[Bar]
    top: int
    nothing: str

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.bars

    @property
    def hours(self) -> list[tuple[float, str]]:
        """The full hours on the axis: where each begins, and what it is called."""
        return [
            (_left(place, len(self.rows)), f"{moment:%H:%M}")
            for place, (moment, _) in enumerate(self.rows)
            if moment.minute == 0
        ]


def spans(now: datetime, back: timedelta, every: timedelta) -> list[datetime]:
    """Return the beginnings of the spans of time up to now, in UTC, oldest first. The last one is not over.

    Parameters:
        back: how far back they go.
        every: the length of a span. An hour is a multiple of it.

    Example:
        >>> noon = datetime(2027, 1, 31, 12, 7, tzinfo=UTC)
        >>> [f"{one:%H:%M}" for one in spans(noon, timedelta(hours=1), timedelta(minutes=15))]
        ['11:15', '11:30', '11:45', '12:00']
    """
    step = int(every.total_seconds())
    last = datetime.fromtimestamp(int(now.timestamp()) // step * step, UTC)
    return [last - every * number for number in reversed(range(back // every))]


def stacked(
    title: str,
    palette: str,
    values: Mapping[str, Mapping[datetime, float]],
    moments: Sequence[datetime],
    nothing: str = NOTHING,
) -> Chart:
    """Return a chart of stacked bars.

    Parameters:
        title: what is counted.
        palette: names the colours.
        values: by series and moment. They are added up in the span of time in which the moment is.
        moments: the beginnings of the spans, oldest first. What was before the first is left out.
        nothing: what to say when there is nothing to draw.

    Example:
        >>> noon = datetime(2027, 1, 31, 12)
        >>> counted = {"done": {noon: 3, noon + timedelta(minutes=5): 4}, "failed": {noon: 1}}
        >>> stacked("Tries", "results", counted, [noon]).rows
        [(datetime.datetime(2027, 1, 31, 12, 0), (7, 1))]
    """
    series = tuple(values)
    columns = [_added_up(values[one], moments) for one in series]
    rows = [(moment, tuple(column[place] for column in columns)) for place, moment in enumerate(moments)]
    top = max((sum(numbers) for _, numbers in rows), default=0)
    return Chart(title, palette, series, rows, _bars(series, rows, max(top, 1)), top, nothing)


def _added_up(points: Mapping[datetime, float], moments: Sequence[datetime]) -> list[int]:
    sums = [0.0] * len(moments)
    for moment, value in points.items():
        if place := bisect_right(moments, moment):
            sums[place - 1] += value
    return list(map(round, sums))


def _left(place: int, rows: int) -> float:
    return round(LEFT + place * (WIDTH - LEFT) / rows, 1)


def _bars(series: Sequence[str], rows: Sequence[tuple[datetime, Sequence[int]]], top: int) -> list[Bar]:
    width = round((WIDTH - LEFT) / max(len(rows), 1) * 0.8, 1)
    scale = (HEIGHT - BOTTOM - TOP) / top
    bars = []
    for place, (moment, numbers) in enumerate(rows):
        y = float(HEIGHT - BOTTOM)
        for number, (name, value) in enumerate(zip(series, numbers, strict=True)):
            y -= value * scale
            if value:
                title = f"{moment:%H:%M} {name}: {value:,}"
                x = _left(place, len(rows))
                bars.append(Bar(x, round(y, 1), width, round(value * scale, 1), number, title))
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
