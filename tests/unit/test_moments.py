"""Moments as people and programs write them."""

from datetime import UTC, datetime

import pytest

from invigilator.acts.moments import moment, moment_or_utc

NINE = datetime(2026, 3, 1, 9, tzinfo=UTC)


def test_all_become_utc() -> None:
    assert moment("2026-03-01T10:00:00+01:00") == moment_or_utc("2026-03-01T09:00") == NINE
    far = moment("2126-08-14T12:00:00-23:42")
    assert (far, far.utcoffset()) == (datetime(2126, 8, 15, 11, 42, tzinfo=UTC), NINE.utcoffset())


@pytest.mark.parametrize("read", [moment, moment_or_utc])
@pytest.mark.parametrize("text", ["soon", "", "9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+23:00"])
def test_what_is_no_time_is_refused(read: object, text: str) -> None:
    assert callable(read)
    with pytest.raises(ValueError):
        read(text)


def test_a_time_without_an_offset_is_only_what_people_type() -> None:
    with pytest.raises(ValueError, match="has no offset"):
        moment("2026-03-01T09:00:00")
