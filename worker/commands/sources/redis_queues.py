"""What waits in the queues of Redis or Valkey, and whether a server can be our broker."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis import Redis, RedisError
from redis.exceptions import NoPermissionError

from events.broker_url import BrokerUrl
from events.redis_server import UnsuitableServerError, refuse_unsuitable
from events.sharding import queue_name
from worker.commands.sources.base import INSPECTION_TIMEOUT_S, UNNUMBERED, About, Depth, Orphan, away
from worker.commands.sources.redis import PRIORITY_SUFFIXES, make_client
from worker.errors import ConfigurationError

SCANNED_KEYS = 10_000  # in one call
KEEPS_ALL = "noeviction"


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


def about(broker: BrokerUrl) -> About:
    """See `Broker`."""
    with _asking(broker) as client:
        refuse_unsuitable(client)
        try:
            known: Any = client.info("everything")
        except NoPermissionError:
            return About("Redis", notes=["our user may not ask INFO, so its configuration is not known"])
    policy = known.get("maxmemory_policy", KEEPS_ALL)
    wrong = [f"maxmemory-policy is {policy}: set it to {KEEPS_ALL}, or what waits may be evicted"]
    notes = ["appendonly is no: what waits is lost when the server ends; set it to yes"]
    name = "Valkey" if "valkey_version" in known else "Redis"
    return About(
        f"{name} {known.get('valkey_version', known.get('redis_version'))}",
        wrong if policy != KEEPS_ALL else (),
        notes if not known.get("aof_enabled") else (),
    )


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
