"""What waits in the queues of RabbitMQ. AMQP can ask about a queue by name, and has no list of queues."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from events.broker_url import BrokerUrl
from events.connecting import Connection, broker_errors
from events.sharding import MAX_SHARDS, queue_name
from worker.commands.sources.base import INSPECTION_TIMEOUT_S, UNNUMBERED, About, Depth, Orphan, away

NOT_FOUND = 404
GAP = 8
"""After so many numbers in a row without a queue no more are tried. Each costs RabbitMQ a channel and a line of its
log. `consume` declares the queues of all shards, so there are gaps only where a person has deleted some."""


def depths(broker: BrokerUrl, queues: Sequence[str]) -> list[Depth]:
    """See `Broker`. The number does not include messages that a consumer has not acknowledged."""
    with _asking(broker) as ask:
        return [_depth(queue, ask(queue)) for queue in queues]


def _depth(queue: str, answer: Any) -> Depth:
    if answer is None:
        return Depth(queue, 0, consumers=0)
    return Depth(queue, answer.message_count, consumers=answer.consumer_count)


def orphans(broker: BrokerUrl, shards: int) -> list[Orphan]:
    """See `Broker`. Tries the name without a number, and the numbers after the last shard's up to a `GAP`."""
    with _asking(broker) as ask:
        found = {UNNUMBERED: ask(UNNUMBERED)}
        missing = 0
        for queue in map(queue_name, range(shards, MAX_SHARDS)):
            found[queue] = ask(queue)
            missing = missing + 1 if found[queue] is None else 0
            if missing == GAP:
                break
    return [Orphan(queue, answer.message_count) for queue, answer in found.items() if answer is not None]


def about(broker: BrokerUrl) -> About:
    """See `Broker`. How queues are kept is declared with them."""
    with _connected(broker) as connection:
        properties = connection.connection.server_properties
    return About(f"{properties.get('product', 'RabbitMQ')} {properties.get('version', '')}".strip())


def check_server(_broker: BrokerUrl) -> None:
    """See `Broker`. Every RabbitMQ can be our broker, so it is not asked."""


@contextmanager
def _connected(broker: BrokerUrl) -> Iterator[Any]:
    connection: Any = Connection.to(broker, timeout_s=INSPECTION_TIMEOUT_S, transport_options={})
    try:
        with connection:
            connection.connect()
            yield connection
    except broker_errors(connection) as error:
        raise away(error) from error


@contextmanager
def _asking(broker: BrokerUrl) -> Iterator[Callable[[str], Any]]:
    """Yield what tells what RabbitMQ says of a queue; None when it does not exist.

    RabbitMQ closes the channel then. py-amqp opens it again, so one channel is enough for all queues.
    """
    with _connected(broker) as connection, connection.channel() as channel:

        def ask(queue: str) -> Any:
            try:
                return channel.queue_declare(queue, passive=True)
            except connection.channel_errors as error:
                if getattr(error, "reply_code", None) == NOT_FOUND:
                    return None
                raise

        yield ask
