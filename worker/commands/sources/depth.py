"""How many messages are queued."""

from collections.abc import Sequence
from contextlib import suppress

from events.sharding import queue_name
from worker.commands.sources.base import BrokerAwayError, Depth
from worker.commands.sources.brokers import read


def queued(broker_url: str, shards: int) -> int:
    """Return how many commands of all shards the broker holds.

    Where `Broker.counts_unacknowledged` is false, commands that a consumer has in hand are not among them:
    `db.shards.in_hand` tells those.

    Raises:
        BrokerAwayError: the broker cannot be reached.
        ConfigurationError: the URL cannot be read, or the server cannot be our broker.
    """
    return sum(one.messages for one in depths(broker_url, [queue_name(shard) for shard in range(shards)]))


def depths(broker_url: str, queues: Sequence[str]) -> Sequence[Depth]:
    """Return how much waits in each of these queues, in their order; nothing in one that does not exist.

    Raises:
        BrokerAwayError: the broker cannot be reached.
        ConfigurationError: the URL cannot be read, or the server cannot be our broker.
    """
    url, broker = read(broker_url)
    return broker.depths(url, queues)


def check_server(broker_url: str) -> None:
    """Make sure that the server can be our broker, if it answers.

    Raises:
        ConfigurationError: it cannot, or the URL cannot be read.
    """
    url, broker = read(broker_url)
    with suppress(BrokerAwayError):
        broker.check_server(url)
