"""What waits in the queues of RabbitMQ. AMQP can ask about a queue by name, and has no list of queues."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from events.broker_url import BrokerUrl
from events.connecting import Connection, broker_errors
from events.sharding import MAX_SHARDS, queue_name
from worker.commands.sources.base import INSPECTION_TIMEOUT_S, UNNUMBERED, About, Depth, Orphan, away

NOT_FOUND = 404
PROBED = 64
"""How many numbers after the last shard's are tried."""


def depths(broker: BrokerUrl, queues: Sequence[str]) -> list[Depth]:
    """See `Broker`. The number does not include messages that a consumer has not acknowledged."""
    return [
        Depth(queue, 0, consumers=0)
        if answer is None
        else Depth(queue, answer.message_count, consumers=answer.consumer_count)
        for queue, answer in _declared(broker, queues)
    ]


def orphans(broker: BrokerUrl, shards: int) -> list[Orphan]:
    """See `Broker`. Tries the name without a number, and the next `PROBED` numbers."""
    numbers = range(shards, min(shards + PROBED, MAX_SHARDS))
    found = _declared(broker, [UNNUMBERED, *map(queue_name, numbers)])
    return [Orphan(queue, answer.message_count) for queue, answer in found if answer is not None]


def about(broker: BrokerUrl) -> About:
    """See `Broker`. How queues are kept is declared with them."""
    with _asking(broker) as connection:
        properties = connection.connection.server_properties
    return About(f"{properties.get('product', 'RabbitMQ')} {properties.get('version', '')}".strip())


def check_server(_broker: BrokerUrl) -> None:
    """See `Broker`. Every RabbitMQ can be our broker, so it is not asked."""


@contextmanager
def _asking(broker: BrokerUrl) -> Iterator[Any]:
    connection: Any = Connection.to(broker, timeout_s=INSPECTION_TIMEOUT_S, transport_options={})
    try:
        with connection:
            connection.connect()
            yield connection
    except broker_errors(connection) as error:
        raise away(error) from error


def _declared(broker: BrokerUrl, queues: Sequence[str]) -> list[tuple[str, Any]]:
    """What RabbitMQ says of each queue; None when it does not exist.

    RabbitMQ closes the channel then. py-amqp opens it again, so one channel is enough for all of them.
    """
    with _asking(broker) as connection, connection.channel() as channel:
        return [(queue, _asked(connection, channel, queue)) for queue in queues]


def _asked(connection: Any, channel: Any, queue: str) -> Any:
    try:
        return channel.queue_declare(queue, passive=True)
    except connection.channel_errors as error:
        if getattr(error, "reply_code", None) == NOT_FOUND:
            return None
        raise
