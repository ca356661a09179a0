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
    with _asking(broker) as connection:
        found = [(queue, _declared(connection, queue)) for queue in queues]
    return [
        Depth(queue, 0, consumers=0)
        if answer is None
        else Depth(queue, answer.message_count, consumers=answer.consumer_count)
        for queue, answer in found
    ]


def orphans(broker: BrokerUrl, shards: int) -> list[Orphan]:
    """See `Broker`. Tries the name without a number, and the next `PROBED` numbers."""
    numbers = range(shards, min(shards + PROBED, MAX_SHARDS))
    with _asking(broker) as connection:
        found = [(queue, _declared(connection, queue)) for queue in (UNNUMBERED, *map(queue_name, numbers))]
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


def _declared(connection: Any, queue: str) -> Any:
    """What RabbitMQ says of a queue; None when it does not exist."""
    with connection.channel() as channel:
        try:
            return channel.queue_declare(queue, passive=True)
        except connection.channel_errors as error:
            if getattr(error, "reply_code", None) == NOT_FOUND:
                return None
            raise
