"""The consumer of one shard: it takes the shard, then reads, commits and acknowledges batch after batch."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db import shards
from db.errors import brief
from db.shards import Fence
from worker.commands.batches import Batches
from worker.commands.decoding import decode
from worker.commands.handler import ShardLostError
from worker.commands.resharding import STEP_EVERY_S, Part
from worker.commands.slices import NotDrainedError, Slice
from worker.commands.sources import BrokerAwayError, Message, Source
from worker.commands.spans import Item
from worker.commands.trust import Trust
from worker.logs import get_logger
from worker.pacing import Pacer

logger = get_logger(__name__)

RENEWALS_PER_LEASE = 3
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
        owner: who this is, for the database.
        batch_size: the most messages of one batch.
        lease_s: seconds for which the shard is taken, or its lease renewed.
        trust: whose commands are accepted; None accepts everybody's.
        on_rows: is told how many shards the database has, of which somebody must take each.
    """

    shard: int
    owner: str
    engine: Engine
    batches: Batches
    open_source: Callable[[], Source]
    batch_size: int
    lease_s: float
    trust: Trust | None = None
    on_rows: Callable[[int], None] = lambda _rows: None
    progressed: Progress = field(default_factory=Progress)

    def run(self, stopping: threading.Event) -> None:
        """Serve the shard until told to stop. A batch that has begun is finished.

        Raises:
            BadReleaseError: commands fail that should not.
            ConfigurationError: the queue is not what it must be.
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
        """Take the shard. None when another process has it, or when there is no such shard."""
        with self.engine.begin() as connection:
            return shards.take(connection, self.shard, self.owner, self.lease_s)

    def _serve(self, fence: Fence, stopping: threading.Event) -> None:
        logger.info("shard taken", shard=self.shard, epoch=fence.epoch)
        try:
            # The shard is taken before the queue, because on RabbitMQ a subscriber holds back all others.
            with self.open_source() as source:
                self._read(source, Part(self.engine, fence, source, self.on_rows), stopping)
        except BrokerAwayError:
            self._release(fence)
            raise
        self._release(fence)

    def _release(self, fence: Fence) -> None:
        with self.engine.begin() as connection:
            shards.release(connection, fence)
        logger.info("shard released", shard=self.shard)

    def _read(self, source: Source, part: Part, stopping: threading.Event) -> None:
        renew_every_s = self.lease_s / RENEWALS_PER_LEASE
        renewed_at = time.monotonic()
        pacer = Pacer(GATHER_S)
        while not stopping.is_set() and not part.is_retired:
            part.look_when_due()
            messages = source.take(self.batch_size, min(renew_every_s, PAUSE_S))
            if messages and self.handle(source, part, messages):
                self.progressed.made()
                renewed_at = time.monotonic()
                pacer.begin()
                if len(messages) < self.batch_size:
                    stopping.wait(pacer.pause_s())
                continue
            if messages:
                self.progressed.made()  # it waits for another shard, and `status` says so of the whole change
                stopping.wait(STEP_EVERY_S)
            elif source.is_empty():
                self.progressed.made()
                part.found_empty()
            if time.monotonic() - renewed_at >= renew_every_s:
                self.batches.renew(part.fence)
                renewed_at = time.monotonic()

    def handle(self, source: Source, part: Part, messages: Sequence[Message]) -> int:
        """Commit and acknowledge messages up to one that must wait, or to a barrier. Give the others back.

        Raises:
            BrokerAwayError: the broker is away. What was committed comes again, and the inbox knows it.
            BadReleaseError, ShardLostError, sqlalchemy.exc.DBAPIError: see `Batches.commit`.

        Returns:
            how many are done with.
        """
        items = self._decoded(messages, part.accepted)
        done = len(items)
        if items:
            self.batches.commit(part.fence, items, source.held() + len(messages) - done)
        if done:
            source.ack(messages[:done])
        if done < len(messages) and messages[done].body in part.accepted.barriers:
            # The broker answers a question only after it has heard of the acknowledgement. If it delivered those
            # messages again behind the barrier, they would be on the wrong shard.
            source.is_empty()
            part.pass_barrier(messages[done].body)
            source.ack(messages[done : done + 1])
            done += 1
        source.put_back(messages[done:])
        return done

    def _decoded(self, messages: Sequence[Message], accepted: Slice) -> list[Item]:
        items: list[Item] = []
        with suppress(NotDrainedError):
            for message in messages:
                if message.body in accepted.barriers:
                    break
                items.append(decode(message, self.trust, accepted))
        return items
