"""Connections for httpcore whose waits end at a moment. What httpcore calls a time-out is such a moment here.

All moments are those of `time.monotonic()`, in seconds.
"""

import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import httpcore

from worker.lms.dialing import left_s

WRITE_BYTES = 4096
"""So many bytes are written at once. A socket that is ready to be written takes them all."""

KEEP_S = 5.0
"""A connection that nobody has used for so many seconds is not used again. The next call closes it."""

READ_BYTES = 16_384
"""TLS is given so many bytes at once. It goes on by itself while it has some."""

BROKEN = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
    OSError,
)
"""What a connection that does not work raises."""

Done = TypeVar("Done")


class _Over(httpcore.NetworkStream):
    """A connection over another one."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class TimedStream(_Over):
    """A connection of httpcore's. Each wait gets the time that is left until the moment."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left_s(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), WRITE_BYTES):
            self._stream.write(buffer[start : start + WRITE_BYTES], _left_s(timeout))


class TlsStream(_Over):
    """TLS over another connection, perhaps one that is encrypted already.

    It is done in memory. With a socket of its own, OpenSSL reads on while the other side sends records without
    data, and looks at no clock.
    """

    def __init__(
        self,
        stream: httpcore.NetworkStream,
        context: ssl.SSLContext,
        server_hostname: str | None,
        ends_at: float | None,
    ) -> None:
        """Shake hands. The connection below is closed if that fails.

        Raises:
            OSError: and the others of `BROKEN`: it fails.
        """
        super().__init__(stream)
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        try:
            self._tls = context.wrap_bio(self._received, self._to_send, server_hostname=server_hostname)
            self._run(self._tls.do_handshake, ends_at)
        except BaseException:
            self.close()
            raise

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return self._run(partial(self._tls.read, max_bytes), timeout)
        except ssl.SSLEOFError:
            # It hung up without the farewell of TLS. HTTP mostly knows whether that was the end.
            return b""

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        while buffer:
            buffer = buffer[self._run(partial(self._tls.write, buffer), timeout) :]

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":
            return self._tls
        if info == "is_readable" and self._received.pending:
            return True
        return super().get_extra_info(info)

    def _run(self, step: Callable[[], Done], ends_at: float | None) -> Done:
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                pass  # an error of the connection below must not seem to follow from this
            except ssl.SSLError:
                with suppress(*BROKEN):
                    self._flush(ends_at)  # says why
                raise
            else:
                self._flush(ends_at)
                return done
            self._flush(ends_at)
            self._feed(ends_at)

    def _flush(self, ends_at: float | None) -> None:
        if self._to_send.pending:
            self._stream.write(self._to_send.read(), ends_at)

    def _feed(self, ends_at: float | None) -> None:
        received = self._stream.read(READ_BYTES, ends_at)
        if received:
            self._received.write(received)
        else:
            self._received.write_eof()


class KeptStream(_Over):
    """A connection that a pool keeps. Whoever takes it again looks whether it is still good.

    httpcore's pool looks at every idle connection instead, at each call. Between two threads that goes wrong: one
    sees a connection idle, another one takes it, and the first one closes it, because what it then sees is the
    answer, or because the connection was about to expire (both seen with httpcore 1.0.9).
    """

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        super().__init__(stream)
        self._answered_at: float | None = None

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        received = self._stream.read(max_bytes, timeout)
        self._answered_at = time.monotonic()
        return received

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write, unless this begins a request on a connection that is no longer good.

        Raises:
            httpcore.ConnectionNotAvailable: the other side has hung up, or nobody has used it for `KEEP_S` seconds.
                Nothing is sent, and the pool takes another connection.
        """
        answered_at, self._answered_at = self._answered_at, None
        if answered_at is not None and self._is_over(answered_at):
            raise httpcore.ConnectionNotAvailable
        self._stream.write(buffer, timeout)

    def _is_over(self, answered_at: float) -> bool:
        # Nobody has asked for anything, so what can be read is most likely the end. If it is not, a new connection
        # does no harm.
        return time.monotonic() - answered_at > KEEP_S or bool(self._stream.get_extra_info("is_readable"))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return KeptStream(TlsStream(self._stream, ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return False if info == "is_readable" else super().get_extra_info(info)


def _left_s(ends_at: float | None) -> float:
    assert ends_at is not None, "each request has a deadline"
    return left_s(ends_at)
