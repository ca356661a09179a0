"""The brokers that commands may come from: one entry for each kind of URL, and what is asked of the one in use."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from events.broker_url import BrokerUrl, Kind, for_each_kind, read_broker_url
from events.sharding import queue_name
from worker.commands.sources import rabbitmq_queues, redis_queues
from worker.commands.sources.base import About, BrokerAwayError, Depth, Orphan, Source
from worker.commands.sources.rabbitmq import RabbitSource
from worker.commands.sources.redis import RedisSource
from worker.errors import ConfigurationError

CELERY_TIMEOUT_S = 15.0
"""Seconds that Celery waits for the broker, beyond the second for which a worker's own reads block. Without it, a
server that is frozen or behind a cut cable would hold a process for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """What Invigilator must know of one kind of broker.

    Parameters:
        open_source: connects to a queue; gets the broker, the queue's name and how many messages will be taken at
            once.
        depths: tells how much waits in each of some queues.
        orphans: finds queues of commands beside those of the shards, whose number it gets.
        about: tells what the server is, and what of its configuration loses messages.
        check_server: raises `ConfigurationError` when the server cannot be our broker.
        counts_unacknowledged: whether `depths` counts messages that a consumer has and did not acknowledge.
        celery_options: Celery's `broker_transport_options`.

    The functions raise `BrokerAwayError` when the broker cannot be reached.
    """

    open_source: Callable[[BrokerUrl, str, int], Source]
    depths: Callable[[BrokerUrl, Sequence[str]], Sequence[Depth]]
    orphans: Callable[[BrokerUrl, int], Sequence[Orphan]]
    about: Callable[[BrokerUrl], About]
    check_server: Callable[[BrokerUrl], None]
    counts_unacknowledged: bool
    celery_options: Mapping[str, Any]


_REDIS = Broker(
    open_source=RedisSource.open,
    depths=redis_queues.depths,
    orphans=redis_queues.orphans,
    about=redis_queues.about,
    check_server=redis_queues.check_server,
    counts_unacknowledged=True,
    celery_options={
        "socket_timeout": CELERY_TIMEOUT_S,
        "socket_connect_timeout": CELERY_TIMEOUT_S,
        "socket_keepalive": True,
        # kombu must neither acknowledge nor put back when the connection breaks: see decision 7.
        "ack_emulation": False,
        "priority_steps": [0],  # one list for each queue to wait for, not four
    },
)

_RABBITMQ = Broker(
    open_source=RabbitSource.open,
    depths=rabbitmq_queues.depths,
    orphans=rabbitmq_queues.orphans,
    about=rabbitmq_queues.about,
    check_server=rabbitmq_queues.check_server,
    counts_unacknowledged=False,
    celery_options={"read_timeout": CELERY_TIMEOUT_S, "write_timeout": CELERY_TIMEOUT_S},
)

BROKERS = for_each_kind({Kind.REDIS: _REDIS, Kind.SENTINEL: _REDIS, Kind.AMQP: _RABBITMQ})


def read_url_and_entry(broker_url: str) -> tuple[BrokerUrl, Broker]:
    """Read a broker's URL and find its entry.

    Raises:
        ConfigurationError: the URL cannot be read.
    """
    try:
        url = read_broker_url(broker_url)
    except ValueError as error:
        raise ConfigurationError(f"INVIGILATOR_BROKER_URL {error}") from None
    return url, BROKERS[url.kind]


def open_source(broker_url: str, queue: str, limit: int) -> Source:
    """Connect to a queue of commands.

    Parameters:
        broker_url: as `read_broker_url` takes it.
        queue: its name.
        limit: how many messages will be taken at once.

    Raises:
        BrokerAwayError: no connection.
        ConfigurationError: the URL cannot be read, or the broker, or the queue that exists, is not what it must be.
    """
    url, broker = read_url_and_entry(broker_url)
    return broker.open_source(url, queue, limit)


def check_server(broker_url: str) -> None:
    """Make sure that the server can be our broker, if it answers.

    Raises:
        ConfigurationError: it cannot, or the URL cannot be read.
    """
    url, broker = read_url_and_entry(broker_url)
    with suppress(BrokerAwayError):
        broker.check_server(url)


def about(broker_url: str) -> About:
    """Return what the server is, and what of its configuration loses messages.

    Raises:
        BrokerAwayError: the broker cannot be reached.
        ConfigurationError: the URL cannot be read, or the server cannot be our broker.
    """
    url, broker = read_url_and_entry(broker_url)
    return broker.about(url)


# --- what waits ---------------------------------------------------------------------------------------------


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
    url, broker = read_url_and_entry(broker_url)
    return broker.depths(url, queues)


def orphans(broker_url: str, shards: int) -> Sequence[Orphan]:
    """Return the queues of commands beside those of the shards, by name.

    How many are found depends on the broker: see `redis_queues` and `rabbitmq_queues`.

    Raises:
        BrokerAwayError: the broker cannot be reached.
        ConfigurationError: the URL cannot be read, or the server cannot be our broker.
    """
    url, broker = read_url_and_entry(broker_url)
    return sorted(broker.orphans(url, shards), key=lambda orphan: orphan.queue)
