"""The threads of a process, and which of them gets its signals."""

import os
import signal
import threading

from worker.signals import STOP_SIGNALS
from worker.threads import Loops, StopEvent


def test_a_stop_signal_reaches_the_main_thread_and_no_other() -> None:
    blocked: set[int] = set()

    def loop(stopping: threading.Event) -> None:
        blocked.update(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        os.kill(os.getpid(), signal.SIGTERM)
        stopping.wait()

    Loops({"loop": loop}).run_until_stopped()
    assert blocked.issuperset(STOP_SIGNALS)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()).intersection(STOP_SIGNALS)


def test_a_loop_that_makes_no_turn_is_late() -> None:
    # Given one loop that hangs, one that waits for as long as it said, and one that has ended
    began, let_go = threading.Event(), threading.Event()
    late: dict[float, list[str]] = {}

    def hangs(_stopping: threading.Event) -> None:
        began.set()
        let_go.wait()

    def waits(stopping: threading.Event) -> None:
        stopping.wait(60)

    def looks(stopping: threading.Event) -> None:
        began.wait()
        while not (found := loops.late(0.05)):
            stopping.wait(0.01)
        late[0.05], late[60] = found, loops.late(60)
        let_go.set()

    loops = Loops({"hangs": hangs, "waits": waits, "looks": looks})
    assert not loops.is_stopping
    loops.run_until_stopped()
    # Then only the first was late, and nothing that has ended is
    assert late == {0.05: ["hangs"], 60: []}
    assert loops.late(-1) == []
    assert loops.is_stopping


def test_a_loop_that_waits_for_ever_is_never_late() -> None:
    event = StopEvent()
    thread = threading.Thread(target=event.wait)
    thread.start()
    while event.turning.late_s:
        pass
    event.set()
    thread.join()
    assert event.is_set()
