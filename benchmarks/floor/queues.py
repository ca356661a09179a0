"""Queues written by hand: the least code that keeps a message until it has been handled."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import amqp
from kombu import Connection
from redis import Redis

from events.broker_url import Kind, for_each_kind, read_broker_url

QUEUE = "floor"


class Handmade(Protocol):
    """A connection to a queue, for one process that handles one message at a time."""

    def send(self, body: str) -> None:
        """Send a message, and wait until the broker has accepted it."""

    def send_all(self, bodies: Sequence[str]) -> None:
        """Send messages that may be lost, because they can be sent again."""

    def take(self) -> Any:
        """Wait for a message. Return what its JSON says."""

    def done(self) -> None:
        """Delete the message that was taken."""


class InRedis:
    """A queue in a Redis list."""

    def __init__(self, url: str, queue: str) -> None:
        self._redis = Redis.from_url(url, socket_timeout=None)  # `take` waits for as long as it takes
        self._queue, self._taken = queue, f"{queue}.taken.{os.getpid()}"

    def send(self, body: str) -> None:
        self._redis.lpush(self._queue, body)

    def send_all(self, bodies: Sequence[str]) -> None:
        self._redis.lpush(self._queue, *bodies)

    def take(self) -> Any:
        message: Any = self._redis.blmove(self._queue, self._taken, 0)
        return json.loads(message)

    def done(self) -> None:
        self._redis.rpop(self._taken)


class InRabbitMQ:
    """A durable queue in RabbitMQ, with py-amqp."""

    def __init__(self, url: str, queue: str) -> None:
        self._connection = Connection(url)
        self._channel: Any = self._connection.default_channel
        self._queue = queue
        self._channel.queue_declare(queue, durable=True, auto_delete=False)
        self._taken: list[Any] = []

    def send(self, body: str) -> None:
        message = amqp.Message(body, delivery_mode=2)
        self._channel.basic_publish_confirm(message, exchange="", routing_key=self._queue)

    def send_all(self, bodies: Sequence[str]) -> None:
        for body in bodies:
            self._channel.basic_publish(amqp.Message(body), exchange="", routing_key=self._queue)

    def take(self) -> Any:
        if not self._channel.callbacks:
            self._channel.basic_qos(0, 1, False)
            self._channel.basic_consume(self._queue, callback=self._taken.append)
        while not self._taken:
            self._connection.drain_events()
        return json.loads(self._taken[0].body)

    def done(self) -> None:
        self._channel.basic_ack(self._taken.pop().delivery_tag)


HANDMADE: Mapping[Kind, Callable[[str, str], Handmade]] = for_each_kind(
    {Kind.REDIS: InRedis, Kind.SENTINEL: InRedis, Kind.AMQP: InRabbitMQ}
)


def connect(url: str, queue: str = QUEUE) -> Handmade:
    """Connect to a queue of the broker with this URL."""
    return HANDMADE[read_broker_url(url).kind](url, queue)
