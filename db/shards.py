"""Ownership of shards, fenced by an epoch. Every time is the database's."""

from dataclasses import dataclass

from sqlalchemy import Connection, Update, func, insert, or_, select, text, update

from db.clock import CLOCK, in_seconds
from db.models import Shard
from events.sharding import MAX_SHARDS

IN_HAND_LOCKS = 491_627_000
"""Any number that is ours. Of the advisory locks from here on, one for each shard, the second key is a number of
messages."""

_IN_HAND = text(
    """SELECT classid::bigint - :first AS shard, max(objid::bigint) AS messages FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid::bigint BETWEEN :first AND :last
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    GROUP BY classid"""
)


@dataclass(frozen=True, slots=True)
class Fence:
    """Proof of a tenure: whoever holds the newest epoch of a shard may write for it."""

    shard: int
    owner: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a batch does first about its shard.

    Parameters:
        lease_s: seconds until somebody else may take it.
        in_hand: how many messages were taken and not acknowledged. Until the transaction ends, `in_hand` tells
            everybody.
    """

    fence: Fence
    lease_s: float
    in_hand: int


def ensure_shards(connection: Connection, number: int) -> int:
    """Store the number of shards if none is stored yet, and return what is stored."""
    stored = count(connection)
    if stored == 0:
        connection.execute(text("LOCK TABLE shards IN SHARE ROW EXCLUSIVE MODE"))
        stored = count(connection)  # another process may have decided while this one waited
    if stored == 0:
        connection.execute(insert(Shard), [{"shard": n, "epoch": 0} for n in range(number)])
    return stored or number


def count(connection: Connection) -> int:
    """The number of shards that is stored; 0 when none is yet."""
    return connection.scalar(select(func.count()).select_from(Shard)) or 0


def take(connection: Connection, shard: int, owner: str, lease_s: float) -> Fence | None:
    """Take a shard and raise its epoch; None while somebody else has it. An owner need not wait for its own lease:
    it begins anew after each error.

    An owner in the middle of a batch holds the row's lock: the shard is not free, and nobody waits for it.
    """
    free = (
        select(Shard.shard)
        .where(
            Shard.shard == shard,
            or_(Shard.lease_until.is_(None), Shard.lease_until < CLOCK, Shard.owner == owner),
        )
        .with_for_update(skip_locked=True)
    )
    epoch = connection.scalar(
        update(Shard)
        .where(Shard.shard.in_(free))
        .values(owner=owner, epoch=Shard.epoch + 1, lease_until=in_seconds(lease_s))
        .returning(Shard.epoch)
    )
    return None if epoch is None else Fence(shard, owner, epoch)


def renew(connection: Connection, fence: Fence, lease_s: float) -> bool:
    """Renew a lease while nothing waits; False when the tenure is over. Every batch does so by itself, first."""
    renewal = _mine(fence).values(lease_until=in_seconds(lease_s))
    return connection.execute(renewal).rowcount == 1


def in_hand(connection: Connection) -> dict[int, int]:
    """How many messages the batches that are being written have in hand, by shard."""
    rows = connection.execute(_IN_HAND, {"first": IN_HAND_LOCKS, "last": IN_HAND_LOCKS + MAX_SHARDS - 1})
    return {row.shard: row.messages for row in rows}


def release(connection: Connection, fence: Fence) -> None:
    """Give a shard back, so that a standby need not wait for the lease to end."""
    connection.execute(_mine(fence).values(owner=None, lease_until=None))


def _mine(fence: Fence) -> Update:
    return update(Shard).where(
        Shard.shard == fence.shard, Shard.epoch == fence.epoch, Shard.owner == fence.owner
    )
