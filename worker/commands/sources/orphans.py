"""Queues of commands that no shard reads: a publisher with another number of shards fills them."""

from collections.abc import Sequence

from worker.commands.sources.base import Orphan
from worker.commands.sources.brokers import read


def orphans(broker_url: str, shards: int) -> Sequence[Orphan]:
    """Return the queues of commands beside those of the shards, by name.

    How many are found depends on the broker: see `redis_queues` and `rabbitmq_queues`.

    Raises:
        BrokerAwayError: the broker cannot be reached.
        ConfigurationError: the URL cannot be read, or the server cannot be our broker.
    """
    url, broker = read(broker_url)
    return sorted(broker.orphans(url, shards), key=lambda orphan: orphan.queue)
