"""Times as text."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.times import parse_time, render_time


@given(st.datetimes(timezones=st.timezones()).map(lambda time: time.astimezone(UTC)))
def test_a_written_time_is_read_again(time: datetime) -> None:
    assert parse_time(render_time(time)) == time


def test_a_leap_second_is_the_second_before() -> None:
    assert parse_time("2016-12-31t23:59:60.5z") == datetime(2016, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-03-01", "2026-03-01T09:00:00", "2026-03-01T24:00:00Z", "2026-03-01T09:00:00Z\n"],
)
def test_another_form_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a time such as 2026-03-01T09:00:00Z$"):
        parse_time(text)


@pytest.mark.parametrize("text", ["2026-02-29T09:00:00Z", "0001-01-01T00:00:00+01:00"])
def test_a_time_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^there is no such time$"):
        parse_time(text)


def test_a_time_is_written_in_utc() -> None:
    assert (
        render_time(datetime(2026, 3, 1, 10, tzinfo=timezone(timedelta(hours=1)))) == "2026-03-01T09:00:00Z"
    )
    with pytest.raises(ValueError, match=r"^must have an offset from UTC$"):
        render_time(datetime(2026, 3, 1))  # noqa: DTZ001 - that is what is tested
