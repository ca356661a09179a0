"""Stores who subscribes, and numbers the events of the log as they are committed."""

import threading
from dataclasses import dataclass

import psycopg2
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db import deliveries, event_log, subscribers
from db.errors import brief
from db.listening import listening, wait
from db.wake import EVENTS_CHANNEL
from worker.logs import get_logger
from worker.pacing import Pacer
from worker.subscriptions import Subscriptions

logger = get_logger(__name__)

GATHER_S = 0.2
"""Seconds for each round, in the long run. Notifications gather meanwhile, and one round serves many batches.

Each round is also one of each feed and webhook.
"""


@dataclass(frozen=True, slots=True)
class Numberer:
    """Numbers events until told to stop. Several may run: the lock of the log's row lets one at a time.

    Parameters:
        engine: with a direct connection.
        subscriptions: of the settings' file.
        poll_s: seconds after which it looks without being notified.
    """

    engine: Engine
    subscriptions: Subscriptions
    poll_s: float

    def run(self, stopping: threading.Event) -> None:
        """Store who subscribes. Then number what is committed, if anybody does."""
        is_stored = False
        while not stopping.is_set():
            try:
                if not is_stored:
                    self.store()
                    is_stored = True
                if self.subscriptions.definitions():
                    self._serve(stopping)
                else:
                    self.engine.dispose()
                    stopping.wait()
            except (DBAPIError, psycopg2.Error) as error:
                self.engine.dispose()  # the session that listened is lost, and no look tells the pool
                logger.warning("the numbering tries again", reason=brief(error), again_in_s=self.poll_s)
                stopping.wait(self.poll_s)

    def store(self) -> None:
        """Store who subscribes. The other processes follow what is stored."""
        with self.engine.begin() as connection:
            taken_out = subscribers.store(
                connection, self.subscriptions.definitions(), self.subscriptions.without_cursor()
            )
        for name in taken_out:
            logger.warning("a cursor is forgotten", subscriber=name, reason="it subscribes no more")
        # In a transaction of its own, which every start repeats: effects are locked before the rows of subscribers.
        with self.engine.begin() as connection:
            cancelled = deliveries.cancel_orphans(connection)
        if cancelled:
            logger.warning("deliveries cancelled", count=cancelled, reason="they subscribe no more")

    def number_once(self) -> bool:
        """Number what is committed. Returns whether there may be more."""
        with self.engine.begin() as connection:
            return event_log.number(connection) == event_log.NUMBERED_AT_ONCE

    def _serve(self, stopping: threading.Event) -> None:
        with listening(self.engine, EVENTS_CHANNEL) as notifications:
            pacer = Pacer(GATHER_S)
            while not stopping.is_set():
                pacer.begin()
                if not self.number_once():
                    stopping.wait(pacer.pause_s())
                    wait(notifications, self.poll_s, stopping)
