"""Calls that wait: each costs a future, and one thread with one connection looks out for all of them."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import psycopg2
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db.errors import brief
from db.listening import listening, wait
from invigilator.web.reading import Reader
from worker.logs import get_logger

logger = get_logger(__name__)

Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class Waiting(Generic[Answer]):
    """Somebody who waits. Only the event loop's thread may make one."""

    answer: "asyncio.Future[Answer | None]" = field(
        init=False, repr=False, default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """None if the process ends before there is one."""

    @property
    def told(self) -> Answer | None:
        """The answer. None while there is none."""
        return self.answer.result() if self.answer.done() else None

    def settle(self, answer: Answer | None) -> None:
        """Wake who waits. Any thread may call this, once or more often."""
        self.answer.get_loop().call_soon_threadsafe(self._settle, answer)

    def _settle(self, answer: Answer | None) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


Who = TypeVar("Who", bound=Waiting[Any])


class Waiters(ABC, Generic[Who]):
    """Those who wait for one sort of news.

    Parameters:
        reader: asks the database.
    """

    channel: ClassVar[str]
    """Where the database notifies of the news."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._lock = threading.Lock()
        self._waiting: set[Who] = set()
        self._closed = False

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    @abstractmethod
    def look(self, waiting: Sequence[Who]) -> None:
        """Answer those for whom there is news, with one look at the database. It blocks.

        Raises:
            sqlalchemy.exc.DBAPIError: the database cannot answer.
        """

    @contextmanager
    def joined(self, waiting: Sequence[Who]) -> Iterator[None]:
        """Look out for news as long as the block lasts."""
        with self._lock:
            self._waiting.update(waiting)
        try:
            yield
        finally:
            with self._lock:
                self._waiting.difference_update(waiting)

    def look_for_all(self) -> None:
        """Answer everybody for whom there is news. It blocks, and raises what `look` raises."""
        with self._lock:
            waiting = [one for one in self._waiting if not one.answer.done()]
        if waiting:
            self.look(waiting)

    async def wait(self, waiting: Sequence[Who], seconds: float) -> None:
        """Wait until all have an answer, for so many seconds at most, or until `close`."""
        if not self._closed:
            await asyncio.wait([one.answer for one in waiting], timeout=seconds)

    def close(self) -> None:
        """Have everybody who waits go on now, without an answer. Only the event loop's thread may call this."""
        self._closed = True
        with self._lock:
            for one in self._waiting:
                one.settle(None)


def look_out(
    engine: Engine, everybody: Sequence[Waiters[Any]], poll_s: float, stopping: threading.Event
) -> None:
    """Answer those who wait, as soon as the database notifies of news, until told to stop.

    A thread of its own runs this.

    Parameters:
        engine: its connections must be direct.
        everybody: those who wait. The first are answered first.
        poll_s: seconds after which it looks without being notified: a process of an older release notifies nobody.
    """
    while not stopping.is_set():
        try:
            with listening(engine, *(waiters.channel for waiters in everybody)) as notifications:
                while not stopping.is_set():
                    for waiters in everybody:
                        waiters.look_for_all()
                    wait(notifications, poll_s, stopping)
        except (DBAPIError, psycopg2.Error) as error:
            # psycopg2's own come from the connection that listens: SQLAlchemy does not wrap those.
            logger.warning("those who wait are looked after again", reason=brief(error), again_in_s=poll_s)
            stopping.wait(poll_s)
