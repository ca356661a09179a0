"""kombu's transports for Redis, with four differences. Nothing in kombu is replaced: `events.connecting` has them.

- They refuse a server that cannot be our broker.
- They neither put messages back nor change a setting of the process when a connection breaks or is dropped.
- A consumer takes as many messages at once as it has room for. kombu asks the server for each message.
- Two of them keep one client for each channel. kombu makes a client for every message, which costs more than to
  send it: redis-py fills a table of four hundred answers for each client.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from queue import Empty
from time import monotonic
from typing import Any

from kombu.transport import redis
from kombu.utils.encoding import bytes_to_str

from .redis_server import explained, refuse_unsuitable


class _KeepingNothing:
    """Makes a channel leave alone the messages that were not acknowledged. kombu would put them back.

    After a connection broke, kombu 5.7 does it over a client that is gone, and that ends a worker (decision 7).
    """

    do_restore = False


BLMPOP_SINCE = 7
"""The first Redis that has BLMPOP. Every Valkey has it."""
UNLIMITED = 100
"""So many messages are taken at once by a consumer without a limit on what it prefetches."""


class _TakingSeveral(_KeepingNothing):
    """Makes a consumer take as many messages at once as its prefetch count leaves room for.

    Of several queues one answers, and the next turn begins behind it. See kombu, which uses BRPOP.
    """

    takes_several = False
    """Whether the server has BLMPOP."""

    def _brpop_start(self, timeout: float | None = None) -> None:
        channel: Any = self
        if not channel.takes_several:
            super()._brpop_start(timeout)  # type: ignore[misc]
            return
        queues = channel._queue_cycle.consume(len(channel.active_queues))
        if not queues:
            return
        lists = [channel._q_for_pri(queue, step) for step in channel.priority_steps for queue in queues]
        room = channel.qos.can_consume_max_estimate()
        channel._in_poll = channel.client.connection
        channel._brpop_sent_at = monotonic()
        wait_s = timeout or channel.brpop_timeout
        channel._in_poll.send_command(
            "BLMPOP",
            wait_s,
            len(lists),
            *lists,
            "RIGHT",
            "COUNT",
            UNLIMITED if room is None else max(1, room),
        )

    def _brpop_read(self, **options: Any) -> bool:
        channel: Any = self
        if not channel.takes_several:
            return bool(super()._brpop_read(**options))  # type: ignore[misc]
        try:
            self._deliver_all(self._answer_of(channel, options))
        finally:
            channel._in_poll = None
            channel._flush_brpop_reauth()
        return True

    def _answer_of(self, channel: Any, options: Mapping[str, Any]) -> Any:
        try:
            return channel.client.parse_response(channel.client.connection, "BLMPOP", **options)
        except channel.connection_errors:
            channel.client.connection.disconnect()  # it connects again by itself
            raise

    def _deliver_all(self, answer: Any) -> None:
        if not answer:
            raise Empty
        channel: Any = self
        key, items = answer
        queue = bytes_to_str(key).rsplit(channel.sep, 1)[0]
        channel._queue_cycle.rotate(queue)
        for item in items:
            # The reader of envelopes is looked up for each: `worker.patches` replaces it.
            channel.connection._deliver(redis.loads(bytes_to_str(item)), queue)


class _OneClient(_KeepingNothing):
    """Gives a channel one client, which keeps one connection. To borrow one for each command takes longer."""

    _one_client: Any = None

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Yield the given client, or the channel's. See kombu."""
        channel: Any = self
        # After a fork it has another pool.
        if self._one_client is None or self._one_client.connection_pool is not channel.pool:
            self._one_client = channel.Client(connection_pool=channel.pool, single_connection_client=True)
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
            channel.takes_several = refuse_unsuitable(channel.client) >= BLMPOP_SINCE
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


class AskingChannel(_TakingSeveral, redis.Channel):  # type: ignore[misc]
    """See kombu."""


class AskingSentinelChannel(_TakingSeveral, redis.SentinelChannel):  # type: ignore[misc]
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
