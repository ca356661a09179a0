"""Somebody who listens to a feed while the broker is killed, paused and wiped, and keeps everything that came."""

import json
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from amqp.exceptions import AMQPError
from kombu.exceptions import OperationalError
from redis import RedisError

from events.broker_url import Kind, read_broker_url
from events.connecting import Connection
from tests.fakes.receiver import SECRET
from worker.commands.sources.redis import make_client
from worker.feeds.brokers import open_target
from worker.subscriptions import load_subscriptions

SUBSCRIBER = "feed.lms"
FEED = "invigilator.events"
LOOK_S = 0.2
ANSWER_S = 5
MANY = 500

BEHIND = (
    "SELECT count(*) FROM events WHERE position IS NULL OR position > (SELECT min(position) FROM subscribers)"
)
"""How many events a subscriber has not passed."""


def write_subscriptions(folder: Path, webhook_url: str | None = None) -> Path:
    """Write the file that says who subscribes: the feed, and a webhook if it has a URL."""
    file = folder / "subscriptions.toml"
    feed = f'[{SUBSCRIBER}]\nname = "{FEED}"\n'
    webhook = f'[webhook.lms]\nurl = "{webhook_url}"\nsecrets = ["{SECRET}"]\norder = "learner"\n'
    file.write_text(feed + (webhook if webhook_url else ""), encoding="utf-8")
    return file


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event as it came.

    Parameters:
        again: whether the broker says that it may have come before, because the connection broke.
    """

    event: Mapping[str, Any]
    id: str
    position: int
    again: bool

    @classmethod
    def read(cls, body: bytes, again: bool = False) -> Self:
        event = json.loads(body)
        return cls(event, event["id"], int(event["sequence"]), again)


class Listener:
    """Listens to one feed. On RabbitMQ it has a quorum queue, and acknowledges what it has kept.

    Parameters:
        file: of subscriptions, as `write_subscriptions` has written it.
    """

    def __init__(self, broker_url: str, file: Path) -> None:
        self.arrivals: list[Arrival] = []
        """In the order in which they came."""
        self.wiped: list[range] = []
        """Positions that may have been wiped before anybody has read them, and so came late."""
        self._url = broker_url
        self._broker = read_broker_url(broker_url)
        [self._feed] = load_subscriptions(file).feed.values()
        self._entry = "0"
        self._lost_after: int | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_redis(self) -> bool:
        return self._broker.kind is not Kind.AMQP

    # --- listening -------------------------------------------------------------------------------------

    def bind(self) -> None:
        """On RabbitMQ: make a queue that gets everything."""
        if not self.is_redis:
            with open_target(self._url, self._feed), self._rabbitmq() as channel:
                arguments = {"x-queue-type": "quorum"}
                channel.queue_declare(FEED, durable=True, auto_delete=False, arguments=arguments)
                channel.queue_bind(FEED, FEED, "#")

    def unbind(self) -> None:
        """On RabbitMQ: delete the queue and the exchange."""
        if not self.is_redis:
            with self._rabbitmq() as channel:
                channel.queue_delete(FEED)
                channel.exchange_delete(FEED)

    def start(self) -> None:
        """Listen in the background, also while the broker is away for a time."""
        self._thread = threading.Thread(target=self._run, name="listener")
        self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def take(self) -> None:
        """Keep what has come since the last time."""
        with self._lock:
            if self.is_redis:
                self._from_redis()
            else:
                self._from_rabbitmq()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            with suppress(RedisError, OperationalError, AMQPError, OSError):
                self.take()

    def _from_redis(self) -> None:
        with make_client(self._broker, ANSWER_S) as client:
            while found := cast("Any", client.xread({FEED: self._entry}, count=MANY)):
                [[_, entries]] = found
                self.arrivals += [Arrival.read(values[b"event"]) for _, values in entries]
                self._entry = entries[-1][0]

    def _from_rabbitmq(self) -> None:
        with self._rabbitmq() as channel:
            while message := channel.basic_get(FEED):
                self.arrivals.append(Arrival.read(message.body, message.delivery_info["redelivered"]))
                channel.basic_ack(message.delivery_tag)

    @contextmanager
    def _rabbitmq(self) -> Iterator[Any]:
        limits = {"read_timeout": ANSWER_S, "write_timeout": ANSWER_S}
        with Connection.to(self._broker, timeout_s=ANSWER_S, transport_options=limits) as connection:
            connection.connect()
            yield connection.default_channel

    # --- what the broker loses -------------------------------------------------------------------------

    @property
    def misses(self) -> bool:
        """Whether a wipe may have taken events that nobody has read, and that were not told again."""
        return self._lost_after is not None

    @contextmanager
    def wiping(self) -> Iterator[None]:
        """The broker is wiped meanwhile, and nobody reads."""
        with self._lock:
            if self._lost_after is None:
                self._lost_after = max((one.position for one in self.arrivals), default=0)
            yield
            if not self.is_redis:
                with self._rabbitmq() as channel:
                    channel.queue_purge(FEED)

    def first_missing(self, log: Collection[tuple[int, str]]) -> int | None:
        """Return the position of the first event of the log that has not come.

        Parameters:
            log: position and id of every event that has a position, in order.
        """
        with self._lock:
            known = {one.id for one in self.arrivals}
        return next((position for position, event_id in log if event_id not in known), None)

    def told_again(self, up_to: int) -> None:
        """Note that what was wiped will come again: the events up to this position."""
        assert self._lost_after is not None
        self.wiped.append(range(self._lost_after + 1, up_to + 1))
        self._lost_after = None
