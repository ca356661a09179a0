"""A peer on a TCP port that behaves as told: it says nothing, drips, or is somebody else's way to a real server."""

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

CHUNK = 65536
DRIP_EVERY_S = 0.1
DRIP = b"\x01\x00\x00\x00\x0f\xff\xff"
"""The beginning of a frame of AMQP that takes for ever. To Redis, of a line that does not end."""

Behaviour = Callable[[socket.socket, threading.Event], None]


class Peer:
    """Accepts connections, and treats each as `behave` says when it comes."""

    def __init__(self, listener: socket.socket, behave: Behaviour) -> None:
        self.behave = behave
        self.accepted = 0
        self.ending = threading.Event()
        self._listener = listener

    @property
    def address(self) -> str:
        """Host and port."""
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    def accept(self) -> None:
        """Serve connections until the listener is shut down."""
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.accepted += 1
                threading.Thread(target=self._serve, args=(client, self.behave), daemon=True).start()

    def _serve(self, client: socket.socket, behave: Behaviour) -> None:
        with client, suppress(OSError):
            behave(client, self.ending)


def say_nothing(_client: socket.socket, ending: threading.Event) -> None:
    """Accept, and never answer."""
    ending.wait()


def drip(client: socket.socket, ending: threading.Event) -> None:
    """Answer with a byte now and then: no single read of the other side times out."""
    for byte in DRIP:
        client.sendall(bytes([byte]))
    while not ending.wait(DRIP_EVERY_S):
        client.sendall(b"\x00")


def pass_on(host: str, port: int) -> Behaviour:
    """Be the way to a real server."""

    def between(client: socket.socket, ending: threading.Event) -> None:
        with socket.create_connection((host, port)) as server:
            other = {client: server, server: client}
            while not ending.is_set():
                for readable in select.select([client, server], [], [], DRIP_EVERY_S)[0]:
                    if not (data := readable.recv(CHUNK)):
                        return
                    other[readable].sendall(data)

    return between


@contextmanager
def peer(behave: Behaviour) -> Iterator[Peer]:
    """A peer on a free port; its connections end with it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = Peer(listener, behave)
        thread = threading.Thread(target=one.accept)
        thread.start()
        try:
            yield one
        finally:
            one.ending.set()
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
            thread.join()


@contextmanager
def black_hole() -> Iterator[str]:
    """An address that does not even refuse: the queue of its listener is full, and it never accepts."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        host, port = listener.getsockname()
        while True:
            client = stack.enter_context(socket.socket())
            client.settimeout(0.5)
            try:
                client.connect((host, port))
            except TimeoutError:
                break
        yield f"{host}:{port}"
