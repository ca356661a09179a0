"""Changes of the number of shards while commands flow.

A change goes on in steps, each of which is a row's new column, so that whoever comes next goes on where it stopped:

1. It begins: rows are added for shards that are new, and every tenure ends (`begin`).
2. Publishers are told that the number will change. From then on they ask before each message (`note_told`).
3. They are told the new number, when all of them have had time to hear of it (`note_switched`).
4. Each shard that loses learners gets a barrier into its queue, when what was under way has had time to arrive. It
   passes the barrier (`pass_barrier`), and then the learners that it has lost are served by their new shards.
5. Shards that are no longer needed go, once their queues are empty (`retire`).
6. It is finished when all have passed and none is left over (`finish`).
"""

import secrets
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection

from db.shards import Fence
from events.sharding import Announcement

BARRIER_BYTES = 16

# Ages, not times, so that only the database's clock counts.
_READ = """
SELECT (SELECT count(*) FROM shards) AS rows,
    last.id, last.from_shards AS before, last.to_shards AS after, last.barrier, last.notice_s, last.settle_s,
    extract(epoch FROM clock_timestamp() - last.begun_at)::float8 AS begun_ago_s,
    extract(epoch FROM clock_timestamp() - last.told_at)::float8 AS told_ago_s,
    extract(epoch FROM clock_timestamp() - last.switched_at)::float8 AS switched_ago_s,
    last.finished_at IS NULL AS is_unfinished,
    ARRAY(SELECT shard FROM shards WHERE barrier_passed = last.id) AS passed,
    ARRAY(SELECT shard FROM shards) AS present,
    ARRAY(SELECT barrier FROM reshardings) AS barriers
FROM (SELECT) AS always
LEFT JOIN (SELECT * FROM reshardings ORDER BY id DESC LIMIT 1) AS last ON true
"""

_BEGIN = """
INSERT INTO reshardings (from_shards, to_shards, barrier, notice_s, settle_s)
VALUES (%(before)s, %(after)s, %(barrier)s, %(notice_s)s, %(settle_s)s)
"""

_ADD_SHARDS = """
INSERT INTO shards (shard, epoch)
SELECT shard, 0 FROM generate_series(%(before)s, %(after)s - 1) AS shard
"""

# An owner that does not know of the change yet commits nothing more. It takes its shard again, and then it knows.
_END_TENURES = "UPDATE shards SET epoch = epoch + 1"

_NOTE_TOLD = """
UPDATE reshardings SET told_at = clock_timestamp()
WHERE id = %(id)s AND told_at IS NULL
"""

_FORGET_TOLD = """
UPDATE reshardings SET told_at = NULL
WHERE id = %(id)s AND switched_at IS NULL
"""

_NOTE_SWITCHED = """
UPDATE reshardings SET switched_at = clock_timestamp()
WHERE id = %(id)s AND switched_at IS NULL
"""

_PASSED = """
UPDATE shards SET barrier_passed = %(id)s
WHERE shard = %(shard)s AND epoch = %(epoch)s AND owner = %(owner)s
"""

_RETIRE = """
WITH retired AS (
    DELETE FROM shards
    WHERE shard = %(shard)s AND epoch = %(epoch)s AND owner = %(owner)s
    RETURNING quarantine_discarded
), kept AS (
    UPDATE shards
    SET quarantine_discarded = shards.quarantine_discarded + retired.quarantine_discarded
    FROM retired
    WHERE shard = 0 AND retired.quarantine_discarded > 0
)
SELECT count(*) FROM retired
"""

_FINISH = "UPDATE reshardings SET finished_at = clock_timestamp() WHERE id = %(id)s AND finished_at IS NULL"


class Step(StrEnum):
    """What a change of the number of shards is doing."""

    ANNOUNCING = "announcing"
    """The broker does not tell publishers of it yet."""
    NOTICE = "notice"
    """Publishers hear that the number will change."""
    SWITCHING = "switching"
    """The broker does not tell publishers the new number yet."""
    SETTLING = "settling"
    """What was published by the old number arrives."""
    DRAINING = "draining"
    """The shards that lose learners handle what they have of them."""


@dataclass(frozen=True, slots=True)
class Resharding:
    """A change of the number of shards that is not finished.

    Parameters:
        before: how many shards there were.
        after: how many there will be. One of the two divides the other.
        barrier: a text that nobody else knows, for the message that is the barrier.
        notice_s: seconds for which publishers are told that the number will change.
        settle_s: seconds after the new number was told in which messages may still arrive by the old one.
        begun_ago_s: seconds since it began.
        told_ago_s: seconds since publishers were told that it will change; None where they were not told yet.
        switched_ago_s: seconds since they were told the new number; None where they were not told yet.
        drained: the shards that have lost learners and have handled every command of theirs.
        left_over: the shards that are no longer needed and are still there.
    """

    id: int
    before: int
    after: int
    barrier: str
    notice_s: float
    settle_s: float
    begun_ago_s: float
    told_ago_s: float | None
    switched_ago_s: float | None
    drained: Set[int]
    left_over: Set[int]

    @property
    def losing(self) -> range:
        """The shards that lose learners to others."""
        return losing(self.before, self.after)

    @property
    def waits_for(self) -> list[int]:
        """The shards that have not handled all commands of the learners that they have lost."""
        return [shard for shard in self.losing if shard not in self.drained]

    @property
    def may_switch(self) -> bool:
        """Whether publishers may be told the new number."""
        return self.told_ago_s is not None and self.told_ago_s >= self.notice_s

    @property
    def is_settled(self) -> bool:
        """Whether nothing is expected to arrive by the old number any more."""
        return self.switched_ago_s is not None and self.switched_ago_s >= self.settle_s

    @property
    def step(self) -> Step:
        """What it is doing."""
        if self.told_ago_s is None:
            return Step.ANNOUNCING
        if self.switched_ago_s is None:
            return Step.SWITCHING if self.may_switch else Step.NOTICE
        return Step.DRAINING if self.is_settled else Step.SETTLING

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return not self.waits_for and not self.left_over


