"""The brokers that events may go to: one entry for each kind of URL."""

from collections.abc import Callable

from events.broker_url import BrokerUrl, Kind, for_each_kind
from worker.commands.sources.brokers import read_url_and_entry
from worker.feeds.base import Target
from worker.feeds.rabbitmq import RabbitTarget
from worker.feeds.redis import RedisTarget
from worker.subscriptions import Feed

Open = Callable[[BrokerUrl, Feed], Target]

_TARGETS: dict[Kind, Open] = {
    Kind.REDIS: RedisTarget.open,
    Kind.SENTINEL: RedisTarget.open,
    Kind.AMQP: RabbitTarget.open,
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
