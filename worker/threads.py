"""Runs the loops of a process in threads until a signal, or the end of one of them, stops them all."""

import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

from worker.signals import on_stop_signals, stop_signals_blocked

T = TypeVar("T")

QUESTION = "question"
"""What the threads of `begin` are called."""

Loop = Callable[[threading.Event], None]
"""A function that runs until the event is set. It asks the event in each turn."""


def begin(ask: Callable[[], T]) -> "Future[T]":
    """Call a function in a thread of its own, which keeps no process from ending.

    It is for questions to an engine that may never answer. Whoever waits for the result says for how long.

    Example:
        >>> begin(lambda: 6 * 7).result(timeout=60)
        42
    """
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()  # nobody who gives up may cancel it: others wait, too

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is waited for
            answer.set_exception(error)

    with stop_signals_blocked():
        threading.Thread(target=run, name=QUESTION, daemon=True).start()
    return answer


class Turning:
    """Whether a loop turns. In each turn it says until when it may wait before the next one."""

    def __init__(self) -> None:
        self._next_at = time.monotonic()

    def expect(self, within_s: float = 0.0) -> None:
        """Take a turn, and expect the next one within so many seconds."""
        self._next_at = time.monotonic() + within_s

    @property
    def late_s(self) -> float:
        """For how many seconds the next turn has been due."""
        return max(0.0, time.monotonic() - self._next_at)


class StopEvent(threading.Event):
    """Tells a loop to stop. Whoever asks it, or waits for it, takes a turn."""

    def __init__(self) -> None:
        super().__init__()
        self.turning = Turning()

    def is_set(self) -> bool:
        """Return whether the loop is to stop."""
        self.turning.expect()
        return super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the loop is to stop, or for so many seconds. Returns whether it is."""
        self.turning.expect(math.inf if timeout is None else timeout)
        try:
            return super().wait(timeout)
        finally:
            self.turning.expect()


class Loops:
    """The loops of a process, each in a thread of its own, which is called like it."""

    def __init__(self) -> None:
        self._waiting: dict[str, Loop] = {}
        self._events: dict[str, StopEvent] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        # Safe to use in a signal handler, unlike an Event.
        self._ends: SimpleQueue[Exception | None] = SimpleQueue()
        self._is_running = False
        self.is_stopping = False

    def late(self, seconds: float) -> list[str]:
        """Return the names of the loops that run and whose next turn has been due for longer than that."""
        return [name for name, event in self._events.copy().items() if event.turning.late_s > seconds]

    def add(self, name: str, loop: Loop) -> None:
        """Add a loop. While the others run it starts at once; once they are stopping it never does."""
        with self._lock:
            if not self._is_running:
                self._waiting[name] = loop
            elif not self.is_stopping:
                self._start(name, loop)

    def add_all(self, loops: Mapping[str, Loop]) -> None:
        """Add loops, by name."""
        for name, loop in loops.items():
            self.add(name, loop)

    def run_until_stopped(self) -> None:
        """Run them until SIGINT, SIGTERM or SIGHUP. Only the main thread may call this.

        When one loop ends or raises, all others are stopped, too.

        Raises:
            Exception: the first error that a loop raised. All loops have ended by then.
        """
        with on_stop_signals(lambda: self._ends.put(None)):
            with self._lock:
                self._is_running = True
                for name, loop in self._waiting.items():
                    self._start(name, loop)
            first = self._ends.get()
            with self._lock:
                self.is_stopping = True
                for event in self._events.copy().values():
                    event.set()
            for thread in self._threads:
                thread.join()
        if first is not None:
            raise first

    def _start(self, name: str, loop: Loop) -> None:
        event = self._events[name] = StopEvent()
        thread = threading.Thread(target=self._run, args=(name, loop, event), name=name)
        self._threads.append(thread)
        with stop_signals_blocked():
            thread.start()

    def _run(self, name: str, loop: Loop, stopping: StopEvent) -> None:
        try:
            loop(stopping)
        except Exception as error:  # noqa: BLE001 - raised again in the main thread
            self._ends.put(error)
        else:
            self._ends.put(None)
        finally:
            del self._events[name]  # what has ended is not late
