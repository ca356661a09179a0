"""Commits batches: one fenced transaction each, run again after a collision, split when a command fails."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from traceback import format_tb

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db import shards
from db.errors import Failure, classify, describe
from db.quarantine import Unreadable
from db.shards import Fence, Renewal
from events.errors import InvigilatorError
from events.vocabulary import QuarantineCode
from worker.batch_times import batch_times
from worker.commands import spans
from worker.commands.decoding import Received
from worker.commands.handler import Handler, ShardLostError
from worker.commands.reporting import report
from worker.commands.spans import BatchSpans, Item
from worker.logs import get_logger
from worker.tracing import Span

logger = get_logger(__name__)

COLLISIONS = 5
"""How often a batch is run that collides with other transactions. After that the tenure of the shard ends."""
FAILURES_IN_A_ROW = 3
"""So many commands that fail in a row mean that the release is wrong, not the messages."""


class BadReleaseError(InvigilatorError):
    """Commands fail that should not. The release or the schema is wrong, not the messages."""

    code = "bad_release"


@dataclass(slots=True)
class Batches:
    """Commits batches for one shard; used by one thread."""

    engine: Engine
    handler: Handler
    lease_s: float
    failures: int = field(default=0, init=False)
    """How many commands have failed in a row."""
    in_hand: int = field(default=0, init=False)
    """How many messages were taken and are not committed, in this batch and after it."""

    _spans: BatchSpans = field(default_factory=lambda: BatchSpans((), Span(None)), init=False)

    def commit(self, fence: Fence, items: Sequence[Item], behind: int = 0) -> None:
        """Commit a batch: every message in it ends in the record or in quarantine.

        Parameters:
            items: the messages, in the order in which they arrived.
            behind: how many more messages were taken, for later batches.

        Raises:
            ShardLostError: the tenure is over, and nothing was committed.
            sqlalchemy.exc.DBAPIError: the database is away. The batch may be committed; the inbox knows.
            BadReleaseError: too many commands fail.
        """
        self.in_hand = len(items) + behind
        self._spans = spans.begin(fence.shard, items)
        self._commit_or_split(fence, self._spans.items)
        self._spans.end()

    def _commit_or_split(self, fence: Fence, items: Sequence[Item]) -> None:
        try:
            self._commit(fence, items)
            self.failures = 0
        except Exception as error:
            if _ends_tenure(error):
                raise
            logger.info("a batch is split", shard=fence.shard, messages=len(items), reason=describe(error))
            for item in items:
                self._commit_alone(fence, item)
                self.in_hand -= 1

    def renew(self, fence: Fence) -> None:
        """Renew the lease of the shard while there is nothing to do.

        Raises:
            ShardLostError: the tenure is over.
        """
        with self.engine.begin() as connection:
            if not shards.renew(connection, fence, self.lease_s):
                raise ShardLostError

    def _commit(self, fence: Fence, items: Sequence[Item]) -> None:
        for collisions in range(1, COLLISIONS):
            try:
                return self._commit_once(fence, items)
            except DBAPIError as error:
                if classify(error) not in (Failure.RETRY, Failure.CONFLICT):
                    raise
                time.sleep(random.uniform(0, 0.02 * collisions))  # noqa: S311 - or both would collide again
        return self._commit_once(fence, items)

    def _commit_once(self, fence: Fence, items: Sequence[Item]) -> None:
        received = [item for item in items if isinstance(item, Received)]
        unreadable = [item for item in items if isinstance(item, Unreadable)]
        renewal = Renewal(fence, self.lease_s, self.in_hand)
        began = time.monotonic()
        with self.engine.begin() as connection:
            written = self.handler.handle(connection, renewal, received, unreadable)
        batch_times.observe(time.monotonic() - began, len(items))
        report(written, fence.shard)
        self._spans.note(written)

    def _commit_alone(self, fence: Fence, item: Item) -> None:
        try:
            self._commit(fence, [item])
            self.failures = 0
        except Exception as error:
            if _ends_tenure(error):
                raise
            self._give_up(fence, item, error)

    def _give_up(self, fence: Fence, item: Item, error: Exception) -> None:
        self.failures += 1
        hopeless = isinstance(error, DBAPIError) and classify(error) is Failure.OTHER
        if hopeless or self.failures >= FAILURES_IN_A_ROW or isinstance(item, Unreadable):
            raise BadReleaseError(
                f"{self.failures} command(s) in a row failed, the last with {describe(error)}: "
                "the release may be wrong, so nothing more is taken"
            ) from error
        detail = f"failed with {describe(error)}; mend the cause, then replay it"
        failed = item.unreadable(QuarantineCode.FAILED, detail)
        # The trace is logged without the text of the error, which may quote data.
        logger.error(
            "a command broke",
            shard=fence.shard,
            source=item.command.source,
            command=item.command.id,
            reason=describe(error),
            exception="".join(format_tb(error.__traceback__)).rstrip(),
        )
        self._commit(fence, [failed])


def _ends_tenure(error: Exception) -> bool:
    """Return whether an error has nothing to do with the messages, so that the tenure ends instead."""
    if isinstance(error, DBAPIError):
        return classify(error) in (Failure.UNAVAILABLE, Failure.RETRY)
    return isinstance(error, ShardLostError)
