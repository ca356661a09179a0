"""Removes what was finished long ago: once when a person asks for it, or every day beside the relay."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from db import event_log
from db.errors import Failure, brief, classify
from db.prune import Page, Place, Removed, moment_before, remove_commands, remove_effects
from worker.logs import get_logger

logger = get_logger(__name__)

PAGE_PAUSE_S = 0.05
"""The pause between two transactions, which lets everybody else come first."""
FIRST_AFTER_S = 10.0
"""The wait before the first pruning, and before another try while the database is away."""
EVERY_S = 24 * 3600.0
AGAIN_AFTER_S = 600.0
"""The wait after any other error of the database."""


def prune(engine: Engine, older_than: timedelta, stopping: threading.Event) -> Removed:
    """Remove effects and commands that were finished longer ago than that.

    Several processes may prune at the same time. Each row is removed by one of them.

    Parameters:
        engine: of the database.
        older_than: the age of what is removed.
        stopping: ends the pruning early when it is set.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away, or a table is locked. What was removed stays removed.
    """
    with engine.begin() as connection:
        before = moment_before(connection, older_than)
    effects = _remove(engine, remove_effects, before, stopping)
    return effects + _remove(engine, remove_commands, before, stopping)


def prune_events(engine: Engine, older_than: timedelta, stopping: threading.Event) -> int:
    """Remove events that are older than that, and that every subscriber has passed. Returns how many.

    Parameters and errors are those of `prune`.
    """
    removed = 0
    while not stopping.is_set():
        with engine.begin() as connection:
            page = event_log.prune(connection, older_than)
        removed += page
        if page < event_log.PAGE_ROWS:
            break
        stopping.wait(PAGE_PAUSE_S)
    return removed


def _remove(
    engine: Engine,
    remove: Callable[[Connection, datetime, Place | None], Page[Place]],
    before: datetime,
    stopping: threading.Event,
) -> Removed:
    removed, place = Removed(), None
    while not stopping.is_set():
        with engine.begin() as connection:
            page = remove(connection, before, place)
        removed, place = removed + page.removed, page.end
        if place is None:
            break
        stopping.wait(PAGE_PAUSE_S)
    return removed


@dataclass(frozen=True, slots=True)
class Pruner:
    """Prunes soon after the start, then every day.

    Parameters:
        older_than: the age of effects and commands that are removed. None leaves them.
        events_keep: the age of events that are removed.
    """

    engine: Engine
    older_than: timedelta | None
    events_keep: timedelta

    def run(self, stopping: threading.Event) -> None:
        """Prune until told to stop. An error of the database does not end this: it is logged, and tried again."""
        wait_s = FIRST_AFTER_S
        self.engine.dispose()  # no connection waits, neither that of the checks before nor for the next day
        while not stopping.wait(wait_s):
            wait_s = self._prune(stopping)
            self.engine.dispose()

    def _prune(self, stopping: threading.Event) -> float:
        try:
            events = prune_events(self.engine, self.events_keep, stopping)
            removed = None if self.older_than is None else prune(self.engine, self.older_than, stopping)
        except DBAPIError as error:
            again_s = FIRST_AFTER_S if classify(error) is Failure.UNAVAILABLE else AGAIN_AFTER_S
            logger.warning("pruning tries again", reason=brief(error), again_in_s=again_s)
            return again_s
        if removed is not None:
            logger.info("pruned", effects=removed.effects, tries=removed.tries, commands=removed.commands)
        if events:
            logger.info("events pruned", events=events)
        return EVERY_S
