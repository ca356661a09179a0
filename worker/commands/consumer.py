"""The consumer of one shard: it takes the shard, then reads, commits and acknowledges batch after batch."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db import shards
from db.errors import brief
from db.shards import Fence
from worker.commands.batches import Batches
from worker.commands.decoding import Slice, decode
from worker.commands.handler import ShardLostError
from worker.commands.sources import BrokerAwayError, Source
from worker.commands.trust import Trust
from worker.errors import ConfigurationError
from worker.logs import get_logger
from worker.pacing import Pacer

logger = get_logger(__name__)

RENEWALS_PER_LEASE = 3
ANNOUNCE_EVERY_S = 10.0
"""Seconds between announcements of the number of shards to publishers. A broker that was wiped has forgotten it."""
GATHER_S = 0.01
"""Seconds for each batch that empties the queue, in the long run, so that commands share transactions."""
PAUSE_S = 1.0
"""Seconds to wait after an error before the shard is taken again."""


class Progress:
    """When a shard was last seen to be served: a batch is finished, or nothing waits."""

    def __init__(self) -> None:
        self._at: float | None = None

    def made(self) -> None:
        """Note that it is so now."""
        self._at = time.monotonic()

    @property
    def ago_s(self) -> float | None:
        """Seconds since then. None when it was not seen yet."""
        return None if self._at is None else time.monotonic() - self._at


@dataclass(frozen=True, slots=True)
class Consumer:
    """Serves one shard, or stands by for it, in one thread.

    Any error of the database or the broker ends the tenure. The batch, the source and the connection are dropped,
    and everything starts anew. Messages that were not acknowledged are delivered again.

    Parameters:
        shard: the shard's number, from 0.
        shards: how many shards there are.
        owner: who this is, for the database.
        batch_size: the most messages of one batch.
        lease_s: seconds for which the shard is taken, or its lease renewed.
        trust: whose commands are accepted; None accepts everybody's.
    """

    shard: int
    shards: int
    owner: str
    engine: Engine
    batches: Batches
    open_source: Callable[[], Source]
    batch_size: int
    lease_s: float
    trust: Trust | None = None
    progressed: Progress = field(default_factory=Progress)

    def run(self, stopping: threading.Event) -> None:
        """Serve the shard until told to stop. A batch that has begun is finished.

        Raises:
            BadReleaseError: commands fail that should not.
            ConfigurationError: the queue, or the number of shards, is not what it must be.
        """
        while not stopping.is_set():
            try:
                fence = self.take_shard()
                if fence is None:
                    stopping.wait(self.lease_s / RENEWALS_PER_LEASE)
                else:
                    self._serve(fence, stopping)
            except (DBAPIError, BrokerAwayError, ShardLostError) as error:
                logger.warning("the shard starts over", shard=self.shard, reason=brief(error))
                self.engine.dispose()
                stopping.wait(PAUSE_S)

    def take_shard(self) -> Fence | None:
        """Take the shard. None when another process has it.

        Raises:
            ConfigurationError: the number of shards was changed.
        """
        with self.engine.begin() as connection:
            fence = shards.take(connection, self.shard, self.owner, self.lease_s)
            if fence is not None and (stored := shards.count(connection)) != self.shards:
                # Every command would seem to be on the wrong shard.
                raise ConfigurationError(
                    f"the number of shards was changed from {self.shards} to {stored}: start this process with "
                    f"INVIGILATOR_COMMAND_SHARDS={stored}"
                )
            return fence

    def _serve(self, fence: Fence, stopping: threading.Event) -> None:
        logger.info("shard taken", shard=self.shard, epoch=fence.epoch)
        try:
            # The shard is taken before the queue, because on RabbitMQ a subscriber holds back all others.
            with self.open_source() as source:
                self._read(source, fence, stopping)
        except BrokerAwayError:
            self._release(fence)
            raise
        self._release(fence)

    def _release(self, fence: Fence) -> None:
        with self.engine.begin() as connection:
            shards.release(connection, fence)
        logger.info("shard released", shard=self.shard)

    def _read(self, source: Source, fence: Fence, stopping: threading.Event) -> None:
        renew_every_s = self.lease_s / RENEWALS_PER_LEASE
        renewed_at = time.monotonic()
        accepted = Slice(self.shard, self.shards)
        announce_at = renewed_at
        pacer = Pacer(GATHER_S)
        while not stopping.is_set():
            if time.monotonic() >= announce_at:
                source.announce(self.shards)
                announce_at = time.monotonic() + ANNOUNCE_EVERY_S
            messages = source.take(self.batch_size, min(renew_every_s, PAUSE_S))
            if messages:
                items = [decode(message, self.trust, accepted) for message in messages]
                self.batches.commit(fence, items, source.held())
                source.ack(messages)
                self.progressed.made()
                renewed_at = time.monotonic()
                pacer.begin()
                if len(messages) < self.batch_size:
                    stopping.wait(pacer.pause_s())
                continue
            if source.is_empty():
                self.progressed.made()
            if time.monotonic() - renewed_at >= renew_every_s:
                self.batches.renew(fence)
                renewed_at = time.monotonic()
