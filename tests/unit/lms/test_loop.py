"""The event loop that calls run on: how it looks up names."""

import asyncio
import socket
import threading
from typing import Any

import pytest

from worker.lms.loop import LookUpLoop


class NameServer:
    """Stands for the system's look-up, and hangs until it is told to answer."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.was_asked = threading.Event()
        self.answers = threading.Event()

    def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append(host)
        self.was_asked.set()
        if host == "dead.test":
            self.answers.wait()
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("203.0.114.7", port))]


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> NameServer:
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.getaddrinfo)
    return server


def test_calls_that_wait_for_a_name_share_its_look_up(name_server: NameServer) -> None:
    """The first call gives up; the others get its answer, and a later call asks again."""

    async def calls() -> None:
        loop = asyncio.get_running_loop()
        waiting = [asyncio.create_task(loop.getaddrinfo("dead.test", 443)) for _ in range(3)]
        await asyncio.to_thread(name_server.was_asked.wait)
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        name_server.answers.set()
        first, *others = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(first, asyncio.CancelledError)
        assert all(isinstance(one, socket.gaierror) for one in others)
        assert name_server.asked == ["dead.test"]
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo("dead.test", 443)

    with asyncio.Runner(loop_factory=LookUpLoop) as runner:
        runner.run(calls())
    assert name_server.asked == ["dead.test"] * 2


def test_a_name_server_that_hangs_stops_no_other_look_up(name_server: NameServer) -> None:
    async def calls() -> Any:
        loop = asyncio.get_running_loop()
        # More than a default executor has threads, each of another port
        hanging = [asyncio.create_task(loop.getaddrinfo("dead.test", port)) for port in range(1, 41)]
        await asyncio.to_thread(name_server.was_asked.wait)
        found = await loop.getaddrinfo("living.test", 443)
        name_server.answers.set()
        await asyncio.gather(*hanging, return_exceptions=True)
        return found

    with asyncio.Runner(loop_factory=LookUpLoop) as runner:
        [(*_, address)] = runner.run(calls())
    assert address == ("203.0.114.7", 443)
