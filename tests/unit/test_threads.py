"""The threads of a process, and which of them gets its signals."""

import os
import signal
import threading

from worker.signals import STOP_SIGNALS
from worker.threads import Loops


def test_a_stop_signal_reaches_the_main_thread_and_no_other() -> None:
    blocked: set[int] = set()

    def loop(stopping: threading.Event) -> None:
        blocked.update(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        os.kill(os.getpid(), signal.SIGTERM)
        stopping.wait()

    Loops({"loop": loop}).run_until_stopped()
    assert blocked.issuperset(STOP_SIGNALS)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()).intersection(STOP_SIGNALS)
