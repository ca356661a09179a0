"""What the owner of a shard does for a change of the number of shards. `db.resharding` has the steps.

The owner of shard 0 leads: it tells publishers, and takes the steps that concern all. Its successor goes on from
what the database says.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Engine

from db import resharding
from db.resharding import Resharding, Sharding, Step
from db.shards import Fence
from events.sharding import Announcement
from worker.commands.handler import ShardLostError
from worker.commands.slices import Slice, barrier
from worker.commands.sources import Source
from worker.logs import get_logger

logger = get_logger(__name__)

LEADER = 0
ANNOUNCE_EVERY_S = 10.0
"""Seconds between announcements of the number of shards to publishers. A broker that was wiped has forgotten it."""
STEP_EVERY_S = 0.5
"""Seconds between looks while the number changes."""


@dataclass(slots=True)
class Part:
    """The part that the owner of a shard has in the division of the learners, for one tenure.

    Parameters:
        fence: of the tenure.
        source: the shard's queue.
        on_rows: is told how many shards there are in the database, of which somebody must take each.
    """

    engine: Engine
    fence: Fence
    source: Source
    on_rows: Callable[[int], None]
    accepted: Slice = field(init=False)
    """The learners whose commands may be handled now."""
    is_retired: bool = field(default=False, init=False)
    """Whether the shard is gone."""
    _sharding: Sharding = field(init=False)
    _look_at: float = field(default=0.0, init=False)
    _has_put: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.look()

    def look_when_due(self) -> None:
        """Look at how the learners are divided when it is time to, and do what is to be done.

        Raises:
            BrokerAwayError: the broker cannot be told.
            sqlalchemy.exc.DBAPIError: the database is away.
        """
        if time.monotonic() >= self._look_at:
            self.look()

    def look(self) -> None:
        """Look at how the learners are divided, and do what is to be done. Raises as `look_when_due`."""
        self._sharding = self._read()
        leads = self.fence.shard == LEADER
        told = self.source.told() if leads else None
        if leads and told is None and _has_given_notice(self._sharding.resharding):
            with self.engine.begin() as connection:
                resharding.forget_told(connection, self._sharding.last)
            self._sharding = self._read()
        self.accepted = Slice.of(self.fence.shard, self._sharding)
        self.on_rows(self._sharding.rows)
        change = self._sharding.resharding
        if leads:
            self._lead(change, told)
        if change is not None and self._is_to_drain(change) and change.is_settled and not self._has_put:
            self._has_put = self.source.put_barrier(barrier(change.barrier))
        self._look_at = time.monotonic() + self._pause_s(change)

    def pass_barrier(self, body: bytes) -> None:
        """Note that everything before a barrier is committed. The barrier of another change means nothing.

        Raises:
            ShardLostError: the tenure is over.
        """
        change = self._sharding.resharding
        if change is None or body != barrier(change.barrier) or not self._is_to_drain(change):
            return
        with self.engine.begin() as connection:
            if not resharding.pass_barrier(connection, self.fence, change.id):
                raise ShardLostError
        logger.info("a shard has passed its barrier", shard=self.fence.shard, resharding=change.id)
        self.look()

    def found_empty(self) -> None:
        """Note that nothing waits in the queue.

        Raises:
            ShardLostError: the tenure is over.
        """
        change = self._sharding.resharding
        if change is None:
            return
        self._has_put = False  # a broker that was wiped has lost the barrier, too
        if self.fence.shard in change.left_over and self.fence.shard in change.drained:
            with self.engine.begin() as connection:
                if not resharding.retire(connection, self.fence):
                    raise ShardLostError
            self.is_retired = True
            logger.info("a shard is gone", shard=self.fence.shard, resharding=change.id)

    def _pause_s(self, change: Resharding | None) -> float:
        if change is not None:
            return STEP_EVERY_S
        # A change that begins ends every tenure, so nobody else need look for one.
        return ANNOUNCE_EVERY_S if self.fence.shard == LEADER else math.inf

    def _is_to_drain(self, change: Resharding) -> bool:
        return self.fence.shard in change.losing and self.fence.shard not in change.drained

    def _read(self) -> Sharding:
        with self.engine.begin() as connection:
            return resharding.read(connection)

    def _lead(self, change: Resharding | None, told: Announcement | None) -> None:
        is_told = self.source.announce(self._sharding.announcement, told)
        if change is None or not is_told:
            return
        with self.engine.begin() as connection:
            if change.is_done:
                resharding.finish(connection, change.id)
                logger.info("the number of shards has changed", shards=change.after, before=change.before)
            elif change.may_switch:
                resharding.note_switched(connection, change.id)
            else:
                resharding.note_told(connection, change.id)


def _has_given_notice(change: Resharding | None) -> bool:
    """Return whether publishers were told that the number will change. A broker that is wiped forgets it."""
    return change is not None and change.step in (Step.NOTICE, Step.SWITCHING)
