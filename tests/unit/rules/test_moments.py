"""When something happened, and whom to believe."""

from datetime import UTC, datetime, timedelta

import pytest

from worker.rules.moments import Clock

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HANDLED_AT = NOW + timedelta(seconds=1)
DAY = timedelta(days=1)
A_BIT = timedelta(microseconds=1)
MINUTE = timedelta(seconds=60)
CLOCK = Clock(NOW, DAY)


@pytest.mark.parametrize("time", [NOW - DAY, NOW - A_BIT, NOW, NOW + A_BIT, NOW + MINUTE])
def test_a_time_within_bounds_is_believed(time: datetime) -> None:
    assert CLOCK.of_act(time, HANDLED_AT) == time
    assert CLOCK.of_description(time, HANDLED_AT) == time


@pytest.mark.parametrize(
    "time", [None, NOW - DAY - A_BIT, NOW + MINUTE + A_BIT, datetime.min.replace(tzinfo=UTC)]
)
def test_another_one_is_not(time: datetime | None) -> None:
    assert CLOCK.of_act(time, HANDLED_AT) == HANDLED_AT


def test_a_description_may_be_as_old_as_it_likes_but_not_newer_than_now() -> None:
    oldest = datetime.min.replace(tzinfo=UTC)
    assert CLOCK.of_description(oldest, HANDLED_AT) == oldest
    for time in (None, NOW + MINUTE + A_BIT, datetime.max.replace(tzinfo=UTC)):
        assert CLOCK.of_description(time, HANDLED_AT) == HANDLED_AT
