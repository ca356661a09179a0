"""How many commands are queued."""

from typing import Any

from kombu import Connection
from kombu.exceptions import OperationalError
from redis import RedisError

from events.sharding import queue_name
from events.tls import refused_certificate, split_tls
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
    count = _queued_on_redis if broker_url.startswith("redis") else _queued_on_rabbitmq
    try:
        return count(broker_url, [queue_name(shard) for shard in range(shards)])
    except ValueError:
        # The original's text may quote a part of the URL, and so the password.
        raise ConfigurationError(
            "INVIGILATOR_BROKER_URL cannot be read; percent-encode what is special in it"
        ) from None


def _queued_on_redis(broker_url: str, queues: list[str]) -> int:
    try:
        with make_client(broker_url, TIMEOUT_S) as client, client.pipeline(transaction=False) as pipeline:
            for queue in queues:
                for suffix in PRIORITY_SUFFIXES:
                    pipeline.llen(queue + suffix)
            return sum(pipeline.execute())
    except (RedisError, OSError) as error:
        raise away(error) from error


def _queued_on_rabbitmq(broker_url: str, queues: list[str]) -> int:
    url, tls = split_tls(broker_url)
    connection: Any = Connection(url, ssl=tls, connect_timeout=TIMEOUT_S)
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
    reason = refused_certificate(error) or type(error).__name__
    return BrokerAwayError(
        f"the broker is away ({reason}): check that it is up and that INVIGILATOR_BROKER_URL is right"
    )
