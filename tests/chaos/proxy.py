"""A TCP proxy that severs connections: when told, or when something certain passes through it."""

import select
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

CHUNK = 65536
COMMIT = b"COMMIT\x00"  # libpq's simple query: one small message of its own
TLS_HANDSHAKE = b"\x16"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing throws away what is under way, and resets

Side = Literal["before", "after"]


@dataclass
class Proxy:
    """Passes bytes between clients and one server.

    `cuts` counts what `cut_at` has severed; `answers` is all that the server has said. With `tls`, the proxy
    decrypts clients that start with TLS, and passes others on unchanged. While it `is_silent`, what comes goes
    nowhere, as in a cut cable.
    """

    listener: socket.socket
    target: tuple[str, int]
    tls: ssl.SSLContext | None = None
    is_silent: bool = False
    cuts: int = 0
    answers: bytearray = field(default_factory=bytearray)
    _open: set[socket.socket] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pattern: bytes | None = None
    _side: Side = "before"
    _every: int = 1
    _seen: int = 0

    def url(self, server_url: str) -> str:
        """The server's URL, by way of the proxy."""
        parts = urlsplit(server_url)
        login, at, _ = parts.netloc.rpartition("@")
        host, port = self.listener.getsockname()
        return urlunsplit(parts._replace(netloc=f"{login}{at}{host}:{port}"))

    def cut(self) -> None:
        """Sever every connection, without a word."""
        with self._lock:
            for one in self._open:
                with suppress(OSError):  # it may have ended by itself just now
                    one.shutdown(socket.SHUT_RDWR)  # its thread does the rest

    def cut_at(self, pattern: bytes | None, side: Side = "before", *, every: int = 1) -> None:
        """From now on sever the connection at every so-manieth request that contains the pattern.

        `before`: the server never sees the request. `after`: it has answered, but the client never sees that.
        """
        with self._lock:
            self._pattern, self._side, self._every = pattern, side, every

    def accept(self) -> None:
        """Serve connections until the listener is shut down."""
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, connected: socket.socket) -> None:
        with (
            connected,
            suppress(OSError),
            self._begun(connected) as client,
            socket.create_connection(self.target) as server,
        ):
            with self._lock:
                self._open.add(client)
            try:
                self._pass(client, server)
            finally:
                with self._lock:
                    self._open.discard(client)
                for one in (client, server):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def _begun(self, client: socket.socket) -> socket.socket:
        if self.tls is None or client.recv(1, socket.MSG_PEEK) != TLS_HANDSHAKE:
            return client
        return self.tls.wrap_socket(client, server_side=True)

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            readable, _, _ = select.select([client, server], [], [])
            if server in readable and not self._answer(server, client):
                return
            if client in readable and not self._ask(client, server):
                return

    def _answer(self, server: socket.socket, client: socket.socket) -> bool:
        """Pass an answer on. Returns whether the connection goes on, as the other way does."""
        data = server.recv(CHUNK)
        self.answers += data
        if not self.is_silent:
            client.sendall(data)
        return bool(data)

    def _ask(self, client: socket.socket, server: socket.socket) -> bool:
        data = client.recv(CHUNK)
        side = self._cut_here(data)
        if side is None and not self.is_silent:
            server.sendall(data)
        if side == "after":
            server.sendall(data)
            server.recv(CHUNK)
        return bool(data) and side is None

    def _cut_here(self, data: bytes) -> Side | None:
        with self._lock:
            if self._pattern is None or self._pattern not in data:
                return None
            self._seen += 1
            if self._seen % self._every:
                return None
            self.cuts += 1
            return self._side


@contextmanager
def proxying(
    server_url: str, tls: ssl.SSLContext | None = None, *, host: str = "127.0.0.1"
) -> Iterator[Proxy]:
    """Run a proxy in front of the server that a URL names; its connections are severed at the end."""
    parts = urlsplit(server_url)
    assert parts.hostname is not None
    assert parts.port is not None
    with socket.create_server((host, 0)) as listener:
        proxy = Proxy(listener, (parts.hostname, parts.port), tls)
        thread = threading.Thread(target=proxy.accept)
        thread.start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
            thread.join()
            proxy.cut()
