"""What it costs that somebody listens: the whole system without a subscriber, and with one feed of everything.

The clock also runs until the feed has every event. Nobody reads them: Valkey keeps the stream, and RabbitMQ drops
what no queue wants. Each transition is an event.

*Through the relay*: 100,000 events wait for their numbers when the relay starts, and the feed gets them. The rate
is that of the feed's cursor, without the first 10,000 events. Nothing else runs.
"""

from collections.abc import Sequence
from functools import partial

from benchmarks.bench import Bench, Contestant, Figures
from benchmarks.engines import Broker
from benchmarks.groups import whole
from benchmarks.groups.effects import ATTEMPTS, EVENTS, insert
from benchmarks.ours import Ours

NAME = "events"
WAITING, WARM = 100_000, 10_000
LOOK_S = 0.01
_CURSOR = "SELECT max(position) FROM subscribers"
FEED = '[feed.listener]\nname = "benchmark.events"\n'


def silent_name(broker: str) -> str:
    """Return the contestant's name."""
    return f"nobody listens on {broker}"


def feed_name(broker: str) -> str:
    """Return the contestant's name."""
    return f"one feed on {broker}"


def relay_name(broker: str) -> str:
    """Return the contestant's name."""
    return f"through the relay on {broker}"


def contestants(bench: Bench) -> Sequence[Contestant]:
    """Return our system without a subscriber and with one feed, and the relay alone, on each broker."""
    return [
        contestant
        for broker in bench.brokers
        for contestant in (
            Contestant(silent_name(broker.name), partial(whole.measure, bench, broker, {})),
            Contestant(feed_name(broker.name), partial(_with_feed, bench, broker)),
            Contestant(relay_name(broker.name), partial(_through_relay, bench, broker)),
        )
    ]


def _with_feed(bench: Bench, broker: Broker) -> Figures:
    return whole.measure(bench, broker, {}, _subscribed(bench))


def _subscribed(bench: Bench) -> dict[str, object]:
    file = bench.folder / "subscriptions.toml"
    file.write_text(FEED, encoding="utf-8")
    return {"SUBSCRIPTIONS_FILE": file}


def _through_relay(bench: Bench, broker: Broker) -> Figures:
    with bench.ours(broker, WAITING, _subscribed(bench)) as system:
        insert(system, ATTEMPTS, EVENTS)
        system.start("relay")
        meter = system.meter()
        first, before = _passed(system, WARM), meter.read()
        last, usage = _passed(system, WAITING), meter.read().since(before)
    return {**usage.figures("event", last - first), "events_per_s": (last - first) / usage.wall_s}


def _passed(system: Ours, position: int) -> int:
    """Wait until the feed has got so many events. Return how many it has got then."""
    system.wait_until(lambda: system.number(_CURSOR) >= position, f"{position} events", LOOK_S)
    return system.number(_CURSOR)
