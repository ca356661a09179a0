"""Read-only queries for the command line. Long answers are streamed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Text,
    Uuid,
    and_,
    case,
    cast,
    func,
    literal,
    literal_column,
    select,
    true,
)
from sqlalchemy.orm import aliased

from db.models import (
    Attempt,
    Circuit,
    Effect,
    EffectState,
    Exam,
    HandledCommand,
    InboxEntry,
    QuarantinedMessage,
    Shard,
    Transition,
    Try,
)
from db.order import WAITS_FOR
from events.vocabulary import Outcome, OutcomeCode, Status

Row = dict[str, Any]
Query = Select[*tuple[Any, ...]]

STREAMED_ROWS = 500  # fetched at a time
LOOKED_AT = 2_000
"""How many attempts a page looks at before it ends without being full."""
FEWEST_LOOKED_AT = 100
"""The least of that, in a course of many exams."""


def _superseded_by() -> ColumnElement[UUID | None]:
    """The effect that took a superseded one's place: the newest on its target when a worker tried to claim it."""
    newer = aliased(Effect)
    was_cancelled = and_(newer.state == EffectState.CANCELLED, newer.dropped_at <= Effect.dropped_at)
    found = (
        select(newer.id)
        .where(
            newer.target == Effect.target,
            newer.sequence > Effect.sequence,
            newer.created_at <= Effect.dropped_at,
            ~was_cancelled,
        )
        .order_by(newer.sequence.desc())
        .limit(1)
        .correlate(Effect)
        .scalar_subquery()
    )
    return case((Effect.state == EffectState.SUPERSEDED, found), else_=None)


