"""The way to the broker: one connection of kombu's, used by one thread."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kombu.exceptions import OperationalError

from events.connecting import reason_of
from events.errors import PublishError, ShardsMismatchError
from events.sharding import MAX_SHARDS, SHARDS_KEY, queue_name

logger = logging.getLogger(__name__)

ASK_EVERY_S = 10.0
"""How often the broker is asked how many shards there are, besides when there is another connection."""
ASK_AGAIN_S = 1.0
"""The same, as long as it does not say."""


CONNECTING_SHARE = 0.05
"""Of its time that must be left for a message when a connection is to be made for it. With less, a broker that does
not answer would be connected to once more for each of those who wait, just before they give up."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message, and where it goes."""

    body: bytes
    content_type: str
    headers: Mapping[str, str]
    command_id: str | None
    """None when it is no command."""
    route: Callable[[int], Sequence[int]]
    """Gets the number of shards and returns those that it goes to. It may raise a `ValueError`."""


class ShardCount:
    """How many shards there are: what the publisher was told, held against what the broker says.

    Parameters:
        told: None when the publisher was not told.
    """

    def __init__(self, told: int | None) -> None:
        self._told = told
        self._ask_at = 0.0
        self._has_warned = False
        self.number = told or 1
        """What counts. The last answer stays when the broker has been emptied."""

    def is_stale(self) -> bool:
        """Whether it is time to ask the broker."""
        return time.monotonic() >= self._ask_at

    def forget(self) -> None:
        """Have the broker asked before the next message."""
        self._ask_at = 0.0

    def hear(self, answer: object, command_id: str | None) -> None:
        """Take what stands in the broker under `SHARDS_KEY`; None when nothing can be read there.

        Parameters:
            command_id: of what is about to be sent, for the error.

        Raises:
            ShardsMismatchError: it is not what the publisher was told.
        """
        said = _number(answer)
        if said is None:
            self._ask_at = time.monotonic() + ASK_AGAIN_S
            self._warn()
        elif self._told not in (None, said):
            raise ShardsMismatchError(
                f"this publisher was told that there are {self._told} shards, but the broker says {said}: "
                "nothing was sent; leave the number out, or mend it, and publish again with the same id",
                command_id,
            )
        else:
            self._ask_at = time.monotonic() + ASK_EVERY_S
            self.number = said

    def _warn(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "the broker does not say how many shards there are (%s is missing or may not be read): publishing "
                "to %d; commands on a wrong shard are not handled. `invigilator consume` writes it there",
                SHARDS_KEY,
                self.number,
            )


def _number(answer: object) -> int | None:
    if not (isinstance(answer, bytes) and answer.isdigit() and len(answer) <= len(str(MAX_SHARDS))):
        return None
    number = int(answer)
    return number if 1 <= number <= MAX_SHARDS else None


class Sender:
    """Sends messages over one connection, which it opens when there is something to send.

    Parameters:
        connection: kombu's; it is not shared with anybody.
        shards: shared with the senders before and after this one.
        mandatory: whether the broker says when there is no such queue.
        retries: how often and after which pauses a broken connection is tried again, in kombu's words.
        timeout_s: how long a message has, and one step of closing may take.
    """

    def __init__(
        self,
        connection: Any,
        *,
        shards: ShardCount,
        mandatory: bool,
        retries: Mapping[str, float],
        timeout_s: float,
    ) -> None:
        self._connection = connection
        self._shards = shards
        self._mandatory = mandatory
        self._retries = retries
        self._timeout_s = timeout_s
        self._connecting_s = timeout_s * CONNECTING_SHARE
        self._returned: list[str] = []
        self._producer: Any = None

    def send(self, parcel: Parcel, deadline: float) -> None:
        """Send a message, and again when the connection breaks, as long as there is time.

        Parameters:
            deadline: by `time.monotonic`; nothing is begun after it.

        Raises:
            ValueError: there is no such shard.
            PublishError: the broker did not take it.
        """

        def stop_when_late(error: Exception, pause_s: float) -> None:
            if time.monotonic() + pause_s + self._connecting_s >= deadline:
                raise OperationalError from error

        retries = {**self._retries, "errback": stop_when_late}
        ensured = self._connection.ensure(self, self._send, **retries)
        try:
            ensured(parcel, deadline, retries)
        except (
            OperationalError,
            *self._connection.connection_errors,
            *self._connection.channel_errors,
        ) as error:
            self.disconnect()
            raise not_taken(error, parcel.command_id) from error

    def close(self) -> None:
        """Close the connection, if there is one. Sending opens it again."""
        self._producer = None
        self._connection.release()

    def disconnect(self) -> None:
        """Drop the connection without a word, and whatever is still under way on it."""
        # A confirmation that is still under way must not be taken for the next message's.
        self._producer = None
        self._connection.collect(socket_timeout=self._timeout_s)

    def revive(self, _channel: object) -> None:
        """For kombu: there is another connection."""
        self._producer = None

    def _send(self, parcel: Parcel, deadline: float, retries: Mapping[str, Any]) -> None:
        if self._producer is None:
            _leave_time(deadline, self._connecting_s)
            # Without this, kombu tries to make its first connection as often as it does for everybody.
            self._connection.ensure_connection(**retries)
            self._producer = self._connection.Producer(on_return=self._on_return if self._mandatory else None)
            self._shards.forget()
        for shard in parcel.route(self._count(parcel.command_id)):
            self._publish(parcel, queue_name(shard), deadline)
            if self._returned:
                raise PublishError(
                    f"there is no queue {queue_name(shard)}; check the number of shards, start Invigilator's "
                    "consumer, which makes the queues, and publish again with the same id",
                    parcel.command_id,
                )

    def _count(self, command_id: str | None) -> int:
        channel = self._producer.channel
        if self._connection.transport.driver_type == "redis" and self._shards.is_stale():
            try:
                with channel.conn_or_acquire() as client:
                    answer = client.get(SHARDS_KEY)
            except channel.ResponseError:  # no right to read it, or no string
                answer = None
            self._shards.hear(answer, command_id)
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
        # RabbitMQ returns what it cannot route, and confirms it all the same, right after. Raising here would
        # leave that confirmation unread, to be taken for the next message's. So only note it.
        self._returned.append(routing_key)


def _leave_time(deadline: float, least_s: float) -> float:
    """How many seconds there are left. Raises `OperationalError` when there are no more than the least."""
    left_s = deadline - time.monotonic()
    if left_s <= least_s:
        raise OperationalError from TimeoutError()
    return left_s


def not_taken(error: BaseException, command_id: str | None) -> PublishError:
    """What is raised when the broker did not take a message, because of an error."""
    return PublishError(
        f"the broker did not take the message ({reason_of(error)}); "
        "check that it is up and that the URL is right, then publish again with the same id",
        command_id,
    )
