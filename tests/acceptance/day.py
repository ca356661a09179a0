"""A day of exam sessions whose commands come late and out of order, and what must become of each.

What must become of them is worked out here, without a line of the product.
"""

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.acceptance.client import event
from tests.acceptance.harness import Stack
from tests.acceptance.oracle import assert_acts_in_place_and_time
from tests.documented import CREDIT

LEARNERS = 20
EXAMS = ("math", "physics")
LENGTH = timedelta(hours=20)
"""The day began so long ago. Its times are believed."""

SITTING = ((0, "created"), (5, "started"), (80, "ready_to_submit"), (90, "submitted"), (200, "verified"))
"""What happens to an attempt, and how many minutes after its creation."""
RETAKEN_AFTER = 240
"""Minutes until staff removes an attempt and the learner begins another one."""
INCOMPLETE = ("created", "started", "ready_to_submit")

_OUTCOMES = "SELECT command_id, outcome, code FROM inbox JOIN outcomes ON inbox.id = inbox_id"
_LIVE = "SELECT exam_id, user_id, attempt_code, status FROM attempts WHERE removed_at IS NULL"
_SAT = (
    "SELECT started_at, completed_at FROM attempts WHERE started_at IS NOT NULL AND completed_at IS NOT NULL"
)
_TOLD = """
SELECT DISTINCT ON (target) payload ->> 'exam_id' AS exam_id, user_id, payload ->> 'status' AS status
FROM effects WHERE target IS NOT NULL ORDER BY target, sequence DESC
"""
"""The newest credit effect of each target. It has no status if it removes the credit."""

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Act:
    """Something that happened, and the command that tells of it."""

    at: datetime
    type: str
    data: Mapping[str, Any]


def introductions() -> list[bytes]:
    """Introduce the course, its exams and the learners."""
    described = [
        ("course.upsert.v1", {"course_id": "c", "name": "Science"}),
        *(
            ("exam.upsert.v1", {"exam_id": exam, "course_id": "c", "content_id": exam, "exam_name": exam})
            for exam in EXAMS
        ),
        *(
            ("learner.upsert.v1", {"user_id": f"u{n}", "username": f"n{n}", "email": f"u{n}@example.org"})
            for n in range(LEARNERS)
        ),
    ]
    return [event(type_, data, f"intro-{n}") for n, (type_, data) in enumerate(described)]


def late_day(seed: int) -> list[bytes]:
    """A day's commands in the order in which they arrive: most of them in time, the others up to six hours late."""
    chance = random.Random(seed)
    begin = datetime.now(UTC) - LENGTH
    happened = [
        one
        for learner in range(LEARNERS)
        for exam in EXAMS
        for one in _sittings(chance, exam, f"u{learner}", begin)
    ]
    late = (0, 0, 0, 0, 0, 0, 2, 10, 60, 360)
    arrived = sorted(happened, key=lambda one: one.at + timedelta(minutes=chance.choice(late)))
    return [event(one.type, dict(one.data), f"act-{n}", one.at) for n, one in enumerate(arrived)]


def _sittings(chance: random.Random, exam: str, learner: str, begin: datetime) -> Iterator[Act]:
    begun = begin + timedelta(minutes=chance.randrange(600))
    ids = {"exam_id": exam, "user_id": learner}
    for number in range(chance.choice([1, 2, 2])):
        at = begun + timedelta(minutes=number * RETAKEN_AFTER)
        code = f"{exam}-{learner}-{number}"
        names = {"attempt_code": code, "external_id": f"vendor-{code}"}
        if number:
            staff = {"requested_by": "staff", "if_missing": chance.choice(["reject", "ignore"])}
            yield Act(at, "exam.attempt.remove.v1", {**ids, "attempt_code": f"{exam}-{learner}-0", **staff})
            # The proctoring service comes to another verdict, and does not know that the attempt is gone.
            verdict = {"to_status": "rejected", "cascade_effects": False}
            late = at + timedelta(minutes=chance.randrange(60))
            named = {"external_id": f"vendor-{exam}-{learner}-0"}
            yield Act(late, "exam.attempt.update-status.v1", {**ids, **named, **verdict})
        for minutes, status in SITTING:
            happened = at + timedelta(minutes=minutes + number)
            if status == "created":
                yield Act(happened, "exam.attempt.create.v1", {**ids, **names, "taking_as_proctored": True})
            else:
                part = chance.choice(["attempt_code", "external_id"])
                data: dict[str, Any] = {**ids, part: names[part], "to_status": status}
                if chance.random() < 0.1:
                    data["from_statuses"] = ["submitted"]
                yield Act(happened, "exam.attempt.update-status.v1", data)


