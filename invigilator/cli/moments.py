"""Times that a person types: ISO 8601 with a time zone, or how long from now."""

from contextlib import suppress
from datetime import UTC, datetime

import click

from invigilator.acts.moments import moment
from worker.durations import parse_duration


class Moment(click.ParamType[datetime]):
    """Accepts a time such as `2026-03-01T09:00:00Z`, or a duration such as `2h`.

    Parameters:
        is_past: whether a duration counts back from now. Otherwise it counts on.
    """

    name = "time"

    def __init__(self, *, is_past: bool) -> None:
        self._direction = -1 if is_past else 1

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the moment, with a time zone."""
        if isinstance(value, datetime):
            return value
        with suppress(ValueError, OverflowError):
            return datetime.now(UTC) + self._direction * parse_duration(str(value))
        try:
            return moment(str(value))
        except ValueError:
            self.fail("must be a time such as 2026-03-01T09:00:00Z, or a duration such as 2h", param, ctx)


PAST = Moment(is_past=True)
FUTURE = Moment(is_past=False)
