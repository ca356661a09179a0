"""Where events may go to: the broker, by the kind of its URL, or the event bus of an Open edX site."""

from collections.abc import Callable

from events.broker_url import BrokerUrl, Kind, for_each_kind, read_broker_url
from worker.commands.sources.brokers import read_url_and_entry
from worker.feeds.base import Target
from worker.feeds.rabbitmq import RabbitTarget
from worker.feeds.redis import RedisTarget
from worker.subscribers import Feed, OpenEdx

OPENEDX_FIELD = "event_data"
"""The field of an entry that holds the data."""

Open = Callable[[BrokerUrl, Feed], Target]


def _open_redis(url: BrokerUrl, feed: Feed) -> Target:
    return RedisTarget.open(url, feed.name, feed.max_len)


def _open_rabbitmq(url: BrokerUrl, feed: Feed) -> Target:
    return RabbitTarget.open(url, feed.name)


_TARGETS: dict[Kind, Open] = {
    Kind.REDIS: _open_redis,
    Kind.SENTINEL: _open_redis,
    Kind.AMQP: _open_rabbitmq,
}
_OPEN = for_each_kind(_TARGETS)


def open_target(broker_url: str, feed: Feed) -> Target:
    """Connect to where a feed publishes to.

    Parameters:
        broker_url: as `events.broker_url.read_broker_url` takes it.

    Raises:
        BrokerAwayError: no connection.
        ConfigurationError: the URL cannot be read.
    """
    url, _ = read_url_and_entry(broker_url)
    return _OPEN[url.kind](url, feed)


def open_bus(bus: OpenEdx) -> Target:
    """Connect to the event bus of an Open edX site.

    Raises:
        BrokerAwayError: no connection.
    """
    url = read_broker_url(bus.redis.get_secret_value())
    return RedisTarget.open(url, bus.topic, bus.max_len, OPENEDX_FIELD)
