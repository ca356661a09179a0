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
# Positions follow the clock, and all that wait are numbered in one transaction. Before that the log is at 0.
_PASSED = f"""
SELECT CASE WHEN position = 0 THEN 0 ELSE {WAITING} - position + (SELECT max(position) FROM subscribers) END
FROM event_log
"""  # noqa: S608 - no values
_FROM_THE_BEGINNING = "INSERT INTO subscribers (name, definition, position) VALUES ('feed.listener', '{}', 0)"
"""A feed that is new begins behind what is numbered already when it is stored, and so perhaps behind all events."""
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
        insert(system, ATTEMPTS, EVENTS, _FROM_THE_BEGINNING)
        system.start("relay")
        meter = system.meter()
        first, before = _passed(system, WARM), meter.read()
        last, usage = _passed(system, WAITING), meter.read().since(before)
    return {**usage.figures("event", last - first), "events_per_s": (last - first) / usage.wall_s}


def _passed(system: Ours, events: int) -> int:
    """Wait until the feed has got so many events. Return how many it has got then."""
    system.wait_until(lambda: system.number(_PASSED) >= events, f"{events} events", LOOK_S)
    return system.number(_PASSED)
