"""How many commands are queued."""

from contextlib import suppress
from typing import Any

from kombu.exceptions import OperationalError
from redis import RedisError

from events.broker_url import BrokerUrl, Kind, read_broker_url
from events.connecting import Connection, reason_of
from events.redis_server import UnsuitableServerError, refuse_unsuitable
from events.sharding import queue_name
from worker.commands.sources.base import BrokerAwayError
from worker.commands.sources.redis import PRIORITY_SUFFIXES, make_client
from worker.errors import ConfigurationError

TIMEOUT_S = 10.0
NOT_FOUND = 404


def queued(broker_url: str, shards: int) -> int:
    """How many commands of all shards the broker holds; a queue that does not exist yet holds none.

    On Redis that is every command that is not acknowledged. On RabbitMQ, AMQP tells only what waits: what a
    consumer has in hand is told by `db.shards.in_hand`.

    Raises:
        BrokerAwayError: the broker cannot be reached.
        ConfigurationError: the URL cannot be read.
    """
    try:
        broker = read_broker_url(broker_url)
    except ValueError as error:
        raise ConfigurationError(f"INVIGILATOR_BROKER_URL {error}") from None
    count = _queued_on_rabbitmq if broker.kind is Kind.AMQP else _queued_on_redis
    return count(broker, [queue_name(shard) for shard in range(shards)])


def check_server(broker_url: str) -> None:
    """Make sure that the server can be our broker, if it answers.

    Raises:
        ConfigurationError: it cannot.
    """
    broker = read_broker_url(broker_url)
    if broker.kind is not Kind.AMQP:
        with suppress(BrokerAwayError):
            _queued_on_redis(broker, [])


def _queued_on_redis(broker: BrokerUrl, queues: list[str]) -> int:
    try:
        with make_client(broker, TIMEOUT_S) as client, client.pipeline(transaction=False) as pipeline:
            refuse_unsuitable(client)
            for queue in queues:
                for suffix in PRIORITY_SUFFIXES:
                    pipeline.llen(queue + suffix)
            return sum(pipeline.execute())
    except UnsuitableServerError as error:
        raise ConfigurationError(f"the broker {error}") from error
    except (RedisError, OSError) as error:
        raise away(error) from error


def _queued_on_rabbitmq(broker: BrokerUrl, queues: list[str]) -> int:
    connection: Any = Connection.to(broker, timeout_s=TIMEOUT_S, transport_options={})
    try:
        with connection:
            connection.connect()
            return sum(_waiting(connection, queue) for queue in queues)
    except (OperationalError, *connection.connection_errors, *connection.channel_errors) as error:
        raise away(error) from error


def _waiting(connection: Any, queue: str) -> int:
    with connection.channel() as channel:
        try:
            return int(channel.queue_declare(queue, passive=True).message_count)
        except connection.channel_errors as error:
            if getattr(error, "reply_code", None) == NOT_FOUND:
                return 0
            raise


def away(error: Exception) -> BrokerAwayError:
    """What is raised when the broker cannot be asked, because of an error."""
    return BrokerAwayError(
        f"the broker is away ({reason_of(error)}): check that it is up and that INVIGILATOR_BROKER_URL is right"
    )
