"""Read-only queries for the command line and the API. Long answers of the command line are streamed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Connection,
    Select,
    Uuid,
    func,
    literal_column,
    select,
)

from db.models import (
    Effect,
    HandledCommand,
    InboxEntry,
    QuarantinedMessage,
    Shard,
    Try,
)
from db.order import WAITS_FOR
from db.streaming import stream
from events.vocabulary import Outcome, OutcomeCode, Status

Row = dict[str, Any]
Query = Select[*tuple[Any, ...]]

LOOKED_AT = 2_000
"""How many attempts a page looks at before it ends without being full."""
FEWEST_LOOKED_AT = 100
"""The least of that, in a course of many exams."""


# The newest on its target when a worker tried to claim it.
_SUPERSEDED_BY = """
CASE WHEN effects.state = 'superseded' THEN (
    SELECT newer.id
    FROM effects AS newer
    WHERE newer.target = effects.target
        AND newer.sequence > effects.sequence
        AND newer.created_at <= effects.dropped_at
        AND NOT (newer.state = 'cancelled' AND newer.dropped_at <= effects.dropped_at)
    ORDER BY newer.sequence DESC
    LIMIT 1
) END
"""
_OF_OUTCOME = (
    "outcome",
    "code",
    "detail",
    "handled_at",
    "user_id",
    "exam_id",
    "to_status",
    "attempt_code",
    "external_id",
)
"""The columns of `outcomes` that are told of a command."""
_COMMAND = (
    InboxEntry.source,
    InboxEntry.command_id.label("id"),
    InboxEntry.type,
    *(HandledCommand.__table__.columns[name] for name in _OF_OUTCOME),
)
EFFECT_COLUMNS = (
    Effect.id,
    Effect.kind,
    Effect.state,
    Effect.tries,
    Effect.target,
    Effect.order_key,
    Effect.due_at,
    Effect.last_error,
    Effect.cause,
    Effect.failed_at,
    Effect.created_at,
    Effect.done_at,
    literal_column(_SUPERSEDED_BY, Uuid).label("superseded_by"),
    literal_column(WAITS_FOR, Uuid).label("waits_for"),
)
_TRY = (Try.number, Try.started_at, Try.finished_at, Try.result, Try.error)
_QUARANTINED = (
    QuarantinedMessage.id,
    QuarantinedMessage.code,
    QuarantinedMessage.detail,
    QuarantinedMessage.size,
    QuarantinedMessage.received_at,
    QuarantinedMessage.source,
    QuarantinedMessage.command_id,
    QuarantinedMessage.user_id,
    QuarantinedMessage.erased_at,
)


# --- attempts --------------------------------------------------------------------------------------------

# The API asks these often. So they are SQL text, and one statement answers a question.
ATTEMPT_CODE = "coalesce(attempt_code, id::text)"
ATTEMPT = f"""
    id, exam_id, user_id, {ATTEMPT_CODE} AS attempt_code, status, taking_as_proctored, is_sample_attempt,
    external_id, started_at, completed_at, version, removed_at
"""
"""What is told of an attempt."""
LIVE_FIRST = "removed_at IS NULL DESC, id DESC"
"""Ids follow the moment of handling. Times are those of the acts, which a sender may have wrong."""
_HISTORY = f"""
SELECT
    attempt.*,
    (
        SELECT json_agg(
            json_build_object(
                'from_status', from_status, 'to_status', to_status, 'at', at,
                'recorded_at', coalesce(recorded_at, at), 'source', source, 'command_id', command_id
            ) ORDER BY version
        )
        FROM transitions
        WHERE attempt_id = attempt.id
    ) AS transitions,
    (
        SELECT json_agg(
            json_build_object(
                'id', id, 'kind', kind, 'state', state, 'tries', tries, 'target', target, 'order_key', order_key,
                'due_at', due_at, 'last_error', last_error, 'cause', cause, 'failed_at', failed_at,
                'created_at', created_at, 'done_at', done_at, 'superseded_by', {_SUPERSEDED_BY},
                'waits_for', {WAITS_FOR}
            ) ORDER BY sequence
        )
        FROM effects
        WHERE attempt_id = attempt.id
    ) AS effects
