"""The check of what is known of courses, exams and learners, without the code that merges their descriptions."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from events.commands import CourseUpsert, ExamUpsert, LearnerUpsert
from tests.documented import DEFAULTS
from tests.stateful.world import World

TABLES = {
    "course.upsert.v1": ("courses", "course_id"),
    "exam.upsert.v1": ("exams", "exam_id"),
    "learner.upsert.v1": ("learners", "user_id"),
}
"""By the type of the command: the table and its key."""

_HANDLED = "SELECT source, command_id, code, handled_at FROM inbox JOIN outcomes ON inbox.id = inbox_id"


def check_descriptions(world: World) -> None:
    """Check that the newest descriptions count, and that what they left out is what was known."""
    handled = {(row.source, row.command_id): row for row in world.rows(_HANDLED)}
    known: dict[tuple[str, str, str], dict[str, Any]] = {}
    for key, item in world.first.items():  # in the order in which they were committed
        if isinstance(item.command.data, CourseUpsert | ExamUpsert | LearnerUpsert):
            is_overtaken = _describe(known, json.loads(item.body), handled[key].handled_at)
            assert (handled[key].code == "overtaken") == is_overtaken
            world.reached["a description was overtaken"] += is_overtaken
    for (table, column, row_id), description in known.items():
        [found] = [row for row in world.rows(f"SELECT * FROM {table}") if getattr(row, column) == row_id]
        assert {name: getattr(found, name) for name in description} == description


def _describe(
    known: dict[tuple[str, str, str], dict[str, Any]], event: Mapping[str, Any], handled_at: datetime
) -> bool:
    """Apply a description. Return True instead when a newer one was applied before."""
    table, column = TABLES[event["type"]]
    # A time in the future is not believed. Here no sender's clock is only a bit ahead.
    at = min(datetime.fromisoformat(event["time"]), handled_at) if "time" in event else handled_at
    before = known.setdefault((table, column, event["data"][column]), {**DEFAULTS[table], "described_at": at})
    if at < before["described_at"]:
        return True
    before |= {**event["data"], "described_at": at}
    return False
