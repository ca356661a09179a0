"""Publishes the log to one feed: in order, one process at a time, from where its cursor stands."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg2
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db import event_log, subscribers
from db.errors import brief
from db.listening import listening, wait
from db.subscribers import Tenure
from db.wake import POSITIONS_CHANNEL
from events.cloudevent import Event
from worker.commands.sources.base import BrokerAwayError
from worker.feeds.base import Format, OvertakenError, Target, Written
from worker.logs import get_logger

logger = get_logger(__name__)

RENEWALS_PER_LEASE = 3
PAUSE_S = 1.0
"""Seconds to wait after an error before the feed is taken again."""


@dataclass(frozen=True, slots=True)
class FeedPublisher:
    """Serves one feed, or stands by for it, in one thread.

    Any error of the database or the broker ends the tenure, and everything starts anew from the cursor. A feed that
    is away waits alone: every feed has a thread and a cursor of its own.

    Parameters:
        name: of the subscriber.
        format: writes the events that it wants.
        owner: who this is, for the database.
        engine: with direct connections. Each statement may be a transaction of its own.
        open_target: connects to where the feed publishes to.
        lease_s: seconds for which the feed is taken, or its lease renewed.
    """

    name: str
    format: Format
    owner: str
    engine: Engine
    open_target: Callable[[], Target]
    lease_s: float

    def run(self, stopping: threading.Event) -> None:
        """Publish until told to stop."""
        told = None
        while not stopping.is_set():
            try:
                with self.engine.begin() as connection:
                    taken = subscribers.take(connection, self.name, self.owner, self.lease_s)
                if taken is None:
                    stopping.wait(self.lease_s / RENEWALS_PER_LEASE)
                else:
                    told = self._serve(*taken, stopping, told)
            except (DBAPIError, psycopg2.Error, OvertakenError) as error:
                logger.warning("the feed starts over", subscriber=self.name, reason=brief(error))
                self.engine.dispose()
                stopping.wait(PAUSE_S)

    def _serve(self, tenure: Tenure, cursor: int, stopping: threading.Event, told: str | None) -> str | None:
        """Publish until told to stop, or until the broker takes nothing. Returns why it takes nothing.

        Parameters:
            told: the reason that was logged last. It is not logged again before something has worked.
        """
        reason = None
        try:
            with self.open_target() as target, listening(self.engine, POSITIONS_CHANNEL) as notifications:
                while not stopping.is_set():
                    if events := self.read(tenure, cursor):
                        written = self.format.write(events)
                        self.publish(target, written, tenure)
                        cursor = self.move(tenure, cursor, events[-1].position, written)
                        has_more = len(events) == event_log.READ_AT_ONCE
                    else:
                        before, cursor = cursor, self._set_cursor(tenure, cursor, cursor)  # renews the lease
                        has_more = cursor != before
                    told = None
                    if not has_more:
                        wait(notifications, self.lease_s / RENEWALS_PER_LEASE, stopping)
        except BrokerAwayError as error:
            reason = str(error)
            if reason != told:
                logger.warning("events wait in the database", subscriber=self.name, reason=reason)
        with self.engine.begin() as connection:
            subscribers.release(connection, tenure, reason)
        if reason is not None:
            stopping.wait(PAUSE_S)
        return reason

    def read(self, tenure: Tenure, cursor: int) -> Sequence[Event]:
        """Read on from the cursor. Nothing, if it stands elsewhere now or another process serves the feed."""
        with self.engine.begin() as connection:
            return subscribers.read_on(connection, tenure, cursor)

    def publish(self, target: Target, written: Written, tenure: Tenure) -> None:
        """Publish events.

        Raises:
            BrokerAwayError: the broker may have some of them, or none.
            OvertakenError: another process serves the feed.
        """
        if written.publications:
            target.publish(written.publications, tenure.epoch)

    def move(self, tenure: Tenure, before: int, after: int, written: Written) -> int:
        """Move the cursor on, count what was skipped, and renew the lease. Returns where to go on.

        Raises:
            OvertakenError: another process serves the feed, or it subscribes no more.
        """
        position = self._set_cursor(tenure, before, after, len(written.skipped), written.note)
        if written.note is not None:
            logger.warning("events skipped", subscriber=self.name, reason=written.note)
        return position

    def _set_cursor(
        self, tenure: Tenure, before: int, after: int, skipped: int = 0, note: str | None = None
    ) -> int:
        with self.engine.begin() as connection:
            position = subscribers.move(connection, tenure, before, after, self.lease_s, skipped, note)
        if position is None:
            raise OvertakenError
        return position
