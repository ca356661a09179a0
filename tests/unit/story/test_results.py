"""What is said of how an attempt stands."""

from datetime import UTC, datetime
from typing import Any

import pytest

from db.story import AttemptSummary
from events.vocabulary import Status
from invigilator.story.results import STANDING, result

NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
AT = "2026-03-01 09:30:00 UTC"


def attempt(**given: Any) -> AttemptSummary:
    plain: dict[str, Any] = {
        "attempt_code": "a1",
        "exam_id": "7",
        "exam_name": "Mechanics",
        "course_id": "phys",
        "status": "submitted",
        "started_at": NOW,
        "completed_at": NOW,
        "removed_at": None,
        "since": NOW,
        "owed": 0,
        "failed": 0,
        "cancelled": 0,
    }
    return AttemptSummary(**{**plain, **given})


@pytest.mark.parametrize("status", Status)
def test_every_status_has_words(status: Status) -> None:
    assert result(attempt(status=status)).startswith(f"{STANDING[status]} It has been so since {AT}.")


def test_a_status_of_a_newer_release_is_told_as_it_is() -> None:
    assert result(attempt(status="paused")).startswith("Its status is paused.")


def test_a_removal_is_told() -> None:
    assert f" The attempt was removed at {AT}." in result(attempt(removed_at=NOW))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "No follow-up of it is open."),
        ({"failed": 1}, "Of its follow-ups 1 has failed."),
        ({"owed": 2, "failed": 3}, "Of its follow-ups 2 are still owed, 3 have failed."),
        ({"owed": 1, "cancelled": 1}, "Of its follow-ups 1 is still owed, 1 was cancelled."),
    ],
)
def test_what_is_open_is_counted(given: dict[str, int], expected: str) -> None:
    assert result(attempt(**given)).endswith(f". {expected}")
