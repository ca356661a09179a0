"""Runs acts in bulk in threads of this process, step by step."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from traceback import format_tb
from typing import Protocol

from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from db.bulk import BulkState, Progress
from db.errors import brief, describe
from events.errors import PublishError
from worker.logs import get_logger
from worker.signals import stop_signals_blocked

logger = get_logger(__name__)

THREADS = 4
"""So many acts run at once. Others wait for one of them to end."""
ATTEMPTS = 6
LONGEST_WAIT_S = 8


class Act(Protocol):
    """An act in bulk."""

    progress: Progress

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        ...

    def step(self) -> Progress:
        """Do the next part of it."""
        ...

    def end(self, state: BulkState) -> Progress:
        """End it before all is done."""
        ...


class Runner:
    """Runs acts until they are over, or until the process ends."""

    def __init__(self) -> None:
        self._closing = threading.Event()
        with stop_signals_blocked():
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="act")

    def submit(self, act: Act, afterwards: Callable[[], object] = lambda: None) -> None:
        """Begin to run an act.

        Parameters:
            afterwards: what to do when it is over.
        """
        with stop_signals_blocked():
            self._pool.submit(self._run, act, afterwards)

    def close(self) -> None:
        """Have the acts end after their present step, and wait for that."""
        self._closing.set()
        self._pool.shutdown()

    def _run(self, act: Act, afterwards: Callable[[], object]) -> None:
        try:
            while not act.is_over and not self._closing.is_set():
                for attempt in self._attempts():
                    with attempt:
                        act.step()
            if not act.is_over:
                act.end(BulkState.STOPPED)
        except Exception as error:  # noqa: BLE001 - nobody reads the thread's future, so it is said here
            self._give_up(act, error)
        finally:
            afterwards()

    def _attempts(self) -> Retrying:
        # Somebody else may hold a lock for a while, or the database or the broker may be away.
        return Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential(max=LONGEST_WAIT_S),
            retry=retry_if_exception_type((DBAPIError, PublishError)),
            sleep=self._wait,
            reraise=True,
        )

    def _wait(self, seconds: float) -> None:
        self._closing.wait(seconds)

    def _give_up(self, act: Act, error: Exception) -> None:
        # The trace goes without the error's text, which may quote data.
        trace = "".join(format_tb(error.__traceback__)).rstrip()
        which = str(act.progress.id)
        logger.error("an act in bulk has failed", act=which, reason=describe(error), exception=trace)
        try:
            act.end(BulkState.FAILED)
        except DBAPIError as away:
            logger.warning("an act in bulk cannot be closed", act=which, reason=brief(away))
