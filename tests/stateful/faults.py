"""Faults at the moment of a commit: the process dies, or the connection breaks."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

import psycopg2
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError


class CrashError(BaseException):
    """The process has died. It is a BaseException, so the code under test does not catch it."""


class Fault(Enum):
    """What happens at a commit: in the database, and to the process."""

    DIES_BEFORE = "rolled back, process dead"
    DIES_AFTER = "committed, process dead"
    CUT_BEFORE = "rolled back, connection lost"
    CUT_AFTER = "committed, connection lost"


DEADLY = (Fault.DIES_BEFORE, Fault.DIES_AFTER)
COMMITTED = (Fault.DIES_AFTER, Fault.CUT_AFTER)


class Faults:
    """Makes one commit on the engine fail while armed."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.struck = False
        """Whether a commit has failed since the faults were armed."""
        self._armed: Fault | None = None
        self._spared = 0
        event.listen(engine, "commit", self._strike)

    def close(self) -> None:
        """Stop listening to commits."""
        event.remove(self.engine, "commit", self._strike)

    @contextmanager
    def armed(self, fault: Fault | None, spared: int = 0) -> Iterator[None]:
        """Make the first commit of the block fail, or the one after `spared` others."""
        self._armed, self._spared, self.struck = fault, spared, False
        try:
            yield
        finally:
            self._armed = None

    def _strike(self, connection: Connection) -> None:
        if self._armed is None:
            return
        if self._spared:
            self._spared -= 1
            return
        fault, self._armed, self.struck = self._armed, None, True
        if fault in COMMITTED:
            driver: Any = connection.connection
            driver.commit()
        if fault in DEADLY:
            raise CrashError
        raise OperationalError(None, None, psycopg2.OperationalError("gone"), connection_invalidated=True)
