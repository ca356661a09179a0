"""Connecting by a moment: how names are looked up, and how long each address is tried."""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from worker.lms.dialing import CONNECT_S, LookUps, dial, left_s

Address = tuple[str, int] | tuple[str, int, int, int]


class NameServer:
    """Stands for the system's look-up. It hangs for one name until it is told to answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, int]] = []
        self.was_asked = threading.Event()
        self.answers = threading.Event()
        self.found: list[Address] = [("203.0.114.7", 443)]

    def getaddrinfo(self, host: bytes, port: int, **_: Any) -> list[Any]:
        self.asked.append((host, port))
        self.was_asked.set()
        if host == b"dead.test":
            self.answers.wait()
            raise socket.gaierror
        return [(socket.AF_UNSPEC, socket.SOCK_STREAM, 6, "", address) for address in self.found]


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> NameServer:
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.getaddrinfo)
    return server


def soon() -> float:
    return time.monotonic() + 30


def test_calls_that_wait_for_a_name_share_its_look_up(name_server: NameServer) -> None:
    """The first call gives up; the others get its answer, and a later call asks again."""
    look_up = LookUps()
    with pytest.raises(TimeoutError):
        look_up("dead.test", 443, time.monotonic() + 0.05)
    with ThreadPoolExecutor(2) as threads:
        others = [threads.submit(look_up, "dead.test", 443, soon()) for _ in range(2)]
        name_server.answers.set()
        assert all(isinstance(other.exception(), socket.gaierror) for other in others)
    with pytest.raises(socket.gaierror):
        look_up("dead.test", 443, soon())
    # Between the answer and a thread that has not asked yet, a second look-up is right
    assert name_server.asked[0] == name_server.asked[-1] == (b"dead.test", 443)


def test_a_name_that_hangs_is_asked_once_and_stops_no_other(name_server: NameServer) -> None:
    look_up = LookUps()
    for _ in range(5):
        with pytest.raises(TimeoutError):
            look_up("dead.test", 443, time.monotonic() + 0.01)
    assert name_server.asked == [(b"dead.test", 443)]
    assert look_up("living.test", 443, soon()) == ["203.0.114.7"]
    name_server.answers.set()


def test_a_moment_that_has_passed_waits_for_nothing() -> None:
    with pytest.raises(TimeoutError):
        left_s(time.monotonic())
    assert 0 < left_s(soon()) <= 30


def test_an_address_of_a_single_link_keeps_its_link(name_server: NameServer) -> None:
    name_server.found = [
        ("fe80::1", 443, 0, 2),
        ("2001:4860::8", 443, 0, 0),
        ("203.0.114.7", 443),
        ("203.0.114.7", 443),
    ]
    assert LookUps()("acme.example", 443, soon()) == ["fe80::1%2", "2001:4860::8", "203.0.114.7"]


@pytest.mark.parametrize("host", ["ä.example", "x" * 300])
def test_a_name_that_nobody_can_look_up_is_an_error_of_its_own(host: str) -> None:
    with pytest.raises((OSError, UnicodeError)):
        LookUps()(host, 443, soon())


def test_a_system_that_gives_no_thread_is_one_that_cannot_look_up(
    name_server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = LookUps()

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(OSError, match="no thread"):
            look_up("a.test", 443, soon())
    assert look_up("a.test", 443, soon()) == ["203.0.114.7"]


def dialled(
    connect: Callable[[str, float], str], addresses: list[str], seconds: float = 30
) -> tuple[str, list[float]]:
    """What a connection to a host with these addresses returns, and the seconds that each address got."""
    given: list[float] = []

    def noting(address: str, left_s: float) -> str:
        given.append(left_s)
        return connect(address, left_s)

    ends_at = time.monotonic() + seconds
    return dial("a.test", 443, ends_at, noting, look_up=lambda *_: addresses), given


def refusing(*dead: str) -> Callable[[str, float], str]:
    def connect(address: str, _: float) -> str:
        if address in dead:
            raise ConnectionRefusedError(address)
        return address

    return connect


def test_a_dead_address_leaves_time_for_the_others() -> None:
    answered, given = dialled(refusing("1.1.1.1", "2.2.2.2"), ["1.1.1.1", "2.2.2.2", "3.3.3.3"])
    assert answered == "3.3.3.3"
    assert given[:2] == [CONNECT_S, CONNECT_S]
    assert CONNECT_S < given[2] <= 30

    _, given = dialled(refusing("1.1.1.1"), ["1.1.1.1", "2.2.2.2"], seconds=2)
    assert given[0] <= 1


def test_when_no_address_answers_the_last_one_says_why() -> None:
    with pytest.raises(ConnectionRefusedError, match=r"2\.2\.2\.2"):
        dialled(refusing("1.1.1.1", "2.2.2.2"), ["1.1.1.1", "2.2.2.2"])
