"""Warns while a process's own file of subscriptions says something else than what the relay has stored."""

import threading
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db import subscribers
from worker.logs import get_logger
from worker.subscriptions import Subscriptions

logger = get_logger(__name__)

FIRST_AFTER_S = 10.0
"""Seconds after the start: a relay that was started with this process has stored its file by then."""
EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compares the two from time to time, and warns of each difference once.

    What the relay has stored counts. The file of another machine may be an older copy.

    Parameters:
        engine: no connection stays open between two looks.
        file: where the subscriptions were read.
        subscriptions: what the file says.
    """

    engine: Engine
    file: Path
    subscriptions: Subscriptions

    def run(self, stopping: threading.Event) -> None:
        """Compare until told to stop. A database that is away is asked again later."""
        warned_of: list[str] = []
        wait_s = FIRST_AFTER_S
        while not stopping.wait(wait_s):
            warned_of = self.look(warned_of)
            wait_s = EVERY_S

    def look(self, warned_of: list[str]) -> list[str]:
        """Compare once. Returns the names of the subscribers that differ, and warns unless they were warned of."""
        try:
            with self.engine.connect() as connection:
                stored = subscribers.definitions(connection)
        except DBAPIError:
            return warned_of  # the other threads of this process say so
        finally:
            self.engine.dispose()
        own = self.subscriptions.definitions()
        differ = sorted(name for name in own.keys() | stored.keys() if own.get(name) != stored.get(name))
        if differ and differ != warned_of:
            logger.warning(
                "the file of subscriptions differs",
                file=self.file,
                subscribers=", ".join(differ),
                hint="what the relay has stored counts: give every process the same file, and restart the relay",
            )
        return differ
