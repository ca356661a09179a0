"""What a batch tells: its events are committed with the change, if somebody subscribes."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Connection, select

from db import event_log, subscribers
from db.ids import new_receipt
from db.inbox import Handled
from db.models import Attempt, Effect, Event, Transition
from db.quarantine import Unreadable
from events.cloudevent import Event as CloudEvent
from events.cloudevent import as_object
from events.commands import CommandData
from events.event_types import EVENT_TYPES
from events.vocabulary import QuarantineCode
from tests import sample_commands as c
from tests.described import as_described
from tests.unit.events.messages import TRACE
from worker.commands.handler import ClaimedCascade, Handler
from worker.commands.records import Cause
from worker.commands.telling import NAMED_AT_ONCE
from worker.kinds import EffectKind
from worker.policies import Policies

HANDLER = Handler(Policies(), instructor=True)
SETUP = [c.course(), c.exam("A"), c.exam("B"), c.learner(), c.learner("43")]

Apply = Callable[..., list[Handled]]


@pytest.fixture
def apply(connection: Connection) -> Apply:
    """Applies commands as one batch, on a record to which somebody has just subscribed."""

    def run(*data: CommandData) -> list[Handled]:
        return c.apply(HANDLER, connection, [c.stamped(one) for one in data])

    run(*SETUP)
    subscribe(connection)
    return run


def subscribe(connection: Connection) -> None:
    subscribers.store(connection, {"feed.lms": {}})


def told(connection: Connection) -> Sequence[Any]:
    """The events, in order. Each has the data that its model describes, and is as docs/asyncapi.yaml says."""
    rows = connection.execute(select(Event.__table__).order_by(Event.sequence)).all()
    for row in rows:
        assert (
            EVENT_TYPES[row.type].model_validate(row.data).model_dump(mode="json").keys() == row.data.keys()
        )
        event = CloudEvent(row.id, 1, row.type, row.time, row.subject, row.user_id, row.traceparent, row.data)
        as_described("feed", row.type).validate(as_object(event, "/invigilator/main"))
    return rows


def types(connection: Connection) -> list[str]:
    return [row.type.removeprefix("exam.").removesuffix(".v1") for row in told(connection)]


def test_nobody_subscribes(connection: Connection) -> None:
    c.apply(HANDLER, connection, [c.stamped(one) for one in (*SETUP, c.create("A"), c.create("A"))])
    c.handle(HANDLER, connection, [], [unreadable()])
    assert told(connection) == []


def test_events_cost_a_batch_no_statement(connection: Connection) -> None:
    c.apply(HANDLER, connection, [c.stamped(one) for one in SETUP])
    made: list[str] = []

    @sqlalchemy.event.listens_for(connection, "before_cursor_execute")
    def _note(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        made.append(statement)

    def statements(user_id: str) -> int:
        made.clear()
        c.handle(
            HANDLER, connection, [c.received(c.create("A", user_id)), c.received(c.create("A", user_id))]
        )
        return len(made)

    # Given as many statements as a batch takes while nobody listens
    without = statements("42")
    # When somebody listens, then there are as many, though events are written
    subscribe(connection)
    assert statements("43") == without
    assert types(connection) == ["attempt.created", "command.not-applied"]


def test_each_row_of_the_history_is_an_event(apply: Apply, connection: Connection) -> None:
    # When an attempt is created, changed and removed in one batch
    apply(
        c.create("A", attempt_code="code", external_id="x1", taking_as_proctored=True),
        c.update("A", "started"),
        c.remove("A", requested_by="43"),
    )
    # Then there is an event for each, with the state after the change
    created, started, removed = told(connection)
    assert [created.type, started.type, removed.type] == [
        "exam.attempt.created.v1",
        "exam.attempt.status-changed.v1",
        "exam.attempt.removed.v1",
    ]
    assert {(row.subject, row.user_id, row.position) for row in (created, started, removed)} == {
        ("code", "42", None)
    }
    [attempt] = connection.execute(select(Attempt.__table__)).all()
    [first, second] = connection.execute(select(Transition.__table__).order_by(Transition.version)).all()
    about = {
        "attempt_code": "code",
        "exam_id": "A",
        "course_id": "course-1",
        "content_id": created.data["content_id"],
        "user_id": "42",
        "external_id": "x1",
        "taking_as_proctored": True,
        "is_sample_attempt": False,
        "cascaded_from": None,
    }
    assert created.data == about | {
        "status": "created",
        "version": 1,
        "at": first.at.isoformat(),
        "command": {"source": first.source, "id": first.command_id},
    }
    assert started.data == about | {
        "status": "started",
        "version": 2,
        "from_status": "created",
        "to_status": "started",
        "started_at": attempt.started_at.isoformat(),
        "completed_at": None,
        "at": second.at.isoformat(),
        "command": {"source": second.source, "id": second.command_id},
    }
    assert started.time == second.recorded_at
    assert removed.data == about | {
        "status": "started",
        "version": 2,
        "requested_by": "43",
        "at": attempt.removed_at.isoformat(),
        "command": removed.data["command"],
    }


def test_who_is_no_known_learner_is_not_told(apply: Apply, connection: Connection) -> None:
    apply(c.create("A"), c.remove("A", requested_by="Ada Lovelace"))
    assert told(connection)[-1].data["requested_by"] is None


def test_every_other_outcome_is_told_once(apply: Apply, connection: Connection) -> None:
    apply(c.create("A"), c.update("A", "submitted"))
    refused = c.received(c.update("A", "started"))
    apply(c.update("A", "submitted"))
    c.handle(HANDLER, connection, [refused, refused])
    c.handle(HANDLER, connection, [refused])
    apply(c.update("B", "started", if_missing="ignore"))
    assert types(connection) == ["attempt.created", "attempt.status-changed", *["command.not-applied"] * 3]
    unchanged, rejected, ignored = [row.data for row in told(connection)[2:]]
    assert (unchanged["outcome"], unchanged["code"]) == ("unchanged", None)
    assert (rejected["outcome"], rejected["code"]) == ("rejected", "illegal_transition")
    assert rejected["detail"] == "submitted cannot become started"
    assert (ignored["outcome"], ignored["code"], ignored["exam_id"]) == ("ignored", "attempt_not_found", "B")


def test_what_follows_from_a_command_carries_its_trace(apply: Apply, connection: Connection) -> None:
    # When a command has a trace, and the one before it and the one after it have none
    apply(c.create("A"))
    traced = [c.update("A", "submitted"), c.update("A", "started")]
    c.apply(HANDLER, connection, [(c.command(one, traceparent=TRACE), new_receipt()) for one in traced])
    apply(c.remove("A"))
    # Then its events have it, whatever came of it, and so have the effects that it owes
    assert [row.traceparent for row in told(connection)] == [None, TRACE, TRACE, None]
    owed = connection.execute(select(Effect.kind, Effect.traceparent)).all()
    assert {row.traceparent for row in owed if row.kind == EffectKind.SET_CREDIT_STATUS} == {TRACE}
    assert {row.traceparent for row in owed if row.kind == EffectKind.REMOVE_CREDIT_STATUS} == {None}


@pytest.mark.parametrize("by_worker", [False, True])
def test_a_cascade_that_creates_and_declines_is_two_events(
    apply: Apply, connection: Connection, by_worker: bool
) -> None:
    # Given a cascade that is owed, by a command with a trace
    apply(c.create("A", attempt_code="first", taking_as_proctored=True))
    c.apply(HANDLER, connection, [(c.command(c.update("A", "declined"), traceparent=TRACE), new_receipt())])
    [command] = {row.data["command"]["id"] for row in told(connection) if row.data.get("to_status")}
    # When it is carried out, by its worker or before the next command
    if by_worker:
        settle(connection)
    else:
        apply(c.update("B", "declined"))
    # Then both changes name the attempt and the command that started it, and carry its trace
    made = [row for row in told(connection) if row.data.get("cascaded_from")]
    assert [(row.type, row.data["status"]) for row in made] == [
        ("exam.attempt.created.v1", "created"),
        ("exam.attempt.status-changed.v1", "declined"),
    ]
    named = {(row.data["cascaded_from"], row.data["command"]["id"], row.traceparent) for row in made}
    assert named == {("first", command, TRACE)}


def settle(connection: Connection) -> None:
    """As the worker of the cascade does."""
    row = connection.execute(select(Effect.__table__).where(Effect.kind == EffectKind.CASCADE_DECLINE)).one()
    connection.exec_driver_sql(
        "UPDATE effects SET state = 'running', tries = tries + 1, lease_until = now() + interval '1 min' "
        "WHERE id = %(id)s",
        {"id": row.id},
    )
    moment = new_receipt()
    cause = Cause(row.source, row.command_id, moment.at, moment.at, moment.ids(), row.id)
    payload = EffectKind.CASCADE_DECLINE.entry.read(row.payload)
    assert HANDLER.settle_cascades(connection, [ClaimedCascade(row.id, row.tries + 1, payload, cause)]) == [
        True
    ]


def test_a_failed_cascade_that_is_done_after_all(apply: Apply, connection: Connection) -> None:
    # Given a cascade whose failure was told, and that a person has retried
    apply(c.create("A", taking_as_proctored=True), c.update("A", "declined"))
    connection.exec_driver_sql(
        "UPDATE effects SET failure_told = true, tries = 3 WHERE kind = 'cascade_decline'"
    )
    # When a command has it folded in
    apply(c.update("B", "declined"))
    # Then that is told, with the effect's id
    recovered = [row for row in told(connection) if row.type == "exam.effect.recovered.v1"]
    assert [(row.data["kind"], row.data["tries"], row.user_id) for row in recovered] == [
        ("cascade_decline", 3, "42")
    ]


def test_nobody_hears_of_a_cascade_that_has_recovered(connection: Connection) -> None:
    # Given a cascade whose failure was told to somebody who subscribes no more
    setting = (*SETUP, c.create("A", taking_as_proctored=True), c.update("A", "declined"))
    c.apply(HANDLER, connection, [c.stamped(one) for one in setting])
    connection.exec_driver_sql("UPDATE effects SET failure_told = true WHERE kind = 'cascade_decline'")
    c.apply(HANDLER, connection, [c.stamped(c.update("B", "declined"))])
    assert told(connection) == []


def unreadable(body: bytes = b"?") -> Unreadable:
    return Unreadable(QuarantineCode.NOT_JSON, "no JSON", {}, body, new_receipt().at)


def test_what_goes_to_quarantine_is_told(apply: Apply, connection: Connection) -> None:
    c.handle(HANDLER, connection, [], [unreadable(), unreadable(b"??")])
    assert [(row.data["code"], row.data["size"], row.data["count"]) for row in told(connection)] == [
        ("not_json", 1, 1),
        ("not_json", 2, 1),
    ]
    ids = connection.exec_driver_sql("SELECT id FROM quarantine ORDER BY id").scalars().all()
    assert [row.data["quarantine_id"] for row in told(connection)] == ids


def test_a_flood_of_nonsense_is_one_event(apply: Apply, connection: Connection) -> None:
    c.handle(HANDLER, connection, [], [unreadable()] * (NAMED_AT_ONCE + 1))
    [event] = told(connection)
    assert (event.data["count"], event.data["quarantine_id"]) == (NAMED_AT_ONCE + 1, None)


def test_an_attempt_of_a_cascade_is_in_the_order_of_the_commits(apply: Apply, connection: Connection) -> None:
    apply(c.create("A"), c.update("A", "started"))
    apply(c.create("B"))
    event_log.number(connection)
    events = event_log.read(connection, after=0)
    assert [event.data["exam_id"] for event in events] == ["A", "A", "B"]
    assert [event.position - events[0].position for event in events] == [0, 1, 2]
