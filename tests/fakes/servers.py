"""A TCP server that does what a test says, however rude."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Script = Callable[[socket.socket], object]


@dataclass
class ScriptedServer:
    """Listens on a free port of 127.0.0.1 and hands each connection to the script, one after the other."""

    port: int
    gone: threading.Event = field(default_factory=threading.Event)  # set at the end: for scripts that wait
    connections: int = 0


@contextmanager
def serving(script: Script) -> Iterator[ScriptedServer]:
    """Run a scripted server; the script's connection is closed when it returns or the other side is gone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = ScriptedServer(listener.getsockname()[1])
        thread = threading.Thread(target=_serve, args=(listener, server, script))
        thread.start()
        try:
            yield server
        finally:
            server.gone.set()
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
            thread.join()


def _serve(listener: socket.socket, server: ScriptedServer, script: Script) -> None:
    with suppress(OSError):
        while not server.gone.is_set():
            connection, _ = listener.accept()
            server.connections += 1
            with connection, suppress(OSError):
                script(connection)


def drip(connection: socket.socket, first: bytes, drop: bytes, every_s: float = 0.02) -> None:
    """Send `first`, then `drop` again and again until the other side hangs up."""
    connection.sendall(first)
    pause = threading.Event()
    while not _is_closed(connection):
        connection.sendall(drop)
        pause.wait(every_s)


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    finally:
        connection.setblocking(True)
    return True
