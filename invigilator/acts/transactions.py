"""The transactions in which people act, and the row that each of them leaves in the audit."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from db import acts
from db.acts import NewAct, Target
from db.texts import storable
from invigilator.acts.actor import Action, Actor
from worker.logs import get_logger

logger = get_logger(__name__)

LOCK_TIMEOUT = "5s"
_RECORDED = "recorded acts"
MAX_TEXT = 2_000
"""Characters of a reason, and of an actor's name."""


@contextmanager
def acting(engine: Engine) -> Iterator[Connection]:
    """A transaction that gives up after a few seconds when somebody else holds a lock. What was done is logged."""
    recorded: list[tuple[UUID, NewAct]] = []
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        connection.info[_RECORDED] = recorded
        yield connection
    for act_id, act in recorded:
        logger.info(
            "a person acted",
            action=act.action,
            act=str(act_id),
            via=act.via,
            count=act.number,
            user=act.user_id,
        )


def record(connection: Connection, act: NewAct) -> UUID:
    """Append an act to the audit. A transaction of `acting` logs it after its commit. Returns the act's id."""
    act_id = acts.append(connection, act)
    connection.info.setdefault(_RECORDED, []).append((act_id, act))
    return act_id


def new_act(
    actor: Actor,
    action: Action,
    wanted: Mapping[str, Any],
    *,
    number: int,
    details: Mapping[str, Any],
    reason: str | None,
    targets: Sequence[Target] = (),
    user_id: str | None = None,
) -> NewAct:
    """Return the row of an act that has one step.

    Parameters:
        wanted: what it was to apply to.
        number: to how many it applied.
        details: what there was before and after.
        reason: why, in the actor's words.
        targets: the effects that were changed.
        user_id: the learner, of an act that is about one.
    """
    return NewAct(
        actor=storable(actor.name, MAX_TEXT),
        is_claimed=actor.is_claimed,
        via=actor.via.value,
        origin=actor.origin,
        action=action.value,
        filter=wanted,
        number=number,
        details=details,
        reason=None if reason is None else storable(reason, MAX_TEXT),
        targets=targets,
        user_id=user_id,
    )
