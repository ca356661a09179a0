"""Loops that run beside a test, as in a process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def running(*loops: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run loops in threads, which have ended afterwards."""
    stopping = threading.Event()
    threads = [threading.Thread(target=loop, args=(stopping,)) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
