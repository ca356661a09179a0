"""The queues of effects: as they are declared, and what is said where one exists as another type."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from kombu import Exchange, Queue

from events.connecting import broker_errors
from worker.commands.sources.rabbitmq_connection import is_declared_otherwise
from worker.errors import ConfigurationError
from worker.kinds import QUEUES
from worker.settings import PREFIX, QueueType


def effect_queues(queue_type: QueueType) -> Sequence[Queue]:
    """Return the queues of effects.

    They are declared as Celery declares a queue that it creates by itself, because RabbitMQ refuses another
    declaration of a queue that exists.

    Parameters:
        queue_type: on RabbitMQ. Redis has no types.
    """
    arguments = {"x-queue-type": "quorum"} if queue_type == "quorum" else None
    return [
        Queue(queue, Exchange(queue), queue, queue_arguments=arguments)
        for queue in sorted(set(QUEUES.values()))
    ]


def declare(queue: Queue, channel: Any) -> int:
    """Declare a queue if it does not exist. Returns how many messages wait there.

    Raises:
        ConfigurationError: it exists as another type.
    """
    with _explained(queue.name):
        return int(queue.bind(channel).queue_declare().message_count)


def check_types(celery: Any) -> None:
    """Declare all queues of effects. Does nothing if the broker is away.

    Celery would meet a queue of another type again and again, with a traceback each time.

    Raises:
        ConfigurationError: one exists as another type.
    """
    with celery.connection_for_write() as connection, suppress(*broker_errors(connection), OSError):
        connection.connect()
        for queue in celery.amqp.queues.values():
            declare(queue, connection.default_channel)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not is_declared_otherwise(error):
            raise
        raise ConfigurationError(
            f"queue {name} exists as another type than {PREFIX}EFFECT_QUEUES says: mend the setting, or delete the "
            "queue (what was in it is offered again)"
        ) from error