FROM (
    SELECT {ATTEMPT}
    FROM attempts
    WHERE {{conditions}}
    ORDER BY {LIVE_FIRST}
    LIMIT 1
) AS attempt
"""  # noqa: S608 - all parts are ours
_CONDITIONS = {
    "exam_id": "exam_id = %(exam_id)s",
    "user_id": "user_id = %(user_id)s",
    "code": f"{ATTEMPT_CODE} = %(code)s",
    "attempt_id": "id = %(attempt_id)s",
}
_TIMES_IN_JSON = {"at", "recorded_at", "due_at", "failed_at", "created_at", "done_at"}


def attempt_history(
    connection: Connection,
    *,
    exam_id: str | None = None,
    user_id: str | None = None,
    code: str | None = None,
    attempt_id: UUID | None = None,
) -> dict[str, Any]:
    """An attempt with its history: the live one of those that fit, else the last removed one.

    The keys are `attempt`, `transitions` and `effects`, the latter two oldest first. Without any attempt they hold
    None and empty lists.

    Parameters:
        exam_id: the exam. None stands for any, here and below.
        user_id: the learner.
        code: the attempt's code.
        attempt_id: the attempt's id.
    """
    values = {"exam_id": exam_id, "user_id": user_id, "code": code, "attempt_id": attempt_id}
    conditions = [_CONDITIONS[name] for name, value in values.items() if value is not None]
    statement = _HISTORY.format(conditions=_all_of(conditions))
    row = connection.exec_driver_sql(statement, values).first()
    if row is None:
        return {"attempt": None, "transitions": [], "effects": []}
    found = row._asdict()
    history = {
        name: [_from_json(one) for one in found.pop(name) or ()] for name in ("transitions", "effects")
    }
    return {"attempt": found, **history}


def _from_json(row: Row) -> Row:
    return {
        name: datetime.fromisoformat(value) if name in _TIMES_IN_JSON and value is not None else value
        for name, value in row.items()
    }


@dataclass(frozen=True, slots=True)
class AttemptPage:
    """Some attempts.

    Parameters:
        attempts: in the order of their ids.
        next: the id after which the next page begins. None on the last page.
    """

    attempts: Sequence[Row]
    next: UUID | None


# PostgreSQL looks for the end only if the page is not full. That is the last attempt that was looked at, or nothing
# if no more attempts are left.
_PAGE = """
WITH page AS MATERIALIZED (
    SELECT *
    FROM ({looked_at}) AS looked_at
    WHERE {conditions}
    ORDER BY id
    LIMIT %(limit)s + 1
)
SELECT page.*, ends.at AS ends_at
FROM (
    SELECT CASE WHEN (SELECT count(*) FROM page) <= %(limit)s THEN (
        SELECT id FROM ({looked_at}) AS looked_at ORDER BY id OFFSET {number} - 1 LIMIT 1
    ) END AS at
) AS ends
LEFT JOIN page ON true
ORDER BY page.id
"""
_INDEXES = ("user_id", "exam_id", "course_id", "status")
"""What an attempt is looked for by: the first of these that is given."""
_NUMBER = "%(looked_at)s"
_LOOKED_AT = f"""
    SELECT {ATTEMPT}
    FROM attempts
    WHERE {{conditions}}
    ORDER BY id
    LIMIT {{number}}
"""  # noqa: S608 - all parts are ours
# The first attempts of each exam are merged, so that no exam is gone through to its end.
_NUMBER_IN_COURSE = """(
    SELECT greatest(%(fewest_looked_at)s, %(looked_at)s / greatest(1, count(*)))
    FROM exams
    WHERE course_id = %(course_id)s
)"""
_LOOKED_AT_IN_COURSE = f"""
    SELECT of_exam.*
    FROM exams
    CROSS JOIN LATERAL (
        SELECT {ATTEMPT}
        FROM attempts
        WHERE {{conditions}} AND attempts.exam_id = exams.exam_id
        ORDER BY id
        LIMIT {{number}}
    ) AS of_exam
    WHERE exams.course_id = %(course_id)s
    ORDER BY of_exam.id
    LIMIT {{number}}
