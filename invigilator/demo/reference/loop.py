"""An event loop in a thread of its own, for servers in memory that synchronous code starts and stops."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for other threads.

    The thread is a daemon, so a process that does not close it can still end. (anyio's blocking portal was tried
    first: a process that does not close the portal hangs at its exit.)
    """

    def __init__(self, name: str) -> None:
        """Start the thread under the name `name`."""
        self._loop = asyncio.new_event_loop()
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
