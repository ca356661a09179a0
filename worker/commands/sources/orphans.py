"""Queues of commands that no shard reads: what a publisher with another number of shards fills."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kombu.exceptions import OperationalError
from redis import RedisError

from events.broker_url import BrokerUrl, Kind, read_broker_url
from events.connecting import Connection
from events.sharding import MAX_SHARDS, queue_name
from worker.commands.sources.depth import NOT_FOUND, TIMEOUT_S, away
from worker.commands.sources.redis import PRIORITY_SUFFIXES, make_client

UNNUMBERED = "invigilator.commands"
"""What a queue of commands is called when its number was forgotten, and how the names of all of them begin."""

PROBED = 64
"""On RabbitMQ, how many numbers after the last shard are looked at. AMQP has no list of queues."""

SCANNED_KEYS = 10_000  # in one call


@dataclass(frozen=True, slots=True)
class Orphan:
    """A queue of commands that nobody reads.

    Parameters:
        length: how many messages wait there. On RabbitMQ a queue may be there without any.
    """

    queue: str
    length: int


def orphans(broker_url: str, shards: int) -> Sequence[Orphan]:
    """The queues of commands beside those of the shards, by name.

    On Redis all of them: the names of all keys are looked through. On RabbitMQ the one without a number, and those
    with the next `PROBED` numbers.

    Raises:
        BrokerAwayError: the broker cannot be reached.
    """
    broker = read_broker_url(broker_url)
    look = _on_rabbitmq if broker.kind is Kind.AMQP else _on_redis
    return sorted(look(broker, shards), key=lambda orphan: orphan.queue)


def _on_redis(broker: BrokerUrl, shards: int) -> list[Orphan]:
    read = {(queue_name(shard) + suffix).encode() for shard in range(shards) for suffix in PRIORITY_SUFFIXES}
    try:
        with make_client(broker, TIMEOUT_S) as client, client.pipeline(transaction=False) as pipeline:
            scanned = client.scan_iter(match=f"{UNNUMBERED}*", count=SCANNED_KEYS, _type="list")
            names = sorted(set(scanned) - read)
            for name in names:
                pipeline.llen(name)
            lengths = Counter[str]()
            for name, length in zip(names, pipeline.execute(), strict=True):
                # The lists of a queue, one for each priority, count as one.
                lengths[name.decode("utf-8", "replace").partition("\x06\x16")[0]] += length
    except (RedisError, OSError) as error:
        raise away(error) from error
    return [Orphan(queue, length) for queue, length in lengths.items()]


def _on_rabbitmq(broker: BrokerUrl, shards: int) -> list[Orphan]:
    connection: Any = Connection.to(broker, timeout_s=TIMEOUT_S, transport_options={})
    try:
        with connection:
            connection.connect()
            return list(_probed(connection, shards))
    except (OperationalError, *connection.connection_errors, *connection.channel_errors) as error:
        raise away(error) from error


def _probed(connection: Any, shards: int) -> Iterator[Orphan]:
    numbers = range(shards, min(shards + PROBED, MAX_SHARDS))
    for queue in (UNNUMBERED, *map(queue_name, numbers)):
        with connection.channel() as channel:
            try:
                yield Orphan(queue, channel.queue_declare(queue, passive=True).message_count)
            except connection.channel_errors as error:
                if getattr(error, "reply_code", None) != NOT_FOUND:
                    raise
