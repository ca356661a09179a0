"""What it costs that somebody listens: the whole system without a subscriber, and with one feed of everything.

The clock also runs until the feed has every event. Nobody reads them: Valkey keeps the stream, and RabbitMQ drops
what no queue wants. Each transition is an event.
"""

from collections.abc import Sequence
from functools import partial

from benchmarks.bench import Bench, Contestant, Figures
from benchmarks.engines import Broker
from benchmarks.groups import whole

NAME = "events"
FEED = '[feed.listener]\nname = "benchmark.events"\n'


def silent_name(broker: str) -> str:
    """Return the contestant's name."""
    return f"nobody listens on {broker}"


def feed_name(broker: str) -> str:
    """Return the contestant's name."""
    return f"one feed on {broker}"


def contestants(bench: Bench) -> Sequence[Contestant]:
    """Return our system without a subscriber and with one feed, on each broker."""
    return [
        contestant
        for broker in bench.brokers
        for contestant in (
            Contestant(silent_name(broker.name), partial(whole.measure, bench, broker, {})),
            Contestant(feed_name(broker.name), partial(_with_feed, bench, broker)),
        )
    ]


def _with_feed(bench: Bench, broker: Broker) -> Figures:
    file = bench.folder / "subscriptions.toml"
    file.write_text(FEED, encoding="utf-8")
    return whole.measure(bench, broker, {}, {"SUBSCRIPTIONS_FILE": file})
