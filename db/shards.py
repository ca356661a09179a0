"""Ownership of shards: a lease, and an epoch that is the fencing token. All times are the database's."""

from dataclasses import asdict, dataclass

from sqlalchemy import Connection

from events.sharding import MAX_SHARDS

IN_HAND_LOCKS = 491_627_000
"""The first key of shard 0's advisory lock, an arbitrary number. The others follow. The second key is not an id: it
is the number of messages that a batch has in hand."""

_COUNT = "SELECT count(*) FROM shards"

_ADD = "INSERT INTO shards (shard, epoch) SELECT shard, 0 FROM generate_series(0, %(number)s - 1) AS shard"

# An owner in the middle of a batch holds the row's lock: the shard is not free, and nobody waits for it.
_TAKE = """
UPDATE shards
SET owner = %(owner)s, epoch = epoch + 1, lease_until = clock_timestamp() + %(lease_s)s * interval '1 s'
WHERE shard = (
    SELECT shard
    FROM shards
    WHERE shard = %(shard)s
        AND (lease_until IS NULL OR lease_until < clock_timestamp() OR owner = %(owner)s)
    FOR UPDATE SKIP LOCKED
)
RETURNING epoch
"""

_RENEW = """
UPDATE shards
SET lease_until = clock_timestamp() + %(lease_s)s * interval '1 s'
WHERE shard = %(shard)s AND epoch = %(epoch)s AND owner = %(owner)s
"""

_RELEASE = """
UPDATE shards
SET owner = NULL, lease_until = NULL
WHERE shard = %(shard)s AND epoch = %(epoch)s AND owner = %(owner)s
"""

# It waits for the batch of the shard that is being written, and for no other shard's.
_PROGRESS = """
UPDATE shards
SET progressed_at = clock_timestamp() - %(ago_s)s * interval '1 s'
WHERE shard = %(shard)s AND owner = %(owner)s
"""

_IN_HAND = """
SELECT classid::bigint - %(first)s AS shard, max(objid::bigint) AS messages
FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 2 AND granted
    AND classid::bigint BETWEEN %(first)s AND %(last)s
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
GROUP BY classid
"""


@dataclass(frozen=True, slots=True)
class Fence:
    """Proves a tenure: only the holder of a shard's newest epoch may write for it."""

    shard: int
    owner: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a batch tells about its shard first.

    Parameters:
        fence: of the shard.
        lease_s: seconds until another owner may take the shard.
        in_hand: how many messages are taken and not acknowledged. Kept as an advisory lock, which `in_hand()`
            reads.
    """

    fence: Fence
    lease_s: float
    in_hand: int


def ensure_shards(connection: Connection, number: int) -> int:
    """Store the number of shards if none is stored yet, and return what is stored."""
    stored = count(connection)
    if stored == 0:
        connection.exec_driver_sql("LOCK TABLE shards IN SHARE ROW EXCLUSIVE MODE")
        stored = count(connection)  # another process may have decided while this one waited
    if stored == 0:
        connection.exec_driver_sql(_ADD, {"number": number})
    return stored or number


def count(connection: Connection) -> int:
    """The number of shards that is stored. 0 when none is yet."""
    return int(connection.exec_driver_sql(_COUNT).scalar_one())


def take(connection: Connection, shard: int, owner: str, lease_s: float) -> Fence | None:
    """Take a free shard and raise its epoch. Returns None while another owner has it.

    An owner does not wait for its own lease to end, because it begins anew after each error.
    """
    values = {"shard": shard, "owner": owner, "lease_s": lease_s}
    epoch = connection.exec_driver_sql(_TAKE, values).scalar()
    return None if epoch is None else Fence(shard=shard, owner=owner, epoch=epoch)


def renew(connection: Connection, fence: Fence, lease_s: float) -> bool:
    """Renew a lease while no messages wait. Returns False when the tenure is over.

    A batch renews the lease itself.
    """
    return connection.exec_driver_sql(_RENEW, asdict(fence) | {"lease_s": lease_s}).rowcount == 1


def in_hand(connection: Connection) -> dict[int, int]:
    """How many messages the batches that are being written have in hand, by shard."""
    bounds = {"first": IN_HAND_LOCKS, "last": IN_HAND_LOCKS + MAX_SHARDS - 1}
    return {row.shard: row.messages for row in connection.exec_driver_sql(_IN_HAND, bounds)}


def release(connection: Connection, fence: Fence) -> None:
    """Give a shard back, so that a standby need not wait for the lease to end."""
    connection.exec_driver_sql(_RELEASE, asdict(fence))


def progress(connection: Connection, shard: int, owner: str, ago_s: float) -> None:
    """Store when the owner of a shard last finished a batch, or found nothing to do. Others change nothing.

    Parameters:
        ago_s: seconds since then.
    """
    connection.exec_driver_sql(_PROGRESS, {"shard": shard, "owner": owner, "ago_s": ago_s})
