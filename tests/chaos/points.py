"""Crash points: named places in a process where a test lets it die, stop or fail.

There are no hooks in the product. `tests.forkserver` starts a process of the Procfile with the function behind a
point replaced, in that process only. To add a point, add a line to `POINTS`: where the function is *looked up*
(one that is imported by name is an attribute of the module that calls it), whether the process is struck before
the call or after it has returned, and what that means. Then

    process = stack.start("commands", crash=Crash("before_commit", "kill", nth=3))
    stack.wait_until_struck(process)

`nth` counts the passings of the point in that process, from 1.
"""

import json
import os
import signal
import threading
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, tzinfo
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, Literal, Self

from db import round_trips

Action = Literal["kill", "stop", "raise", "hold", "clock_back", "clock_forward"]
"""`hold` lets every thread wait at the point, from the nth passing on, until `Process.release`.

The last two step the process's wall clock by a day; its monotonic clock goes on, as when a person steps it.
"""

DAY = timedelta(days=1)
HOLD_POLL_S = 0.01


class StruckError(RuntimeError):
    """What the action `raise` raises."""


@dataclass(frozen=True, slots=True)
class Point:
    """A place in the code.

    Parameters:
        module: where the attribute is.
        attribute: of a function, with dots into classes.
        when: `before` the function is called, or `after` it has returned.
        meaning: what has happened by then, and what has not.
        writes: whether it is a method that writes to the connection that is its first argument. What waits for
            COMMIT is then run first.
    """

    module: str
    attribute: str
    when: Literal["before", "after"]
    meaning: str
    writes: bool = False


POINTS = {
    "before_fence": Point(
        "worker.commands.batches", "Batches.commit", "before", "a batch is taken, its transaction not begun"
    ),
    "before_commit": Point(
        "worker.commands.handler",
        "Handler.handle",
        "after",
        "everything of a batch is written, not committed",
        writes=True,
    ),
    "before_acknowledge": Point(
        "worker.commands.batches", "Batches.commit", "after", "a batch is committed, not acknowledged"
    ),
    "between_lists": Point(
        "worker.commands.sources.redis",
        "pop_committed",
        "after",
        "on Redis: one list of a committed batch is acknowledged, others are not",
    ),
    "before_basic_ack": Point(
        "amqp.channel", "Channel.basic_ack", "before", "on RabbitMQ: the acknowledgement is not sent yet"
    ),
    "idle": Point("worker.commands.batches", "Batches.renew", "before", "nothing waits; the lease is due"),
    "before_publishing": Point(
        "worker.celery.dispatcher",
        "CeleryDispatcher.dispatch",
        "before",
        "offers are stamped, nothing of them is published",
    ),
    "between_offers": Point(
        "worker.celery.dispatcher",
        "publish_task",
        "before",
        "some of a batch of offers are published; on Redis none, they are sent together",
    ),
    "after_publishing": Point(
        "worker.celery.dispatcher", "CeleryDispatcher.dispatch", "after", "a batch of offers is published"
    ),
    "before_claim_commit": Point("db.effects", "claim", "after", "an effect is claimed, not committed"),
    "before_call": Point(
        "worker.effects.runner", "Runner.claim", "after", "an effect is claimed, nothing of it is sent"
    ),
    "before_record": Point(
        "worker.effects.runner", "Runner.record", "before", "the call is answered, that is not recorded"
    ),
    "each_record": Point(
        "worker.effects.runner",
        "Runner.record_together",
        "before",
        "a transaction that records results is about to begin",
    ),
    "after_record": Point(
        "worker.effects.runner", "Runner.run_claimed", "after", "what came of it is recorded"
    ),
    "before_cascade": Point(
        "worker.effects.cascade", "decline", "before", "a cascade is claimed, its transaction not begun"
    ),
    "before_cascade_commit": Point(
        "worker.commands.handler",
        "Handler.settle_cascades",
        "after",
        "everything of a cascade is written, not committed",
        writes=True,
    ),
    "before_numbering_commit": Point(
        "db.subscribers", "store", "after", "the events until the start are numbered, not committed"
    ),
    "before_events": Point(
        "worker.feeds.publisher", "FeedPublisher.publish", "before", "events are read, none is published"
    ),
    "before_cursor": Point(
        "worker.feeds.publisher",
        "FeedPublisher.publish",
        "after",
        "events are published, the cursor stands before them",
    ),
    "before_fan_out_commit": Point(
        "worker.feeds.fanout",
        "Fanout.owe",
        "after",
        "deliveries are owed and the cursor is moved, not committed",
    ),
    "after_cursor": Point(
        "worker.feeds.publisher", "FeedPublisher.move", "after", "the cursor stands behind the events"
    ),
    "after_cascade": Point("worker.effects.cascade", "decline", "after", "a cascade is committed"),
}


@dataclass(frozen=True, slots=True)
class Crash:
    """What shall happen to a process: at which point, what, and at which passing."""

    point: str
    action: Action
    nth: int = 1

    def arguments(self, marker: Path) -> list[str]:
        """For `tests.forkserver`; the process makes the file `marker` when it is struck."""
        return [json.dumps(asdict(self)), str(marker)]

    @classmethod
    def read(cls, text: str) -> Self:
        """The inverse of `arguments`."""
        return cls(**json.loads(text))


def install(crash: Crash, marker: Path) -> None:
    """Replace the function behind the point, in this process."""
    point = POINTS[crash.point]
    *path, name = point.attribute.split(".")
    owner: Any = import_module(point.module)
    for part in path:
        owner = getattr(owner, part)
    original = (_written if point.writes else _as_it_is)(getattr(owner, name))
    passings = count(1)

    def replaced(*args: Any, **kwargs: Any) -> Any:
        if point.when == "before":
            pass_by()
        result = original(*args, **kwargs)
        if point.when == "after":
            pass_by()
        return result

    def pass_by() -> None:
        number = next(passings)
        if number == crash.nth:
            marker.touch()
            _strike(crash)
        if number >= crash.nth and crash.action == "hold":
            _hold(released_by(marker))

    setattr(owner, name, replaced)


def _as_it_is(function: Any) -> Any:
    return function


def _written(method: Any) -> Any:
    """The method, after which PostgreSQL has all that it writes."""

    def written(itself: Any, connection: Any, *rest: Any) -> Any:
        result = method(itself, connection, *rest)
        round_trips.flush(connection)
        return result

    return written


def released_by(marker: Path) -> Path:
    """The file whose coming ends the action `hold`."""
    return marker.with_suffix(".released")


def _hold(released: Path) -> None:
    while not released.exists():
        time.sleep(HOLD_POLL_S)


def _strike(crash: Crash) -> None:
    match crash.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            # To this very thread: another one might take a signal to the process, and this one would run on.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        case "raise":
            raise StruckError(f"crash point {crash.point}")
        case "clock_back":
            _step_clock(-DAY)
        case "clock_forward":
            _step_clock(DAY)


def _step_clock(by: timedelta) -> None:
    class Stepped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + by

    # The only place where `consume` asks for the time of day.
    vars(import_module("db.ids"))["datetime"] = Stepped
