"""An event loop in a thread of its own.

Synchronous code uses it for what only a loop offers: deadlines over a whole call, and servers in memory.
"""

import asyncio
import socket
import threading
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


class LookUpLoop(asyncio.SelectorEventLoop):
    """An event loop that asks for a name once at a time, in a thread of its own.

    A name server that hangs keeps a thread, also when the call that asked has given up. asyncio's own look-ups
    share the few threads of its default executor, so after some calls no other name would be looked up. Here every
    call that needs an answer waits for the same look-up.
    """

    def __init__(self) -> None:
        super().__init__()
        self._look_ups: dict[tuple[Any, ...], asyncio.Task[list[Any]]] = {}

    async def getaddrinfo(self, host: Any, port: Any, **more: Any) -> Any:
        """Return what `socket.getaddrinfo` returns.

        Raises:
            OSError: the name is not known.
        """
        key = (host, port, *sorted(more.items()))
        pending = self._look_ups.get(key)
        if pending is None:
            pending = self._look_ups[key] = self.create_task(_look_up(host, port, more))
            pending.add_done_callback(partial(self._forget, key))
        # Unlike awaiting the task, this does not cancel it along with the call that waits.
        await asyncio.wait([pending])
        return pending.result()

    def _forget(self, key: tuple[Any, ...], done: "asyncio.Task[list[Any]]") -> None:
        del self._look_ups[key]
        if not done.cancelled():
            done.exception()  # perhaps nobody waits for it any more, and asyncio would complain


async def _look_up(host: Any, port: Any, more: dict[str, Any]) -> list[Any]:
    ask = partial(socket.getaddrinfo, host, port, **more)
    return await anyio.to_thread.run_sync(ask, limiter=anyio.CapacityLimiter(1), abandon_on_cancel=True)


class LoopThread:
    """Runs coroutines for other threads.

    The thread is a daemon, so a process that does not close it can still end. (anyio's blocking portal was tried
    first: a process that does not close the portal hangs at its exit.)
    """

    def __init__(self, name: str) -> None:
        """Start the thread under the name `name`."""
        self._loop = LookUpLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine on the loop, wait for it, and return its result.

        Raises:
            Exception: whatever the coroutine raises.
        """
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """Cancel the coroutines that still run, and wait for the thread to end."""
        self.run(_cancel_the_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_the_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
