"""The record's hot path: what a batch locks, loads and writes, each in one statement."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Row, any_, func, insert, select, union, update
from sqlalchemy.dialects.postgresql import insert as upsert

from db.clock import CLOCK
from db.models import Attempt, Base, Course, Effect, EffectKind, EffectState, Exam, Learner, Transition, Try
from db.models.effects import TryResult

EFFECTS_CHANNEL = "invigilator_effects"
"""Where a transaction that owes effects notifies the relay."""

Values = Sequence[dict[str, Any]]


def lock_learners(connection: Connection, user_ids: Collection[str]) -> set[str]:
    """Lock the learners, in the order of their ids, and return those that are known.

    This one lock covers all of a learner's attempts, also those that do not exist yet, and orders the
    effects on each target. Foreign keys to the row do not wait for it.
    """
    if not user_ids:
        return set()
    known = (
        select(Learner.user_id)
        .where(Learner.user_id.in_(user_ids))
        .order_by(Learner.user_id)
        .with_for_update(key_share=True)
    )
    return set(connection.scalars(known))


def load_exams(
    connection: Connection, exam_ids: Collection[str], course_ids: Collection[str]
) -> Sequence[Row[Any]]:
    """All exams of the courses that are named, or that one of the exams belongs to."""
    courses_of_exams = select(Exam.course_id).where(Exam.exam_id.in_(exam_ids)).scalar_subquery()
    # Not one query with OR, and an array instead of IN: PostgreSQL would read the whole table.
    return connection.execute(
        union(
            select(Exam.__table__).where(Exam.course_id.in_(course_ids)),
            select(Exam.__table__).where(Exam.course_id == any_(func.array(courses_of_exams))),
        )
    ).all()


def load_providers(connection: Connection, course_ids: Collection[str]) -> dict[str, str | None]:
    """The provider of each course that is known."""
    rows = connection.execute(
        select(Course.course_id, Course.provider).where(Course.course_id.in_(course_ids))
    )
    return {row.course_id: row.provider for row in rows}


def live_attempts(connection: Connection, user_ids: Collection[str]) -> Sequence[Row[Any]]:
    """The live attempts of learners whose lock is held."""
    return connection.execute(
        select(Attempt.__table__).where(Attempt.user_id.in_(user_ids), Attempt.removed_at.is_(None))
    ).all()


def owed_cascades(connection: Connection, user_ids: Collection[str]) -> Sequence[Row[Any]]:
    """The cascades that are still owed to learners whose lock is held, oldest first, locked."""
    return connection.execute(
        select(Effect.id, Effect.payload, Effect.source, Effect.command_id)
        .where(
            Effect.kind == EffectKind.CASCADE_DECLINE,
            Effect.state.in_([EffectState.PENDING, EffectState.RUNNING]),
            Effect.user_id.in_(user_ids),
        )
        .order_by(Effect.sequence)
        .with_for_update()
    ).all()


def upsert_rows(connection: Connection, table: type[Base], rows: Values) -> None:
    """Insert rows, or bring those that are there to the same values, in the order given."""
    if not rows:
        return
    statement = upsert(table)
    key = [column.name for column in table.__table__.primary_key]
    changed = {name: statement.excluded[name] for name in rows[0] if name not in key}
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_=changed), rows)


def insert_transitions(connection: Connection, rows: Values) -> None:
    """Add to the history."""
    if rows:
        connection.execute(insert(Transition), rows)


def insert_effects(connection: Connection, rows: Values) -> None:
    """Write effects, in the order given: their sequence numbers grow in that order."""
    if rows:
        connection.execute(insert(Effect), rows)
        notify(connection)


def notify(connection: Connection) -> None:
    """Wake the relays when this transaction commits."""
    connection.execute(select(func.pg_notify(EFFECTS_CHANNEL, "")))


def finish_cascades(connection: Connection, effect_ids: Collection[Any]) -> None:
    """Mark cascades done that a batch has folded in, whether or not a worker had taken them."""
    if not effect_ids:
        return
    connection.execute(
        update(Effect)
        .where(Effect.id.in_(effect_ids))
        .values(state=EffectState.DONE, done_at=func.now(), lease_until=None, offered_until=None)
    )
    connection.execute(
        update(Try)
        .where(Try.effect_id.in_(effect_ids), Try.result.is_(None))
        .values(result=TryResult.FOLDED, finished_at=CLOCK)
    )
