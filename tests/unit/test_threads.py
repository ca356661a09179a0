"""The threads of a process, and which of them gets its signals."""

import os
import signal
import threading
import time

import pytest

from worker.signals import STOP_SIGNALS
from worker.threads import Loops, StopEvent, begin

PATIENCE_S = 60.0


def test_a_stop_signal_reaches_the_main_thread_and_no_other() -> None:
    blocked: set[int] = set()

    def loop(stopping: threading.Event) -> None:
        blocked.update(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        os.kill(os.getpid(), signal.SIGTERM)
        stopping.wait()

    loops = Loops()
    loops.add("loop", loop)
    loops.run_until_stopped()
    assert blocked.issuperset(STOP_SIGNALS)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()).intersection(STOP_SIGNALS)


def test_a_loop_that_makes_no_turn_is_late() -> None:
    # Given one loop that hangs, one that waits for as long as it said, and one that turns
    let_go = threading.Event()
    seen: list[list[str]] = []

    def hangs(_stopping: threading.Event) -> None:
        let_go.wait()

    def waits(stopping: threading.Event) -> None:
        stopping.wait(60)

    def looks(stopping: threading.Event) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while seen[-1:] != [["hangs"]] and time.monotonic() < deadline:
            stopping.wait(0.01)
            seen.append(loops.late(0.05))
        let_go.set()

    loops = Loops()
    loops.add_all({"hangs": hangs, "waits": waits, "looks": looks})
    assert not loops.is_stopping
    loops.run_until_stopped()
    # Then only the first is late, and nothing that has ended is
    assert seen[-1] == ["hangs"]
    assert loops.late(-1) == []
    assert loops.is_stopping


def test_a_loop_may_come_while_the_others_run_and_not_when_they_stop() -> None:
    ran: list[str] = []

    def comes_late(_stopping: threading.Event) -> None:
        ran.append("too late")

    def comes(stopping: threading.Event) -> None:
        ran.append("in time")
        stopping.wait()

    def begins(stopping: threading.Event) -> None:
        loops.add("comes", comes)
        while not ran:
            stopping.wait(0.01)

    def waits(stopping: threading.Event) -> None:
        stopping.wait()
        loops.add("comes late", comes_late)

    loops = Loops()
    loops.add_all({"begins": begins, "waits": waits})
    loops.run_until_stopped()
    assert ran == ["in time"]


def test_a_loop_that_waits_for_ever_is_never_late() -> None:
    event = StopEvent()
    thread = threading.Thread(target=event.wait)
    thread.start()
    while event.turning.late_s:
        pass
    event.set()
    thread.join()
    assert event.is_set()


# --- questions -----------------------------------------------------------------------------------------------


def test_a_question_keeps_no_process_from_ending() -> None:
    assert begin(lambda: threading.current_thread().daemon).result(60)


def test_an_error_is_raised_where_the_answer_is_waited_for() -> None:
    def ask() -> None:
        raise KeyError("away")

    with pytest.raises(KeyError, match="away"):
        begin(ask).result(60)


def test_who_gives_up_takes_the_answer_from_nobody() -> None:
    may_answer = threading.Event()
    answer = begin(lambda: may_answer.wait(60))
    with pytest.raises(TimeoutError):
        answer.result(0)
    assert not answer.cancel()
    may_answer.set()
    assert answer.result(60)