@dataclass(slots=True)
class Attempt:
    """A live attempt, as it must be."""

    names: tuple[str, str]
    status: str = "created"


@dataclass(slots=True)
class Expected:
    """What must become of commands about attempts in the order in which they arrive."""

    live: dict[Pair, Attempt] = field(default_factory=dict)
    credit: dict[Pair, str | None] = field(default_factory=dict)
    """What the credit service is told last. None: that there is none."""

    def outcome(self, command: Mapping[str, Any]) -> tuple[str, str | None]:
        """Handle a command. Return its outcome and code."""
        data = command["data"]
        pair = data["exam_id"], data["user_id"]
        attempt = self.live.get(pair)
        if command["type"] == "exam.attempt.create.v1":
            if attempt is not None:
                return "rejected", "attempt_exists"
            self.live[pair] = Attempt((data["attempt_code"], data["external_id"]))
            return "applied", None
        if attempt is None or not {data.get("attempt_code"), data.get("external_id")} & set(attempt.names):
            return "ignored" if data.get("if_missing") == "ignore" else "rejected", "stale_attempt"
        if attempt.status not in data.get("from_statuses", [attempt.status]):
            return "ignored", "precondition_failed"
        if command["type"] == "exam.attempt.remove.v1":
            del self.live[pair]
            if pair in self.credit:
                self.credit[pair] = None
            return "applied", None
        return self._update(pair, attempt, data["to_status"])

    def _update(self, pair: Pair, attempt: Attempt, to_status: str) -> tuple[str, str | None]:
        if attempt.status not in INCOMPLETE and to_status in INCOMPLETE:
            return "rejected", "illegal_transition"
        if attempt.status == to_status:
            return "unchanged", None
        attempt.status = to_status
        if to_status in CREDIT:
            self.credit[pair] = CREDIT[to_status]
        return "applied", None


def assert_a_late_day_is_understood(stack: Stack, seed: int) -> None:
    """Deliver a day to `consume`, and check what became of it.

    Each outcome is checked, the live attempts, what the credit service will be told, and every history.
    """
    day = late_day(seed)
    stack.client.publish([*introductions(), *day])
    stack.start("commands", BATCH_SIZE=7)
    stack.settle_commands()
    expected = Expected()
    commands = [json.loads(body) for body in day]
    outcomes = {command["id"]: expected.outcome(command) for command in commands}
    # Given a day on which everything goes wrong that may
    assert {code for _, code in outcomes.values()} >= {
        "stale_attempt",
        "illegal_transition",
        "attempt_exists",
    }
    found = {row.command_id: (row.outcome, row.code) for row in stack.rows(_OUTCOMES)}
    assert {command_id: found[command_id] for command_id in outcomes} == outcomes
    assert {(row.exam_id, row.user_id): (row.attempt_code, row.status) for row in stack.rows(_LIVE)} == {
        pair: (attempt.names[0], attempt.status) for pair, attempt in expected.live.items()
    }
    told = {(row.exam_id, row.user_id): row.status for row in stack.rows(_TOLD)}
    assert told == expected.credit
    assert_acts_in_place_and_time(stack)
    both = [(row.started_at, row.completed_at) for row in stack.rows(_SAT)]
    assert both
    assert all(started <= completed for started, completed in both)
