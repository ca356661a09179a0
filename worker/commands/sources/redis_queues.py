"""What waits in the queues of Redis or Valkey, and whether a server can be our broker."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from redis import Redis, RedisError

from events.broker_url import BrokerUrl
from events.redis_server import UnsuitableServerError, refuse_unsuitable
from events.sharding import queue_name
from worker.commands.sources.base import INSPECTION_TIMEOUT_S, UNNUMBERED, Depth, Orphan, away
from worker.commands.sources.redis import PRIORITY_SUFFIXES, make_client
from worker.errors import ConfigurationError

SCANNED_KEYS = 10_000  # in one call


def depths(broker: BrokerUrl, queues: Sequence[str]) -> list[Depth]:
    """See `Broker`. The number includes messages that a consumer has read and not acknowledged."""
    with _asking(broker) as client, client.pipeline(transaction=False) as pipeline:
        refuse_unsuitable(client)
        for queue in queues:
            for suffix in PRIORITY_SUFFIXES:
                pipeline.llen(queue + suffix)
        lengths = iter(pipeline.execute())
        return [Depth(queue, sum(next(lengths) for _ in PRIORITY_SUFFIXES)) for queue in queues]


def orphans(broker: BrokerUrl, shards: int) -> list[Orphan]:
    """See `Broker`. Looks through the names of all keys, so it finds every such queue."""
    read = {(queue_name(shard) + suffix).encode() for shard in range(shards) for suffix in PRIORITY_SUFFIXES}
    with _asking(broker) as client, client.pipeline(transaction=False) as pipeline:
        scanned = client.scan_iter(match=f"{UNNUMBERED}*", count=SCANNED_KEYS, _type="list")
        names = sorted(set(scanned) - read)
        for name in names:
            pipeline.llen(name)
        lengths = Counter[str]()
        for name, length in zip(names, pipeline.execute(), strict=True):
            # The lists of a queue, one for each priority, count as one.
            lengths[name.decode("utf-8", "replace").partition("\x06\x16")[0]] += length
    return [Orphan(queue, length) for queue, length in lengths.items()]


def check_server(broker: BrokerUrl) -> None:
    """See `Broker`. Refuses a node of a Redis Cluster, a Sentinel, and a database that does not exist."""
    depths(broker, [])


@contextmanager
def _asking(broker: BrokerUrl) -> Iterator[Redis]:
    try:
        with make_client(broker, INSPECTION_TIMEOUT_S) as client:
            yield client
    except UnsuitableServerError as error:
        raise ConfigurationError(f"the broker {error}") from error
    except (RedisError, OSError) as error:
        raise away(error) from error
