"""Shuts a connection down at a moment, whatever is being done with it."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def cut_off(connection: socket.socket, after_s: float) -> Iterator[None]:
    """Shut the connection down after so many seconds, unless the block ends before.

    A socket's own time-out applies to each read, so a server that sends one byte a second never exceeds it. The
    timer keeps a duplicate of the socket, because TLS may replace the original one meanwhile.
    """
    with socket.socket(fileno=os.dup(connection.fileno())) as handle:
        timer = threading.Timer(after_s, _shut_down, [handle])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


def _shut_down(handle: socket.socket) -> None:
    with suppress(OSError):  # the other side has already closed it
        handle.shutdown(socket.SHUT_RDWR)
