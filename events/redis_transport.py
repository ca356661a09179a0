"""kombu's way to Redis, with one client object for each channel.

kombu builds a client for every message, which costs more than sending it: its table of four hundred answers is
filled anew each time. Nothing of kombu is replaced: whoever names this transport has it, as the publisher does
unless told otherwise (`reuse_redis_client`), and nobody else in the process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.transport import redis


class Channel(redis.Channel):  # type: ignore[misc]
    """See kombu. A client holds no connection of its own: each command borrows one from the channel's pool."""

    _one_client: Any = None

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """See kombu: the given client, or the channel's."""
        # After a fork, and after the channel was closed, it has another pool.
        if self._one_client is None or self._one_client.connection_pool is not self.pool:
            self._one_client = self._create_client()
        yield client or self._one_client


class Transport(redis.Transport):  # type: ignore[misc]
    """See kombu."""

    Channel = Channel
