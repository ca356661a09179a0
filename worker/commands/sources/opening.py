"""Connects to the queue of commands of whichever broker it is."""

from events.broker_url import Kind, read_broker_url
from worker.commands.sources.base import Source
from worker.commands.sources.rabbitmq import RabbitSource
from worker.commands.sources.redis import RedisSource


def open_source(broker_url: str, queue: str, limit: int) -> Source:
    """Connect to a queue of commands.

    Parameters:
        broker_url: as `read_broker_url` takes it.
        queue: its name.
        limit: how many messages will be taken at once.

    Raises:
        BrokerAwayError: no connection.
        ConfigurationError: the broker, or the queue that exists, is not what it must be.
        ValueError: the URL cannot be read.
    """
    broker = read_broker_url(broker_url)
    if broker.kind is Kind.AMQP:
        return RabbitSource.open(broker, queue, limit)
    return RedisSource.open(broker, queue)
