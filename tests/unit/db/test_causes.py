"""Why effects fail, with one row for each cause."""

from datetime import UTC, datetime, timedelta
from typing import Any

from db.causes import by_cause

NOON = datetime(2027, 1, 31, 12, tzinfo=UTC)


def found(
    cause: str | None, state: str, count: int, *, untried: int = 0, minutes: int | None = 0
) -> dict[str, Any]:
    """As `failing` finds it: in the last so many minutes before noon. The example is named after the state."""
    last_seen = None if minutes is None else NOON - timedelta(minutes=minutes)
    return {
        "cause": cause,
        "kind": "set_credit_status",
        "state": state,
        "count": count,
        "untried": untried,
        "first_seen": NOON - timedelta(hours=count),
        "last_seen": last_seen,
        "example": state,
    }


def counted(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(one["cause"], one["failed"], one["waiting"], one["untried"]) for one in by_cause(rows)]


def test_what_has_failed_and_what_is_tried_again_is_one_cause() -> None:
    rows = [found("down", "failed", 3, minutes=5), found("down", "retrying", 9, untried=4, minutes=1)]
    assert counted(rows) == [("down", 3, 5, 4)]
    [row] = by_cause(rows)
    # Since the one that fails for longest, with the one that failed last
    assert (row["first_seen"], row["last_seen"]) == (NOON - timedelta(hours=9), NOON - timedelta(minutes=1))
    assert row["example"] == "retrying"


def test_the_most_frequent_cause_comes_first_however_it_is_made_up() -> None:
    rows = [
        found("a", "failed", 5),
        found("b", "failed", 3),
        found("b", "retrying", 3),
        found(None, "failed", 1, minutes=None),
    ]
    assert counted(rows) == [("b", 3, 3, 0), ("a", 5, 0, 0), (None, 1, 0, 0)]
