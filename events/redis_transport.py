"""kombu's transports for Redis, with three differences. Nothing in kombu is replaced: `events.connecting` has them.

- They refuse a server that cannot be our broker.
- They neither put messages back nor change a setting of the process when a connection breaks or is dropped.
- Two of them keep one client for each channel. kombu makes a client for every message, which costs more than to
  send it: redis-py fills a table of four hundred answers for each client.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kombu.transport import redis

from .redis_server import explained, refuse_unsuitable


class _KeepingNothing:
    """Makes a channel leave alone the messages that were not acknowledged. kombu would put them back.

    After a connection broke, kombu 5.7 does it over a client that is gone, and that ends a worker (decision 7).
    """

    do_restore = False


class _OneClient(_KeepingNothing):
    """Gives a channel one client, which holds no connection: each command borrows one from the channel's pool."""

    _one_client: Any = None

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Yield the given client, or the channel's. See kombu."""
        channel: Any = self
        # After a fork it has another pool.
        if self._one_client is None or self._one_client.connection_pool is not channel.pool:
            self._one_client = channel._create_client()
        yield client or self._one_client


class _Ours:
    """Makes a transport of kombu's refuse a server that cannot be our broker."""

    def create_channel(self, connection: Any) -> Any:
        """Make a channel, on a server that can be our broker. See kombu.

        Raises:
            UnsuitableServerError: the server cannot be our broker. kombu takes it for one that is away.
        """
        with explained():
            channel = super().create_channel(connection)  # type: ignore[misc]
        try:
            refuse_unsuitable(channel.client)
        except BaseException:
            channel.close()
            raise
        return channel

    def _collect(self, connection: Any) -> None:
        # kombu calls this when it drops a connection. Without it, kombu 5.7 would change the default time-out of
        # every socket that the process makes meanwhile.
        transport: Any = self
        with suppress(*transport.connection_errors, OSError, AttributeError):  # those that kombu suppresses
            transport.close_connection(connection)


class AskingChannel(_KeepingNothing, redis.Channel):  # type: ignore[misc]
    """See kombu."""


class AskingSentinelChannel(_KeepingNothing, redis.SentinelChannel):  # type: ignore[misc]
    """See kombu."""


class Channel(_OneClient, redis.Channel):  # type: ignore[misc]
    """See kombu."""


class SentinelChannel(_OneClient, redis.SentinelChannel):  # type: ignore[misc]
    """See kombu."""


class AskingTransport(_Ours, redis.Transport):  # type: ignore[misc]
    """See kombu."""

    Channel = AskingChannel


class AskingSentinelTransport(_Ours, redis.SentinelTransport):  # type: ignore[misc]
    """See kombu."""

    Channel = AskingSentinelChannel


class Transport(AskingTransport):
    """A transport with one client for each channel. See kombu."""

    Channel = Channel


class SentinelTransport(AskingSentinelTransport):
    """A transport with one client for each channel. See kombu."""

    Channel = SentinelChannel
