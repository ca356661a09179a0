"""Commits batches: one fenced transaction each, run again after a collision, split when a command fails."""

import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from traceback import format_tb

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db import shards, totals
from db.errors import Failure, classify, describe
from db.quarantine import Unreadable
from db.shards import Fence, Renewal
from events.errors import InvigilatorError
from events.vocabulary import QuarantineCode
from worker.commands.handler import Handler, Received, ShardLostError

logger = logging.getLogger(__name__)

COLLISIONS = 5
"""How often a batch is run that collides with other transactions. After that the tenure of the shard ends."""
FAILURES_IN_A_ROW = 3
"""So many commands that fail in a row mean that the release is wrong, not the messages."""


class BadReleaseError(InvigilatorError):
    """Commands fail that should not. The release or the schema is wrong, not the messages."""

    code = "bad_release"


Item = Received | Unreadable


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
        try:
            self._commit(fence, items)
            self.failures = 0
        except Exception as error:
            if _ends_tenure(error):
                raise
            logger.info("a batch of %d failed (%s); one at a time", len(items), describe(error))
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
            quarantined = self.handler.handle(connection, renewal, received, unreadable)
        totals.batches.observe(time.monotonic() - began)
        for message in quarantined.messages:
            logger.warning("a message went to quarantine: %s: %s", message.code, message.detail)
        if quarantined.discarded:
            logger.warning(
                "the quarantine is full: its oldest messages were discarded: %d", quarantined.discarded
            )

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
        failed = Unreadable(
            QuarantineCode.FAILED,
            detail,
            item.headers,
            item.body,
            item.receipt.at,
            *item.key,
            item.command.data.learner_id,
        )
        # The trace is logged without the text of the error, which may quote data.
        logger.error("a command failed (%s):\n%s", describe(error), "".join(format_tb(error.__traceback__)))
        self._commit(fence, [failed])


def _ends_tenure(error: Exception) -> bool:
    """Return whether an error has nothing to do with the messages, so that the tenure ends instead."""
    if isinstance(error, DBAPIError):
        return classify(error) in (Failure.UNAVAILABLE, Failure.RETRY)
    return isinstance(error, ShardLostError)
