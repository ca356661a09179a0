"""Connections whose waits end at a moment, over connections in memory."""

import ssl
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import httpcore
import pytest
import trustme

from worker.lms import streams
from worker.lms.streams import KEEP_S, READ_BYTES, WRITE_BYTES, KeptStream, TimedStream, TlsStream


class Wire(httpcore.NetworkStream):
    """Stands for a connection: notes what is written and how long each wait may take, and reads what it is told."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.written: list[bytes] = []
        self.waits: list[float | None] = []
        self.closed = self.is_readable = False

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self.waits.append(timeout)
        return self.answers.pop(0)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.waits.append(timeout)
        self.written.append(buffer)

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, info: str) -> object:
        return self.is_readable if info == "is_readable" else None


def test_each_wait_has_the_time_that_is_left() -> None:
    wire = Wire(b"a", b"b")
    stream = TimedStream(wire)
    ends_at = time.monotonic() + 30
    assert stream.read(1, ends_at) + stream.read(1, ends_at) == b"ab"
    first, second = wire.waits
    assert first is not None
    assert second is not None
    assert 30 >= first > second > 0
    for late in (lambda: stream.read(1, time.monotonic()), lambda: stream.write(b"x", time.monotonic())):
        with pytest.raises(TimeoutError):
            late()
    assert len(wire.waits) == 2


def test_what_is_long_is_written_in_pieces_that_do_not_wait_half_written() -> None:
    wire = Wire()
    TimedStream(wire).write(b"x" * 10_000, time.monotonic() + 30)
    assert [len(piece) for piece in wire.written] == [WRITE_BYTES, WRITE_BYTES, 10_000 - 2 * WRITE_BYTES]


# A connection that is kept


def test_a_connection_that_was_hung_up_is_not_written_to() -> None:
    wire = Wire(b"an answer")
    stream = KeptStream(wire)
    stream.write(b"one", 1)
    stream.read(100, 1)
    wire.is_readable = True
    with pytest.raises(httpcore.ConnectionNotAvailable):
        stream.write(b"two", 1)
    assert wire.written == [b"one"]
    assert not stream.get_extra_info("is_readable")  # no other thread judges by it


def test_a_connection_that_nobody_has_used_for_long_is_not_written_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pool of another thread may be about to close it."""
    wire, now = Wire(*[b"an answer"] * 2), [0.0]
    monkeypatch.setattr(streams, "time", SimpleNamespace(monotonic=lambda: now[0]))
    stream = KeptStream(wire)
    stream.write(b"one", 1)
    stream.read(100, 1)
    now[0] += KEEP_S
    stream.write(b"two", 1)
    stream.read(100, 1)
    now[0] += KEEP_S + 0.1
    with pytest.raises(httpcore.ConnectionNotAvailable):
        stream.write(b"three", 1)
    assert wire.written == [b"one", b"two"]


def test_what_comes_while_a_request_is_written_is_its_answer() -> None:
    wire = Wire(b"an answer")
    stream = KeptStream(wire)
    for number in range(2):
        stream.write(b"headers", 1)
        wire.is_readable = True
        stream.write(b"body", 1)
        wire.is_readable = False
        if number == 0:
            stream.read(100, 1)
    assert wire.written == [b"headers", b"body"] * 2


# TLS in memory


class TlsServer(Wire):
    """The other side of a connection: a TLS server, which answers in pieces of any size that is asked for."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_side=True)
        self.step: Callable[[], object] = self.tls.do_handshake
        self.heard: list[str] = []
        self.reads = 0
        self.reads_left = 1000

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._in.write(buffer)
        try:
            self.step()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            self.heard.append(str(error))

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        assert max_bytes <= READ_BYTES
        self.reads += 1
        if self.reads > self.reads_left:
            raise TimeoutError
        return self._out.read(max_bytes)


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The client's, and the server's."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("lms.test").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return client, server


def test_what_tls_carries_and_how_it_ends(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    client, server = contexts
    wire = TlsServer(server)
    stream = TlsStream(wire, client, "lms.test", 1)
    assert stream.get_extra_info("ssl_object").version() == "TLSv1.3"
    heard: list[bytes] = []
    wire.step = lambda: heard.append(wire.tls.read(100_000))
    stream.write(b"a question", 1)
    assert heard == [b"a question"]
    wire.tls.write(b"an answer")
    assert stream.read(100, 1) == b"an answer"
    assert stream.read(100, 1) == b""  # the server hung up without a farewell
    stream.close()
    assert wire.closed


def test_an_answer_that_nobody_asked_for_is_not_the_next_one(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """It came with the answer before, so it is no longer on the socket."""
    client, server = contexts
    wire = TlsServer(server)
    stream = KeptStream(TlsStream(wire, client, "lms.test", 1))
    wire.step = lambda: wire.tls.read(100_000)
    stream.write(b"a question", 1)
    wire.tls.write(b"an answer")
    wire.tls.write(b"another")
    assert stream.read(100, 1) == b"an answer"
    with pytest.raises(httpcore.ConnectionNotAvailable):
        stream.write(b"the next question", 1)


@pytest.mark.parametrize("size", [16_384, 1_000_000])
def test_what_is_longer_than_a_record_is_carried_whole(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], size: int
) -> None:
    client, server = contexts
    wire = TlsServer(server)
    stream = TlsStream(wire, client, "lms.test", 1)
    heard = bytearray()

    def hear() -> None:
        while True:
            heard.extend(wire.tls.read(100_000))

    wire.step = hear
    stream.write(b"x" * size, 1)
    assert len(heard) == size
    wire.tls.write(b"y" * size)
    told = 0
    while told < size:
        told += len(stream.read(100_000, 1))
    assert told == size


def test_records_without_data_do_not_outlast_the_moment(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """A server may send tickets for ever, and OpenSSL reads on while it has any."""
    client, server = contexts
    server.num_tickets = 2000  # some 500 KiB
    wire = TlsServer(server)
    stream = TlsStream(wire, client, "lms.test", 1)
    wire.reads_left = wire.reads + 3
    with pytest.raises(TimeoutError):
        stream.read(100, 1)


def test_a_handshake_that_fails_closes_the_connection(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    client, server = contexts
    wire = TlsServer(server)
    with pytest.raises(ssl.SSLCertVerificationError):
        TlsStream(wire, client, "another.test", 1)
    assert wire.closed
    assert ["ALERT" in heard for heard in wire.heard] == [True]  # the server was told why
    late = TlsServer(server)
    late.reads_left = 0
    with pytest.raises(TimeoutError):
        TlsStream(late, client, "lms.test", 1)
    assert late.closed
