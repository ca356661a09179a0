from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.lms.http_answers import retry_after_s

NOW = datetime(2026, 3, 1, 9, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("1.5", 1.5),
        ("0", 0),
        ("-30", 0),
        ("Sun, 01 Mar 2026 09:01:00 GMT", 60),
        ("Sun, 01 Mar 2026 10:01:00 +0100", 60),
        ("Sun, 01 Mar 2026 09:01:00 -0000", 60),
        ("Sunday, 01-Mar-26 09:01:00 GMT", 60),  # the older form, which HTTP still allows
        ("Sun, 01 Mar 2020 09:01:00 GMT", 0),
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("9" * 400, None),
        ("٣", None),
        ("Sun, 99 Mar 2026 09:01:00 GMT", None),
        ("Sun, 01 Mar 99999999999999999999 09:01:00 GMT", None),
    ],
)
def test_seconds_and_dates_are_understood_and_the_rest_is_not(
    value: str | None, seconds: float | None
) -> None:
    assert retry_after_s(value, NOW) == seconds


@given(
    st.text()
    | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,12} [0-9:]{0,12} [+-]?[0-9A-Z]*")
)
def test_whatever_a_server_sends_nothing_is_raised(value: str) -> None:
    seconds = retry_after_s(value, NOW)

    assert seconds is None or seconds >= 0
