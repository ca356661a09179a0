"""The parser of durations."""

from datetime import timedelta

import pytest

from worker.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("36500d", timedelta(days=36_500)),
    ],
)
def test_durations(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text", ["", "90", "d", "0d", "-1d", "1.5d", "90 d", "90D", "1w", "90d\n", "٣d", "36501d", "9" * 10 + "d"]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(
        ValueError, match="must be a number of days, hours or minutes such as 90d, 12h or 30m"
    ):
        parse_duration(text)
