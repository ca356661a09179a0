"""Changing the number of shards."""

import math

from sqlalchemy import Connection

from db import resharding
from db.resharding import Sharding
from events.errors import InvigilatorError
from events.sharding import MAX_SHARDS
from invigilator.acts.actor import Action, Actor
from invigilator.acts.transactions import new_act, record


class ShardsError(InvigilatorError):
    """The number of shards cannot be changed so."""

    code = "shards"


def set_shards(
    connection: Connection, actor: Actor, number: int, reason: str | None, *, notice_s: float, settle_s: float
) -> Sharding:
    """Begin to change the number of shards, in the caller's transaction. The owners of the shards do the rest.

    Nothing is done when there are so many already, or when they are on the way there.

    Parameters:
        number: how many there will be.
        notice_s: seconds for which publishers are told before; at least as many as they take to ask.
        settle_s: seconds after that in which commands may arrive by the old number; at least as many as a publish
            takes.

    Returns:
        what it is now.

    Raises:
        ShardsError: the number is too great, or cannot be reached from the one that there is, or another change is
            under way.
    """
    resharding.lock(connection)
    now = resharding.read(connection)
    if now.resharding is not None:
        if now.resharding.after == number:
            return now
        raise ShardsError(
            f"the number is being changed from {now.resharding.before} to {now.resharding.after}: wait until that "
            "is finished (`invigilator shards`)"
        )
    if now.rows == number:
        return now
    _check(now.rows, number)
    resharding.begin(connection, now.rows, number, notice_s=notice_s, settle_s=settle_s)
    details = {"before": {"shards": now.rows}, "after": {"shards": number}}
    record(
        connection,
        new_act(actor, Action.SET_SHARDS, {"shards": number}, number=1, details=details, reason=reason),
    )
    return resharding.read(connection)


def _check(before: int, after: int) -> None:
    if after > MAX_SHARDS:
        raise ShardsError(f"there can be {MAX_SHARDS} shards at most")
    if before == 0:
        raise ShardsError("the database has no shards yet: start `invigilator consume`, which makes them")
    if max(before, after) % min(before, after):
        raise ShardsError(
            f"from {before} to {after} shards is not possible at once, because neither number divides the other: "
            f"{_way(before, after)}"
        )


def _way(before: int, after: int) -> str:
    over = math.lcm(before, after)
    return f"go over {over}, which both divide" if over <= MAX_SHARDS else "go over 1, which divides both"