"""  # noqa: S608 - all parts are ours


def attempts(
    connection: Connection,
    *,
    course_id: str | None = None,
    exam_id: str | None = None,
    user_id: str | None = None,
    status: Status | None = None,
    removed: bool | None = False,
    after: UUID | None = None,
    limit: int,
) -> AttemptPage:
    """A page of attempts, oldest first. None stands for any.

    It may have fewer attempts than `limit`, or none, and still not be the last one: where few fit, it ends after a
    number of attempts that were looked at. So a page costs the same however many attempts there are.

    Parameters:
        removed: False for live ones, True for those that were removed, None for both.
        after: the id of an attempt; only later ones are wanted.
        limit: how many at most.
    """
    values = {
        "course_id": course_id,
        "exam_id": exam_id,
        "user_id": user_id,
        "status": status,
        "after": after,
        "limit": limit,
        "looked_at": LOOKED_AT,
        "fewest_looked_at": FEWEST_LOOKED_AT,
    }
    number, looked_at = _looked_at(values)
    conditions = [
        f"{name} = %({name})s" for name in ("exam_id", "user_id", "status") if values[name] is not None
    ]
    if removed is not None:
        conditions.append(f"removed_at IS {'NOT ' if removed else ''}NULL")
    if course_id is not None and (exam_id is not None or user_id is not None):
        conditions.append("exam_id IN (SELECT exam_id FROM exams WHERE course_id = %(course_id)s)")
    statement = _PAGE.format(looked_at=looked_at, conditions=_all_of(conditions), number=number)
    ends_at, rows = None, []
    for row in connection.exec_driver_sql(statement, values):
        found = row._asdict()
        ends_at = found.pop("ends_at")
        rows += [found] if found["id"] is not None else []
    if len(rows) > limit:
        return AttemptPage(rows[:limit], rows[limit - 1]["id"])
    return AttemptPage(rows, ends_at)


def _looked_at(values: Mapping[str, Any]) -> tuple[str, str]:
    """How many attempts a page looks at unless there are fewer, and which: two pieces of SQL.

    One index gives them in the order of their ids: that of the learner, of the exam, or of the status. With more
    conditions PostgreSQL might go through the attempts of a status, or through all, for those of an exam.
    """
    conditions = [] if values["after"] is None else ["id > %(after)s"]
    index = next((name for name in _INDEXES if values[name] is not None), None)
    if index == "course_id":
        number, looked_at = _NUMBER_IN_COURSE, _LOOKED_AT_IN_COURSE
    else:
        number, looked_at = _NUMBER, _LOOKED_AT
        conditions += [] if index is None else [f"{index} = %({index})s"]
    return number, looked_at.format(conditions=_all_of(conditions), number=number)


def _all_of(conditions: Sequence[str]) -> str:
    return " AND ".join(conditions) or "true"


# --- commands --------------------------------------------------------------------------------------------

_COMMAND_NOW = f"""
SELECT
    inbox.type,
    {", ".join(f"outcomes.{name}" for name in _OF_OUTCOME)},
    message.id AS quarantine_id,
    message.code AS quarantine_code,
    message.detail AS quarantine_detail,
    message.received_at
