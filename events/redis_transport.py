"""kombu's ways to Redis: they refuse servers that cannot be our broker, and may keep one client for each channel.

kombu builds a client for every message, which costs more than sending it: its table of four hundred answers is
filled anew each time. Nothing of kombu is replaced: whoever names one of these transports has it
(`events.connecting`), and nobody else in the process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.transport import redis

from events.redis_server import explained, refuse_unsuitable


class _OneClient:
    """Of a channel. A client holds no connection of its own: each command borrows one from the channel's pool."""

    _one_client: Any = None

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """See kombu: the given client, or the channel's."""
        channel: Any = self
        # After a fork, and after the channel was closed, it has another pool.
        if self._one_client is None or self._one_client.connection_pool is not channel.pool:
            self._one_client = channel._create_client()
        yield client or self._one_client


class _Asking:
    """Of a transport: it asks each server what it is."""

    def create_channel(self, connection: Any) -> Any:
        """See kombu. Raises `UnsuitableServerError`, which counts as a server that is away."""
        with explained():
            channel = super().create_channel(connection)  # type: ignore[misc]
        try:
            refuse_unsuitable(channel.client)
        except BaseException:
            channel.close()
            raise
        return channel


class Channel(_OneClient, redis.Channel):  # type: ignore[misc]
    """See kombu."""


class SentinelChannel(_OneClient, redis.SentinelChannel):  # type: ignore[misc]
    """See kombu."""


class AskingTransport(_Asking, redis.Transport):  # type: ignore[misc]
    """See kombu."""


class AskingSentinelTransport(_Asking, redis.SentinelTransport):  # type: ignore[misc]
    """See kombu."""


class Transport(AskingTransport):
    """See kombu; with one client for each channel."""

    Channel = Channel


class SentinelTransport(AskingSentinelTransport):
    """See kombu; with one client for each channel."""

    Channel = SentinelChannel
