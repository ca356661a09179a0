"""Takes samples of what is counted, and counts anew once a day, beside the relay."""

import logging
import threading
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db import backlog, samples, totals
from db.errors import brief
from worker.kinds import EffectKind

logger = logging.getLogger(__name__)

EVERY_S = samples.EVERY.total_seconds()
SAMPLES_A_DAY = int(86_400 / EVERY_S)


@dataclass(frozen=True, slots=True)
class Counting:
    """Counts at the start and then once a day, and takes a sample every few minutes.

    An error of the database does not end this. The next turn counts instead, and that sample is missing.
    """

    engine: Engine

    def run(self, stopping: threading.Event) -> None:
        """Count until told to stop."""
        turn = 0
        while not stopping.is_set():
            try:
                if turn % SAMPLES_A_DAY == 0:
                    with self.engine.connect() as connection:
                        totals.recount(connection)
                self.sample()
                turn += 1
            except DBAPIError as error:
                logger.warning("counting: %s; trying again in %g s", brief(error), EVERY_S)
            self.engine.dispose()  # no connection waits for the next turn
            stopping.wait(EVERY_S)

    def sample(self) -> None:
        """Store what is counted now."""
        with self.engine.connect() as connection:
            owed = backlog.by_kind(connection)
            with connection.begin():
                values = totals.read(connection, totals.COMMANDS, totals.TRIES)
                for kind in EffectKind:
                    one = owed.get(kind, backlog.NOTHING)
                    values |= {(samples.PENDING, kind): one.pending, (samples.FAILED, kind): one.failed}
                samples.take(connection, values)