FROM (SELECT %(source)s::text AS source, %(command_id)s::text AS command_id) AS asked
LEFT JOIN inbox ON inbox.source = asked.source AND inbox.command_id = asked.command_id
LEFT JOIN outcomes ON outcomes.inbox_id = inbox.id
LEFT JOIN LATERAL (
    SELECT id, code, detail, received_at
    FROM quarantine
    WHERE quarantine.source = asked.source AND quarantine.command_id = asked.command_id
    ORDER BY id DESC
    LIMIT 1
) AS message ON outcomes.outcome IS NULL
"""  # noqa: S608 - all parts are ours


def command(connection: Connection, source: str, command_id: str) -> Row | None:
    """What became of one command. None when it was never seen.

    If the command was not handled and is in quarantine, the outcome is `quarantined`, and `quarantine_id` names the
    newest message.
    """
    asked = {"source": source, "command_id": command_id}
    found = connection.exec_driver_sql(_COMMAND_NOW, asked).one()
    if found.outcome is not None:
        told = {name: getattr(found, name) for name in ("type", *_OF_OUTCOME)}
        return {"source": source, "id": command_id} | told
    if found.quarantine_id is not None:
        message = {"outcome": "quarantined", "code": found.quarantine_code, "detail": found.quarantine_detail}
        received = {"received_at": found.received_at, "quarantine_id": found.quarantine_id}
        return {"source": source, "id": command_id} | message | received
    return None


def commands(
    connection: Connection,
    *,
    outcome: Outcome | None = None,
    code: OutcomeCode | None = None,
    user_id: str | None = None,
    exam_id: str | None = None,
    limit: int | None = None,
) -> Iterable[Row]:
    """What became of commands, newest first. None stands for any."""
    statement = (
        _commands().order_by(HandledCommand.handled_at.desc(), HandledCommand.inbox_id.desc()).limit(limit)
    )
    wanted = {
        HandledCommand.outcome: outcome,
        HandledCommand.code: code,
        HandledCommand.user_id: user_id,
        HandledCommand.exam_id: exam_id,
    }
    return _stream(connection, _only(statement, wanted))


def _commands() -> Query:
    return select(*_COMMAND).join(HandledCommand, HandledCommand.inbox_id == InboxEntry.id)


# --- effects ---------------------------------------------------------------------------------------------


def effect(connection: Connection, effect_id: UUID) -> Row | None:
    """An effect with its payload and its tries, oldest first. None when there is no such effect.

    If another effect took its place, `superseded_by_command` is the command that the other one follows from.
    """
    found = _first(
        connection, select(*EFFECT_COLUMNS, Effect.event_id, Effect.payload).where(Effect.id == effect_id)
    )
    if found is None:
        return None
    winner = select(Effect.source, Effect.command_id.label("id")).where(Effect.id == found["superseded_by"])
    tries = select(*_TRY).where(Try.effect_id == effect_id).order_by(Try.number)
    return {
        **found,
        "superseded_by_command": _first(connection, winner) if found["superseded_by"] else None,
        "tries": _all(connection, tries),
    }


# --- quarantine ------------------------------------------------------------------------------------------


def quarantined(connection: Connection, message_id: int) -> Row | None:
    """A message in quarantine, with its shard, headers and body. None when there is no such message."""
    whole = (QuarantinedMessage.shard, QuarantinedMessage.headers, QuarantinedMessage.body)
    return _first(connection, select(*_QUARANTINED, *whole).where(QuarantinedMessage.id == message_id))


def quarantine(
    connection: Connection,
    *,
    source: str | None = None,
    command_id: str | None = None,
    limit: int | None = None,
) -> Iterable[Row]:
    """The messages in quarantine, oldest first. None stands for any."""
    statement = select(*_QUARANTINED).order_by(QuarantinedMessage.id).limit(limit)
    wanted = {QuarantinedMessage.source: source, QuarantinedMessage.command_id: command_id}
    return _stream(connection, _only(statement, wanted))


# --- the whole system ------------------------------------------------------------------------------------


def count_quarantined(connection: Connection) -> int:
    """How many messages are in quarantine."""
    return connection.scalar(select(func.count()).select_from(QuarantinedMessage)) or 0


def count_discarded(connection: Connection) -> int:
    """How many messages a full quarantine has discarded."""
    return int(connection.scalar(select(func.sum(Shard.quarantine_discarded))) or 0)


def _only(statement: Query, wanted: Mapping[Any, Any]) -> Query:
    """The rows with the values that are wanted, by column. None stands for any."""
    return statement.where(*(column == value for column, value in wanted.items() if value is not None))


def _first(connection: Connection, statement: Query) -> Row | None:
    row = connection.execute(statement).first()
    return None if row is None else row._asdict()


def _all(connection: Connection, statement: Query) -> list[Row]:
    return [row._asdict() for row in connection.execute(statement)]


def _stream(connection: Connection, statement: Query) -> Iterable[Row]:
    return (row._asdict() for row in stream(connection, statement))
