"""Runs acts in bulk in threads of this process, step by step."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from db.bulk import BulkState, Progress
from db.errors import brief
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
        except Exception:
            # The thread's future is read by nobody, so this is the last place to say it.
            logger.exception("an act in bulk has failed", act=str(act.progress.id))
            self._give_up(act)
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

    def _give_up(self, act: Act) -> None:
        try:
            act.end(BulkState.FAILED)
        except DBAPIError as error:
            logger.warning("an act in bulk cannot be closed", act=str(act.progress.id), reason=brief(error))
