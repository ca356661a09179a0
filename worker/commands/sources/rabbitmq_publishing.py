"""Publishes to RabbitMQ for somebody who consumes, over connections of its own.

While its memory or its disk is full, RabbitMQ reads nothing more from a connection that publishes, also none of its
acknowledgements. So a connection that consumes publishes nothing.
"""

from collections.abc import Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from events.broker_url import BrokerUrl
from worker.commands.sources.rabbitmq_connection import PERSISTENT, connection_to
from worker.threads import begin

CONFIRM_TIMEOUT_S = 5
WAIT_S = 1.0
"""Seconds that a caller waits for a message that is under way. It consumes nothing meanwhile."""


@dataclass(slots=True)
class Publishing:
    """Publishes one message at a time, in a thread of its own. One thread may use it."""

    broker: BrokerUrl
    _message: tuple[str, bytes] | None = field(default=None, init=False)
    _under_way: Future[None] = field(default_factory=Future, init=False)

    def publish(self, queue: str, body: bytes, arguments: Mapping[str, Any] | None = None) -> None:
        """Publish a message, or hear what has become of it if it is under way already.

        Parameters:
            queue: its name.
            body: of the message.
            arguments: declare the queue with these. None does not declare it.

        Raises:
            TimeoutError: the broker has not taken the message yet. Ask again.
            Exception: the broker did not take it: one of kombu's errors.
        """
        if self._message != (queue, body):
            self._message = queue, body
            self._under_way = begin(partial(_publish, self.broker, queue, body, arguments))
        wait([self._under_way], WAIT_S)
        if not self._under_way.done():
            raise TimeoutError
        self._message = None
        self._under_way.result()


def _publish(broker: BrokerUrl, queue: str, body: bytes, arguments: Mapping[str, Any] | None) -> None:
    connection = connection_to(broker)
    try:
        connection.connect()
        channel = connection.channel()
        if arguments is not None:
            channel.queue_declare(queue, durable=True, auto_delete=False, arguments=dict(arguments))
        message = channel.prepare_message(
            body, content_type="application/json", properties={"delivery_mode": PERSISTENT}
        )
        channel.basic_publish_confirm(
            message, exchange="", routing_key=queue, confirm_timeout=CONFIRM_TIMEOUT_S
        )
    finally:
        connection.collect()
