"""Small inputs from public bug reports, on a real PostgreSQL: each once went wrong somewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from db import lookups
from db.ids import new_receipt
from db.inbox import Handled
from events.commands import Command
from events.vocabulary import Outcome, OutcomeCode
from invigilator.cli.publish import read_command
from tests import sample_commands as c
from worker.commands.handler import Handler
from worker.policies import Policies
from worker.rules.policy import PRESETS, Policy

INPUTS = Path(__file__).parents[2] / "data" / "domain"
NOW = datetime.now(UTC)
EDX = PRESETS["edx-proctoring-6"]
PROVIDERS = {"protect": Policy(protect_verdicts=True), "edx6": EDX}


@dataclass(frozen=True, slots=True)
class Right:
    """What is right after an input.

    Parameters:
        last: the outcome and the code of the last command.
        statuses: those of the live attempts, by exam.
        credit: what the credit service is told last, by content; None for its removal.
        mails: the statuses that are mailed.
        default: the policy of a course without a provider.
    """

    last: tuple[Outcome, OutcomeCode | None]
    statuses: Mapping[str, str]
    credit: Mapping[str, str | None]
    mails: tuple[str, ...] = ()
    default: Policy = PRESETS["provider"]


APPLIED = (Outcome.APPLIED, None)
RIGHT = {
    "F01": Right(
        (Outcome.REJECTED, OutcomeCode.STALE_ATTEMPT),
        {"F01-E1": "created"},
        {"F01-B1": None},
        ("submitted",),  # of the attempt that was removed later
    ),
    "F03": Right(APPLIED, {"F03-E1": "error"}, {"F03-B1": "failed"}, ("submitted",), EDX),
    "F05": Right(APPLIED, {"F05-E1": "declined"}, {"F05-B1": "declined"}, default=EDX),
    "F08": Right(
        (Outcome.IGNORED, OutcomeCode.VERDICT_PROTECTED),
        {"F08-E1": "verified"},
        {"F08-B1": "satisfied"},
        ("submitted", "verified"),
    ),
    "F11": Right(APPLIED, {"F11-E1": "submitted"}, {"F11-B1": "submitted"}, ("submitted",)),
    "F16": Right(
        APPLIED,
        {"F16-E1": "verified", "F16-E3": "declined"},
        {"F16-X": "satisfied", "F16-Y": "failed"},
        ("submitted", "verified"),
    ),
    "F18": Right(APPLIED, {"F18-E1": "created", "F18-E2": "declined"}, {"F18-B2": "declined"}),
}

_EFFECTS = "SELECT kind, payload FROM effects ORDER BY sequence"


@pytest.fixture(params=["one batch", "one by one"])
def in_one_batch(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "one batch")


def lines(name: str) -> list[Command]:
    return [read_command(line) for line in (INPUTS / f"{name}.jsonl").read_bytes().splitlines()]


def play(
    connection: Connection, commands: Sequence[Command], in_one_batch: bool, default: Policy
) -> list[Handled]:
    """Handle commands, and carry out the cascades that they owe."""
    handler = Handler(Policies(default, PROVIDERS), instructor=True)
    stamped = [(one, new_receipt()) for one in commands]
    batches = [stamped] if in_one_batch else [[one] for one in stamped]
    outcomes = [handled for batch in batches for handled in c.apply(handler, connection, batch)]
    # A cascade that is owed comes before the answer to a command in the course, even to a refused one.
    about = commands[-1].data.model_dump()
    c.apply(handler, connection, [c.stamped(c.update(about["exam_id"], "none", about["user_id"]))])
    return outcomes


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right(connection: Connection, name: str, in_one_batch: bool) -> None:
    right = RIGHT[name]
    *_, last = play(connection, lines(name), in_one_batch, right.default)
    effects = connection.execute(text(_EFFECTS)).all()
    credit = [row for row in effects if "credit" in row.kind]
    assert (last.outcome, last.code) == right.last
    assert {
        row["exam_id"]: row["status"] for row in lookups.attempts(connection, limit=100).attempts
    } == right.statuses
    assert {row.payload["content_id"]: row.payload.get("status") for row in credit} == right.credit
    mails = tuple(row.payload["status"] for row in effects if row.kind == "send_status_email")
    assert mails == right.mails


def test_each_input_has_its_right() -> None:
    assert {path.stem for path in INPUTS.glob("*.jsonl")} == RIGHT.keys()


def test_acts_that_are_delivered_together_happened_when_they_happened(
    connection: Connection, in_one_batch: bool
) -> None:
    commands = lines("F11")
    # The times of the file are put into the last hours.
    latest = max(one.time for one in commands[3:] if one.time)
    shift = NOW - timedelta(hours=1) - latest
    moved = [replace(one, time=one.time + shift) for one in commands[3:] if one.time]
    play(connection, [*commands[:3], *moved], in_one_batch, PRESETS["provider"])
    shown = lookups.attempt_history(connection, exam_id="F11-E1", user_id="F11-U")
    created, started, submitted = (one.time for one in moved)
    assert (shown["attempt"]["started_at"], shown["attempt"]["completed_at"]) == (started, submitted)
    assert [one["at"] for one in shown["transitions"]] == [created, started, submitted]
    assert all(one["recorded_at"] >= NOW for one in shown["transitions"])
