"""Takes commands from RabbitMQ, through kombu: from a quorum queue with a single active consumer."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from kombu import Queue

from events.broker_url import BrokerUrl
from events.connecting import broker_errors
from events.shard_count import Silence, ask_rabbitmq
from events.sharding import SHARDS_KEY, Announcement
from worker.commands.sources.base import MAX_TAKE_BYTES, BrokerAwayError, Message
from worker.commands.sources.rabbitmq_connection import (
    ANSWER_TIMEOUT_S,
    connection_to,
    is_declared_otherwise,
)
from worker.commands.sources.rabbitmq_publishing import Publishing
from worker.errors import ConfigurationError
from worker.logs import get_logger

logger = get_logger(__name__)

HEARTBEAT_S = 10
QUEUE_ARGUMENTS = {"x-queue-type": "quorum", "x-single-active-consumer": True}
STREAM_ARGUMENTS = {
    "x-queue-type": "stream",
    "x-max-length-bytes": 1_000_000,
    "x-stream-max-segment-size-bytes": 500_000,
}
"""Of the stream of announcements. Each is a few bytes, and there are a few for each change of the number."""


@dataclass(slots=True)
class RabbitSource:
    """The queue of one shard, over one connection, which one thread uses.

    RabbitMQ keeps the order only while one consumer holds messages. With a single active consumer, a successor gets
    nothing before its predecessor's connection has ended.
    """

    connection: Any
    channel: Any
    queue: str
    publishing: Publishing
    buffer: deque[Message] = field(default_factory=deque)

    @classmethod
    def open(cls, broker: BrokerUrl, queue: str, limit: int) -> Self:
        """Connect to the first of its hosts that answers, declare the queue and subscribe.

        Raises:
            BrokerAwayError: no connection.
            ConfigurationError: the queue exists with other arguments.
        """
        connection = connection_to(broker, heartbeat=HEARTBEAT_S)
        with _broker(connection):
            connection.connect()
            source = cls(connection, connection.channel(), queue, Publishing(broker))
            try:
                source._subscribe(limit)
            except (BrokerAwayError, ConfigurationError):
                source.close()
                raise
        return source

    def take(self, limit: int, wait_s: float) -> Sequence[Message]:
        """See `Source`."""
        with _broker(self.connection):
            self.connection.heartbeat_check()
            # Reads everything that has arrived, so that `held` counts it. The prefetch bounds it.
            while self.drain(0 if self.buffer else wait_s):
                pass
        return self._from_buffer(limit)

    def told(self) -> Announcement | None:
        """See `Source`."""
        # It is read, not remembered: the stream may have been deleted, and an owner that stood still may have told
        # an older number.
        with _broker(self.connection):
            answer = ask_rabbitmq(self.channel)
        return None if isinstance(answer, Silence) else answer

    def announce(self, announcement: Announcement, told: Announcement | None) -> bool:
        """See `Source`. Appends it to a stream, of which publishers read the last message."""
        if told == announcement:
            return True
        try:
            self.publishing.publish(SHARDS_KEY, announcement.render(), STREAM_ARGUMENTS)
        except self._refusals() as error:
            # Commands are consumed all the same. Publishers use the number that they were given.
            logger.warning(
                "the number of shards was not announced", key=SHARDS_KEY, reason=type(error).__name__
            )
            return False
        return True

    def put_barrier(self, body: bytes) -> bool:
        """See `Source`."""
        try:
            self.publishing.publish(self.queue, body)
        except self._refusals() as error:
            logger.warning("a barrier was not put", queue=self.queue, reason=type(error).__name__)
            return False
        return True

    def _refusals(self) -> tuple[type[Exception], ...]:
        # A message that RabbitMQ does not take is among those that kombu calls recoverable.
        return TimeoutError, *broker_errors(self.connection), *self.connection.recoverable_connection_errors

    def held(self) -> int:
        """See `Source`."""
        return len(self.buffer)

    def is_empty(self) -> bool:
        """See `Source`. RabbitMQ holds messages back while a predecessor's connection has not ended.

        It does not tell of those that the predecessor itself holds.
        """
        with _broker(self.connection):
            waiting: int = self.channel.queue_declare(self.queue, passive=True).message_count
        return waiting == 0 and not self.buffer

    def put_back(self, messages: Sequence[Message]) -> None:
        """See `Source`."""
        self.buffer.extendleft(reversed(messages))

    def ack(self, batch: Sequence[Message]) -> None:
        """See `Source`."""
        with _broker(self.connection):
            self.channel.basic_ack(batch[-1].token, multiple=True)

    def close(self) -> None:
        """See `Source`."""
        self.connection.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _subscribe(self, limit: int) -> None:
        declared = Queue(self.queue, channel=self.channel, durable=True, queue_arguments=QUEUE_ARGUMENTS)
        try:
            declared.queue_declare()
        except self.connection.channel_errors as error:
            if is_declared_otherwise(error):
                raise ConfigurationError(
                    f"queue {self.queue} exists with other arguments: it must be durable with {QUEUE_ARGUMENTS}; "
                    "move its messages away and delete it"
                ) from error
            raise
        # Twice the batch: the next one travels while this one is written.
        self.channel.basic_qos(0, 2 * limit, False)
        # Not kombu's Consumer: that decompresses a body before its size can be checked, and fails on a compression
        # that it does not know.
        asked_at = time.monotonic()
        try:
            self.channel.basic_consume(self.queue, callback=self._on_message)
        except broker_errors(self.connection) as error:
            if time.monotonic() - asked_at < ANSWER_TIMEOUT_S:
                raise
            # Where a queue has no leader, RabbitMQ ends the connection after half a minute.
            raise BrokerAwayError(
                f"the broker does not serve queue {self.queue}: it has no leader, or the broker stands still "
                f"({type(error).__name__})"
            ) from error

    def _from_buffer(self, limit: int) -> list[Message]:
        taken: list[Message] = []
        size = 0
        while self.buffer and len(taken) < limit:
            size += len(self.buffer[0].body)
            if taken and size > MAX_TAKE_BYTES:
                break
            taken.append(self.buffer.popleft())
        return taken

    def _on_message(self, message: Any) -> None:
        body = message.body
        self.buffer.append(
            Message(
                body if isinstance(body, bytes) else str(body).encode(),
                message.delivery_tag,
                message.properties.get("content_type"),
                dict(message.headers or {}),
            )
        )

    def drain(self, wait_s: float) -> bool:
        """Hear what RabbitMQ says within `wait_s` seconds. Returns whether it has said anything."""
        try:
            self.connection.drain_events(timeout=wait_s)
        except (TimeoutError, BlockingIOError):
            return False
        return True


@contextmanager
def _broker(connection: Any) -> Iterator[None]:
    try:
        yield
    except broker_errors(connection) as error:
        connection.release()
        raise BrokerAwayError(f"the broker is away: {type(error).__name__}: {error}") from error
