"""Removes what was finished long ago: once when a person asks for it, or every day beside the relay."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from db import dropping, event_log, partitioning, partitions, totals
from db.dropping import Dropped
from db.errors import Failure, brief, classify
from db.partitions import COMMANDS, EFFECTS, EVENTS, REST, BusyError, Divided, PartitionsError
from db.prune import Page, Place, Removed, remove_commands, remove_effects
from worker.logs import get_logger

logger = get_logger(__name__)

Done = TypeVar("Done")

PAGE_PAUSE_S = 0.05
"""The pause between two transactions, which lets everybody else come first."""
FIRST_AFTER_S = 10.0
"""The wait before the first pruning, and before another try while the database is away."""
EVERY_S = 24 * 3600.0
AGAIN_AFTER_S = 600.0
"""The wait after any other error of the database."""

LOCK_TRIES = 30
LOCK_PAUSE_S = 0.1
MOST_LOCK_PAUSE_S = 10.0
"""A step that everybody waits for gives up after a moment, and is tried again so often. The pauses double, so that
the others are not kept from their work for long while somebody reads for minutes."""

OWNER_ONLY = (
    "partitions are made and dropped by the role that owns the tables: as that role, run "
    "`invigilator partitions make` and `invigilator partitions drop` now and then"
)

Also = Callable[[Connection, str, Dropped], None]
"""What else is done in the transaction that drops a part: gets the part and what went with it."""


def prune(engine: Engine, older_than: timedelta, stopping: threading.Event) -> Removed:
    """Remove effects and commands that were finished longer ago than that.

    Several processes may prune at the same time. Each row is removed by one of them. Where the tables are divided,
    periods that are wholly older go as a whole, if the role owns them.

    Parameters:
        engine: of the database.
        older_than: the age of what is removed.
        stopping: ends the pruning early when it is set.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away, or a table is locked. What was removed stays removed.
    """
    divided = _divided(engine)
    before = divided.now - older_than
    remove: Callable[[Connection, datetime, int | None], Page[int]] = remove_effects
    removed = Removed()
    if divided.is_divided("effects"):
        removed = Removed(**drop_old(engine, divided, EFFECTS, before))
        remove = partial(remove_effects, table=f"effects_{REST}")
    removed += _remove(engine, remove, before, stopping)
    if divided.is_divided("inbox"):
        return removed + Removed(commands=drop_old(engine, divided, COMMANDS, before)["inbox"])
    return removed + _remove(engine, remove_commands, before, stopping)


def prune_events(engine: Engine, older_than: timedelta, stopping: threading.Event) -> int:
    """Remove events that are older than that, and that every subscriber has passed. Returns how many.

    Parameters and errors are those of `prune`.
    """
    divided = _divided(engine)
    before = divided.now - older_than
    removed, remove = 0, event_log.prune
    if divided.is_divided("events"):
        removed, remove = drop_old(engine, divided, EVENTS, before)["events"], event_log.prune_rest
    while not stopping.is_set():
        with engine.begin() as connection:
            page = remove(connection, older_than)
        removed += page
        if page < event_log.PAGE_ROWS:
            break
        stopping.wait(PAGE_PAUSE_S)
    return removed


def drop_old(engine: Engine, divided: Divided, tables: Sequence[str], before: datetime) -> Mapping[str, int]:
    """Drop the parts of tables that are wholly from before a moment. Returns how many rows went, by table.

    A role that does not own the tables drops nothing.
    """
    went = dict.fromkeys(tables, 0)
    if not divided.is_owner:
        return went
    for _, dropped in drop_parts(engine, divided, tables, before):
        if isinstance(dropped, str):
            logger.info("a partition stays", reason=dropped)
        else:
            went = {table: number + dropped.rows[table] for table, number in went.items()}
    return went


def drop_parts(
    engine: Engine, divided: Divided, tables: Sequence[str], before: datetime, also: Also | None = None
) -> Iterator[tuple[str, Dropped | str]]:
    """Drop the parts of tables that share their bounds, oldest first, up to one that has to stay.

    Parameters:
        divided: what was read before.
        before: the moment that all of a part must be from before.
        also: what else each transaction does.

    Yields:
        each part, and what went with it, or why it stays.

    Raises:
        PartitionsError: the role does not own the tables.
        sqlalchemy.exc.DBAPIError: the database is away, or a table stays locked. What was dropped stays dropped.
    """
    _check_owner(divided)

    def drop(part: str, rows: Mapping[str, int], connection: Connection) -> Dropped:
        dropped = dropping.drop(connection, tables, part, before, rows)
        if also is not None:
            also(connection, part, dropped)
        return dropped

    for part in dropping.droppable(divided, tables, before):
        try:
            with engine.begin() as connection:
                rows = dropping.count(connection, tables, part, before)
            dropped = patiently(engine, partial(drop, part, rows))
        except PartitionsError as error:
            yield part, str(error)
            return
        if tables == EFFECTS:
            with engine.connect() as connection:
                totals.recount(connection)
        yield part, dropped


def make_partitions(engine: Engine) -> list[str]:
    """Make the partitions that are missing for this period and the next ones. Returns their names.

    It first takes away what an unfinished `begin` has left, if that would refuse new ids in less than a week.

    Raises:
        PartitionsError: the role does not own the tables.
        sqlalchemy.exc.DBAPIError: the database is away, or a table stays locked.
    """
    divided = _divided(engine)
    with engine.begin() as connection:
        abandoned = partitioning.abandoned(connection, divided.now) if divided.is_owner else []
    for tables in abandoned:
        patiently(engine, partial(partitioning.unbound, tables=tables))
        logger.warning(
            "dividing is given up", tables=tables, hint="`invigilator partitions begin` begins anew"
        )
    made = []
    for tables, period in partitions.missing(divided):
        _check_owner(divided)
        if patiently(engine, partial(partitions.make, tables=tables, period=period)):
            made += [f"{table}_{period}" for table in tables]
    return made


def _divided(engine: Engine) -> Divided:
    with engine.begin() as connection:
        return partitions.read(connection)


def _check_owner(divided: Divided) -> None:
    if not divided.is_owner:
        raise PartitionsError(OWNER_ONLY)


def patiently(engine: Engine, step: Callable[[Connection], Done]) -> Done:
    """Run a step in a transaction of its own, again while others hold locks that it needs.

    Raises:
        BusyError: the totals are still being counted.
        sqlalchemy.exc.DBAPIError: anything else, or the locks are still held.
    """

    def once() -> Done:
        with engine.begin() as connection:
            return step(connection)

    trying = Retrying(
        stop=stop_after_attempt(LOCK_TRIES),
        wait=wait_exponential_jitter(multiplier=LOCK_PAUSE_S, max=MOST_LOCK_PAUSE_S, jitter=LOCK_PAUSE_S),
        retry=retry_if_exception(_is_busy),
        reraise=True,
    )
    return trying(once)


def _is_busy(error: BaseException) -> bool:
    if isinstance(error, BusyError):
        return True
    return isinstance(error, DBAPIError) and classify(error) is Failure.RETRY


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
            wait_s = self.prune(stopping)
            self.engine.dispose()

    def prune(self, stopping: threading.Event) -> float:
        """Make the partitions that are missing, and prune. Returns the seconds until the next time."""
        try:
            self._make_partitions()
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

    def _make_partitions(self) -> None:
        divided = _divided(self.engine)
        if divided.partitions and not divided.is_owner:
            logger.warning("partitions are left to the owner of the tables", hint=OWNER_ONLY)
            return
        try:
            if made := make_partitions(self.engine):
                logger.info("partitions made", partitions=made)
        except BusyError as error:
            logger.info("no partitions were made", reason=str(error))