@dataclass(frozen=True, slots=True)
class Sharding:
    """How the learners are divided among shards.

    Parameters:
        rows: how many shards are in the database: while the number changes, those of both numbers.
        last: the id of the last change, finished or not; 0 when there was none.
        resharding: the change that is under way.
        barriers: see `Resharding`; those of all changes. A barrier that was put twice may come after its change.
    """

    rows: int
    last: int = 0
    resharding: Resharding | None = None
    barriers: Set[str] = field(default=frozenset(), compare=False)

    @property
    def number(self) -> int:
        """The number that publishers go by. 0 when none is stored yet."""
        return self.rows if self.resharding is None else self.announcement.shards

    @property
    def announcement(self) -> Announcement:
        """What publishers are to be told."""
        change = self.resharding
        if change is None:
            return Announcement(self.rows, version=2 * self.last)
        if change.may_switch:
            return Announcement(change.after, version=2 * change.id)
        return Announcement(change.before, next=change.after, version=2 * change.id - 1)


def losing(before: int, after: int) -> range:
    """Return the shards that lose learners when the number changes. All new ones get some from them.

    Example:
        >>> losing(4, 8), losing(8, 4)
        (range(0, 4), range(4, 8))
    """
    return range(before) if after > before else range(after, before)


def read(connection: Connection) -> Sharding:
    """Read how the learners are divided now."""
    row = dict(connection.exec_driver_sql(_READ).mappings().one())
    return Sharding(
        row["rows"],
        row["id"] or 0,
        _resharding(row) if row["is_unfinished"] and row["id"] else None,
        frozenset(row["barriers"]),
    )


def _resharding(row: Mapping[str, Any]) -> Resharding:
    present = frozenset(row["present"])
    before, after = row["before"], row["after"]
    gone = {shard for shard in losing(before, after) if shard not in present}
    return Resharding(
        id=row["id"],
        before=before,
        after=after,
        barrier=row["barrier"],
        notice_s=row["notice_s"],
        settle_s=row["settle_s"],
        begun_ago_s=row["begun_ago_s"],
        told_ago_s=row["told_ago_s"],
        switched_ago_s=row["switched_ago_s"],
        drained=frozenset(row["passed"]) | gone,
        left_over=frozenset(shard for shard in present if shard >= after),
    )


def lock(connection: Connection) -> None:
    """Let nobody else begin a change, or write for a shard, until the end of the transaction."""
    connection.exec_driver_sql("LOCK TABLE shards IN SHARE ROW EXCLUSIVE MODE")


def begin(connection: Connection, before: int, after: int, *, notice_s: float, settle_s: float) -> None:
    """Begin a change. `lock` comes before it.

    Parameters:
        before, after, notice_s, settle_s: see `Resharding`.
    """
    values = {"before": before, "after": after, "notice_s": notice_s, "settle_s": settle_s}
    connection.exec_driver_sql(_BEGIN, values | {"barrier": secrets.token_hex(BARRIER_BYTES)})
    connection.exec_driver_sql(_ADD_SHARDS, values)
    connection.exec_driver_sql(_END_TENURES)


def note_told(connection: Connection, resharding_id: int) -> None:
    """Note that the broker now tells publishers that the number will change."""
    connection.exec_driver_sql(_NOTE_TOLD, {"id": resharding_id})


def forget_told(connection: Connection, resharding_id: int) -> None:
    """Note that the broker no longer tells publishers of the change, so that the notice begins again."""
    connection.exec_driver_sql(_FORGET_TOLD, {"id": resharding_id})


def note_switched(connection: Connection, resharding_id: int) -> None:
    """Note that the broker now tells publishers the new number."""
    connection.exec_driver_sql(_NOTE_SWITCHED, {"id": resharding_id})


def pass_barrier(connection: Connection, fence: Fence, resharding_id: int) -> bool:
    """Note that a shard has handled every command before its barrier. Returns False when the tenure is over."""
    values = asdict(fence) | {"id": resharding_id}
    return connection.exec_driver_sql(_PASSED, values).rowcount == 1


def retire(connection: Connection, fence: Fence) -> bool:
    """Take a shard away that is no longer needed. Returns False when the tenure is over."""
    return bool(connection.exec_driver_sql(_RETIRE, asdict(fence)).scalar_one())


def finish(connection: Connection, resharding_id: int) -> None:
    """Note that nothing is left to do."""
    connection.exec_driver_sql(_FINISH, {"id": resharding_id})