ATTEMPT_CODE = func.coalesce(Attempt.attempt_code, cast(Attempt.id, Text))
_ATTEMPT = (
    Attempt.id,
    Attempt.exam_id,
    Attempt.user_id,
    ATTEMPT_CODE.label("attempt_code"),
    Attempt.status,
    Attempt.taking_as_proctored,
    Attempt.is_sample_attempt,
    Attempt.external_id,
    Attempt.started_at,
    Attempt.completed_at,
    Attempt.version,
    Attempt.removed_at,
)
_TRANSITION = (
    Transition.from_status,
    Transition.to_status,
    Transition.at,
    func.coalesce(Transition.recorded_at, Transition.at).label("recorded_at"),
    Transition.source,
    Transition.command_id,
)
_COMMAND = (
    InboxEntry.source,
    InboxEntry.command_id.label("id"),
    InboxEntry.type,
    HandledCommand.outcome,
    HandledCommand.code,
    HandledCommand.detail,
    HandledCommand.handled_at,
    HandledCommand.user_id,
    HandledCommand.exam_id,
    HandledCommand.to_status,
    HandledCommand.attempt_code,
    HandledCommand.external_id,
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
    _superseded_by().label("superseded_by"),
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
    wanted = {
        Attempt.exam_id: exam_id,
        Attempt.user_id: user_id,
        ATTEMPT_CODE: code,
        Attempt.id: attempt_id,
    }
    attempt = _first_attempt(connection, wanted)
    if attempt is None:
        return {"attempt": None, "transitions": [], "effects": []}
    found = attempt["id"]
    transitions = select(*_TRANSITION).where(Transition.attempt_id == found).order_by(Transition.version)
    effects = select(*EFFECT_COLUMNS).where(Effect.attempt_id == found).order_by(Effect.sequence)
    return {
        "attempt": attempt,
        "transitions": _all(connection, transitions),
        "effects": _all(connection, effects),
    }


def attempt(
    connection: Connection, *, exam_id: str | None = None, user_id: str | None = None, code: str | None = None
) -> Row | None:
    """The attempt of `attempt_history`, without its history. None when there is none."""
    return _first_attempt(
        connection, {Attempt.exam_id: exam_id, Attempt.user_id: user_id, ATTEMPT_CODE: code}
    )


def _first_attempt(connection: Connection, wanted: Mapping[Any, Any]) -> Row | None:
    # Ids follow the moment of handling. Times are those of the acts, which a sender may have wrong.
    newest_first = (Attempt.removed_at.is_(None).desc(), Attempt.id.desc())
    return _first(connection, _only(select(*_ATTEMPT), wanted).order_by(*newest_first).limit(1))


@dataclass(frozen=True, slots=True)
class AttemptPage:
    """Some attempts.

    Parameters:
        attempts: in the order of their ids.
        next: the id after which the next page begins. None on the last page.
    """

    attempts: Sequence[Row]
    next: UUID | None


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
    number, looked_at = _looked_at(course_id, exam_id, user_id, status, after)
    columns = looked_at.c
    wanted = {columns.exam_id: exam_id, columns.user_id: user_id, columns.status: status}
    statement = _only(select(*columns), wanted).order_by(columns.id).limit(limit + 1)
    if removed is not None:
        statement = statement.where(
            columns.removed_at.is_not(None) if removed else columns.removed_at.is_(None)
        )
    if course_id is not None and exam_id is not None:
        course = select(Exam.course_id).where(Exam.exam_id == exam_id).scalar_subquery()
        statement = statement.where(course == course_id)
    elif course_id is not None and user_id is not None:
        of_course = select(Exam.exam_id).where(Exam.course_id == course_id)
        statement = statement.where(columns.exam_id.in_(of_course))
    rows = _all(connection, statement)
    if len(rows) > limit:
        return AttemptPage(rows[:limit], rows[limit - 1]["id"])
    last = select(columns.id).order_by(columns.id).offset(number - 1).limit(1)
    return AttemptPage(rows, connection.scalar(last))


def _looked_at(
    course_id: str | None,
    exam_id: str | None,
    user_id: str | None,
    status: Status | None,
    after: UUID | None,
) -> tuple[ColumnElement[int], FromClause]:
    """The attempts among which those of a page are found, and how many these are unless they are the last.

    One index gives them in the order of their ids: that of the learner, of the exam, or of the status. With more
    conditions PostgreSQL might go through the attempts of a status, or through all, for those of an exam.
    """
    number: ColumnElement[int] = literal(LOOKED_AT)
    statement = select(*_ATTEMPT).order_by(Attempt.id)
    if after is not None:
        statement = statement.where(Attempt.id > after)
    if user_id is not None:
        statement = statement.where(Attempt.user_id == user_id)
    elif exam_id is not None:
        statement = statement.where(Attempt.exam_id == exam_id)
    elif course_id is not None:
        # The first attempts of each exam are merged, so that no exam is gone through to its end.
        exams = select(func.count()).select_from(Exam).where(Exam.course_id == course_id).scalar_subquery()
        number = func.greatest(FEWEST_LOOKED_AT, literal(LOOKED_AT) // func.greatest(1, exams))
        of_exam = statement.where(Attempt.exam_id == Exam.exam_id).limit(number).correlate(Exam).lateral()
        statement = (
            select(*of_exam.c)
            .select_from(Exam)
            .join(of_exam, true())
            .where(Exam.course_id == course_id)
            .order_by(of_exam.c.id)
        )
    elif status is not None:
        statement = statement.where(Attempt.status == status)
    return number, statement.limit(number).subquery()


# --- commands --------------------------------------------------------------------------------------------


def command(connection: Connection, source: str, command_id: str) -> Row | None:
    """What became of one command. None when it was never seen.

    If the command was not handled and is in quarantine, the outcome is `quarantined`, and `quarantine_id` names the
    newest message.
    """
    handled = _commands().where(InboxEntry.source == source, InboxEntry.command_id == command_id)
    message = (
        select(
            QuarantinedMessage.source,
            QuarantinedMessage.command_id.label("id"),
            literal("quarantined").label("outcome"),
            QuarantinedMessage.code,
            QuarantinedMessage.detail,
            QuarantinedMessage.received_at,
            QuarantinedMessage.id.label("quarantine_id"),
        )
        .where(QuarantinedMessage.source == source, QuarantinedMessage.command_id == command_id)
        .order_by(QuarantinedMessage.id.desc())
        .limit(1)
    )
    return _first(connection, handled) or _first(connection, message)


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
    found = _first(connection, select(*EFFECT_COLUMNS, Effect.payload).where(Effect.id == effect_id))
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


def open_circuits(connection: Connection) -> dict[str, datetime]:
    """The queues of the services that are not called because they do not answer, and until when at least."""
    statement = select(Circuit.queue, Circuit.open_until).where(Circuit.open_until.is_not(None))
    rows = connection.execute(statement.order_by(Circuit.queue))
    return {row.queue: row.open_until for row in rows}


def count_shards(connection: Connection) -> int:
    """The number of shards that the database was set up with. 0 when nothing was consumed yet."""
    return connection.scalar(select(func.count()).select_from(Shard)) or 0


def _only(statement: Query, wanted: Mapping[Any, Any]) -> Query:
    """The rows with the values that are wanted, by column. None stands for any."""
    return statement.where(*(column == value for column, value in wanted.items() if value is not None))


def _first(connection: Connection, statement: Query) -> Row | None:
    row = connection.execute(statement).first()
    return None if row is None else row._asdict()


def _all(connection: Connection, statement: Query) -> list[Row]:
    return [row._asdict() for row in connection.execute(statement)]


def _stream(connection: Connection, statement: Query) -> Iterable[Row]:
    rows = connection.execute(statement, execution_options={"yield_per": STREAMED_ROWS})
    return (row._asdict() for row in rows)
