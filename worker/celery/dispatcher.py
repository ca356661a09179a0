"""The relay's way to the workers: each offer becomes one Celery message."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celery import Celery
from kombu import Producer
from kombu.exceptions import BatchPublishError
from kombu.utils.uuid import uuid

from db.offers import Offer
from events.connecting import broker_errors, reason_of
from worker.celery import queues, strict_consumer
from worker.effects.answers import label
from worker.errors import Transient
from worker.kinds import QUEUES, task_name


def publish_task(offer: Offer, producer: Any) -> None:
    """Publish the task that runs an effect, with a producer of kombu's."""
    # Celery's `send_task` takes several times as long, and adds fifteen headers that
    # `worker.celery.strict_consumer` drops.
    producer.publish(
        strict_consumer.body_of(str(offer.id)),
        routing_key=QUEUES[offer.kind],
        content_type=strict_consumer.CONTENT_TYPE,
        content_encoding=strict_consumer.CONTENT_ENCODING,
        # RabbitMQ need not write the message to its disk. If it is lost, the relay offers the row again.
        delivery_mode="transient",
        headers={
            "lang": "py",
            "task": task_name(offer.kind),
            "id": uuid(),
            # Flower shows this instead of the bare id.
            "argsrepr": f"{label(offer.kind, offer.payload, offer.tries + 1)} · {offer.id}",
        },
    )


@dataclass(frozen=True, slots=True)
class CeleryDispatcher:
    """Publishes one Celery message for each offer of the relay."""

    celery: Celery

    def dispatch(self, offers: Sequence[Offer]) -> None:
        """Publish one task for each effect, in order. `queue_length` has declared the queues.

        Raises:
            Transient: the broker is away.
        """
        with self._channel() as channel:
            producer = Producer(channel, auto_declare=False)
            with producer.batch():  # on Redis: sent together
                for offer in offers:
                    publish_task(offer, producer)

    def queue_length(self, queue: str) -> int:
        """Return how many tasks wait in a queue, which is declared if it does not exist.

        Raises:
            Transient: the broker is away.
            ConfigurationError: on RabbitMQ, the queue exists as another type.
        """
        with self._channel() as channel:
            # The queue is declared each time. Celery does it once, and would lose what it sends after a deletion.
            return queues.declare(self.celery.amqp.queues[queue], channel)

    @contextmanager
    def _channel(self) -> Iterator[Any]:
        pool = self.celery.pool
        # A blocking acquire would wait for ever for connections that were replaced.
        connection = pool.acquire()
        try:
            connection.connect()  # once; `default_channel` alone would try for ever
            yield connection.default_channel
        except Exception as error:
            # A broken connection does not recover by itself.
            pool.replace(connection)
            # AttributeError: when a Redis server goes away, kombu 5.7 sometimes uses a channel that it has closed,
            # whose connection is None (seen).
            if isinstance(error, (BatchPublishError, AttributeError, *broker_errors(connection))):
                raise Transient(f"the broker is away: {reason_of(error)}") from error
            raise
        connection.release()
