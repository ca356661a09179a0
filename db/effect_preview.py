"""What an act on effects would find, before it is done."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, case, exists, func, select
from sqlalchemy.orm import aliased

from db.models import Cause, Effect
from db.states import EffectState

LOOKED_AT = 10_000
"""Of so many effects it is asked whether a newer one is done already, so that the answer comes at once."""


@dataclass(frozen=True, slots=True)
class Group:
    """Effects of one kind that failed last because of one cause.

    Parameters:
        cause: None for those that did not fail.
        reason: the cause in words. None where there is no cause.
        count: how many they are.
    """

    kind: str
    cause: str | None
    reason: str | None
    count: int


def groups(connection: Connection, conditions: Sequence[ColumnElement[bool]]) -> list[Group]:
    """Return how many effects fulfil conditions, by kind and cause, the most frequent first."""
    number = func.count().label("count")
    statement = (
        select(Effect.kind, Effect.cause, func.max(Cause.reason).label("reason"), number)
        .outerjoin(Cause, Cause.id == Effect.cause)
        .where(*conditions)
        .group_by(Effect.kind, Effect.cause)
        .order_by(number.desc(), Effect.kind, Effect.cause)
    )
    return [
        Group(row.kind, row.cause, row.reason, row._mapping["count"]) for row in connection.execute(statement)
    ]


def late(connection: Connection, conditions: Sequence[ColumnElement[bool]]) -> int:
    """Return how many of the effects that fulfil conditions come too late: a newer one of their order is done.

    Such is a mail that is older than one that was sent about the same attempt. Looks at the oldest `LOOKED_AT`.
    """
    some = (
        select(Effect.order_key, Effect.sequence)
        .where(*conditions, Effect.order_key.is_not(None))
        .order_by(Effect.created_at)
        .limit(LOOKED_AT)
        .subquery()
    )
    newer = aliased(Effect)
    # The CASE hides the state from the planner, so the rows are found by their order key: see `db.order`.
    is_done = case((newer.state == EffectState.DONE, True), else_=False)
    overtaken = exists().where(newer.order_key == some.c.order_key, newer.sequence > some.c.sequence, is_done)
    return connection.scalar(select(func.count()).select_from(some).where(overtaken)) or 0
