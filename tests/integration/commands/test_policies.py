"""Policies on a real PostgreSQL: what the batch of a course with a provider writes."""

from dataclasses import replace

import pytest
from sqlalchemy import Connection, text

from db.inbox import Handled
from events.commands import CommandData
from events.vocabulary import Outcome, OutcomeCode, Status
from tests import sample_commands as c
from worker.commands.handler import Handler
from worker.policies import Policies
from worker.rules.policy import PRESETS, Policy

HANDLER = Handler(
    Policies(
        providers={
            "edx": PRESETS["edx-proctoring-6"],
            "guarded": Policy(protect_verdicts=True),
            **{f"guarded {name}": replace(one, protect_verdicts=True) for name, one in PRESETS.items()},
        }
    ),
    instructor=True,
)


def apply(connection: Connection, *data: CommandData) -> list[Handled]:
    return c.apply(HANDLER, connection, [c.stamped(one) for one in data])


def setting(connection: Connection, provider: str) -> None:
    apply(
        connection,
        c.course(provider),
        c.exam("A"),
        c.exam("B"),
        c.exam("practice", is_practice_exam=True),
        c.learner(),
    )


def credit(connection: Connection) -> list[tuple[str, str]]:
    rows = connection.execute(
        text(
            "SELECT payload->>'exam_id' AS exam_id, payload->>'status' AS status FROM effects"
            " WHERE kind = 'set_credit_status' ORDER BY sequence"
        )
    )
    return [(row.exam_id, row.status) for row in rows]


def statuses(connection: Connection) -> dict[str, str]:
    return {
        row.exam_id: row.status for row in connection.execute(text("SELECT exam_id, status FROM attempts"))
    }


def settle_cascades(connection: Connection) -> None:
    # A cascade that is owed comes before the answer to any command in the course, and this one changes nothing.
    apply(connection, c.update("B", "none"))


def test_edx_proctoring_6_takes_an_error_after_completion(connection: Connection) -> None:
    setting(connection, "edx")
    apply(connection, c.create("A"), c.update("A", "submitted"))
    [first, again] = apply(connection, c.update("A", "error"), c.update("A", "error"))
    assert (first.outcome, again.outcome) == (Outcome.APPLIED, Outcome.APPLIED)
    assert credit(connection) == [("A", "submitted"), ("A", "failed"), ("A", "failed")]


def test_edx_proctoring_6_calls_declined_attempts_declined(connection: Connection) -> None:
    # Given an attempt at one of two exams
    setting(connection, "edx")
    apply(connection, c.create("A"))
    # When it is declined
    apply(connection, c.update("A", "declined"))
    settle_cascades(connection)
    # Then the one that the cascade declines has the same word
    assert statuses(connection) == {"A": "declined", "B": "declined"}
    assert credit(connection) == [("A", "declined"), ("B", "declined")]


@pytest.mark.parametrize(
    ("provider", "others"), [("edx", {}), ("guarded", {"A": "declined", "B": "declined"})]
)
def test_whether_a_practice_exam_declines_the_others(
    connection: Connection, provider: str, others: dict[str, str]
) -> None:
    # The setting asks for the exam's kind, which may be another than when the attempt was made.
    setting(connection, provider)
    apply(connection, c.exam("practice", is_practice_exam=False), c.create("practice"))
    apply(connection, c.exam("practice", is_practice_exam=True), c.update("practice", "declined"))
    settle_cascades(connection)
    assert statuses(connection) == {"practice": "declined", **others}


def test_a_protected_verdict_keeps_its_credit(connection: Connection) -> None:
    setting(connection, "guarded")
    apply(connection, c.create("A"), c.update("A", "submitted"), c.update("A", "verified"))
    [late] = apply(connection, c.update("A", "submitted"))
    assert (late.outcome, late.code) == (Outcome.IGNORED, OutcomeCode.VERDICT_PROTECTED)
    assert late.detail == "verified is a verdict; only a verdict may replace it"
    assert statuses(connection) == {"A": "verified"}
    assert credit(connection) == [("A", "submitted"), ("A", "satisfied")]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("verdict", "word"), [("verified", "satisfied"), ("rejected", "failed")])
def test_nothing_but_a_verdict_or_a_removal_touches_a_protected_verdict(
    connection: Connection, preset: str, verdict: str, word: str
) -> None:
    # Given a verdict, and an attempt that runs
    setting(connection, f"guarded {preset}")
    apply(connection, c.create("A"), c.create("B"), c.update("A", verdict, cascade_effects=False))
    # When every other status is asked for, and the other exam is declined, all in one batch
    others = [status for status in Status if status not in ("verified", "rejected")]
    *late, declined = apply(connection, *[c.update("A", one) for one in others], c.update("B", "declined"))
    settle_cascades(connection)
    # Then the verdict stands, and so does its credit
    assert {one.outcome for one in late} == {Outcome.IGNORED}
    assert declined.outcome is Outcome.APPLIED
    assert statuses(connection) == {"A": verdict, "B": "declined"}
    assert [status for exam, status in credit(connection) if exam == "A"] == [word]
    # When it is removed, then the next attempt is not protected by it
    outcomes = apply(connection, c.remove("A"), c.create("A"), c.update("A", "submitted"))
    assert [one.outcome for one in outcomes] == [Outcome.APPLIED] * 3
