"""Sends messages to the broker over one connection of kombu's, which one thread uses."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kombu.exceptions import OperationalError

from .connecting import broker_errors, reason_of
from .errors import PublishError
from .shard_count import Ask, ShardCount
from .sharding import queue_name

CONNECTING_SHARE = 0.05
"""The share of its time that a message must have left for a connection to be made. Otherwise each caller that waits
would connect once more, just before it gives up, to a broker that does not answer."""

UNSAID_PAUSE_S = 0.1
"""Seconds between two questions while the number of shards is about to change and the broker does not say it."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message, and where it goes.

    Parameters:
        body: the exact bytes.
        content_type: of the body.
        headers: of the message.
        command_id: for errors; None when the message is no command.
        route: gets the number of shards and returns those that the message goes to. It may raise a `ValueError`.
    """

    body: bytes
    content_type: str
    headers: Mapping[str, str]
    command_id: str | None
    route: Callable[[int], Sequence[int]]


class Sender:
    """Sends messages over one connection, which it opens for the first message.

    Parameters:
        connection: kombu's. Nobody else uses it.
        shards: shared with the senders before and after this one.
        mandatory: whether the broker says when a queue does not exist.
        ask_shards: asks the broker how many shards there are; None where it does not know.
        retries: how often and after which pauses a broken connection is tried again, as kombu's options.
        timeout_s: seconds that a message has.
    """

    def __init__(
        self,
        connection: Any,
        *,
        shards: ShardCount,
        mandatory: bool,
        ask_shards: Ask | None,
        retries: Mapping[str, float],
        timeout_s: float,
    ) -> None:
        self._connection = connection
        self._shards = shards
        self._mandatory = mandatory
        self._ask_shards = ask_shards
        self._retries = retries
        self._timeout_s = timeout_s
        self._connecting_s = timeout_s * CONNECTING_SHARE
        self._returned: list[str] = []
        self._producer: Any = None

    def send(self, parcel: Parcel, deadline: float) -> None:
        """Send a message. Send it again when the connection breaks and there is time left.

        Parameters:
            parcel: the message.
            deadline: by `time.monotonic`. Nothing is begun after it.

        Raises:
            ValueError: there is no such shard.
            PublishError: the broker did not take the message.
        """

        def stop_when_late(error: Exception, pause_s: float) -> None:
            if time.monotonic() + pause_s + self._connecting_s >= deadline:
                raise OperationalError from error

        retries = {**self._retries, "errback": stop_when_late}
        ensured = self._connection.ensure(self, self._send, **retries)
        try:
            ensured(parcel, deadline, retries)
        except broker_errors(self._connection) as error:
            self.disconnect()
            raise not_taken(error, parcel.command_id) from error

    def close(self) -> None:
        """Close the connection, if there is one. Sending opens it again."""
        self._producer = None
        self._connection.release()

    def disconnect(self) -> None:
        """Drop the connection without a word, with everything that is still under way on it."""
        # Otherwise a confirmation that is still under way would be taken for the next message's.
        self._producer = None
        self._connection.collect(socket_timeout=self._timeout_s)

    def revive(self, _channel: object) -> None:
        """Forget the old connection. kombu calls this when it has made another one."""
        self._producer = None

    def _send(self, parcel: Parcel, deadline: float, retries: Mapping[str, Any]) -> None:
        if self._producer is None:
            _leave_time(deadline, self._connecting_s)
            # Without this call, kombu makes its first connection with its own number of tries.
            self._connection.ensure_connection(**retries)
            self._producer = self._connection.Producer(on_return=self._on_return if self._mandatory else None)
            self._shards.forget()
        for shard in parcel.route(self._count(parcel.command_id, deadline)):
            self._publish(parcel, queue_name(shard), deadline)
            if self._returned:
                raise PublishError(
                    f"there is no queue {queue_name(shard)}; check the number of shards, start Invigilator's "
                    "consumer, which makes the queues, and publish again with the same id",
                    parcel.command_id,
                )

    def _count(self, command_id: str | None, deadline: float) -> int:
        while self._ask_shards is not None and self._shards.is_stale():
            asked_at = time.monotonic()
            if self._shards.hear(self._ask_shards(self._producer.channel), asked_at, command_id):
                break
            _leave_time(deadline, UNSAID_PAUSE_S)
            time.sleep(UNSAID_PAUSE_S)
        return self._shards.number

    def _publish(self, parcel: Parcel, queue: str, deadline: float) -> None:
        left_s = _leave_time(deadline, 0)
        self._returned.clear()
        self._producer.publish(
            parcel.body,
            exchange="",
            routing_key=queue,
            delivery_mode="persistent",
            mandatory=self._mandatory,
            content_type=parcel.content_type,
            content_encoding="utf-8",
            headers=dict(parcel.headers),
            timeout=left_s,
            confirm_timeout=left_s,
        )

    def _on_return(self, _error: Exception, _exchange: str, routing_key: str, _message: object) -> None:
        # RabbitMQ returns a message that it cannot route, and confirms it all the same, right after. An error
        # raised here would leave that confirmation unread, and it would be taken for the next message's.
        self._returned.append(routing_key)


def _leave_time(deadline: float, least_s: float) -> float:
    """Return how many seconds are left. Raises `OperationalError` when that is not more than the least."""
    left_s = deadline - time.monotonic()
    if left_s <= least_s:
        raise OperationalError from TimeoutError()
    return left_s


def not_taken(error: BaseException, command_id: str | None) -> PublishError:
    """Return the error to raise when the broker did not take a message, because of another error."""
    return PublishError(
        f"the broker did not take the message ({reason_of(error)}); "
        "check that it is up and that the URL is right, then publish again with the same id",
        command_id,
    )
