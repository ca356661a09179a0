"""The LMS that publishes: a seeded stream of commands, duplicates and nonsense, through the real publisher."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from events.commands import Command
from events.envelope import MAX_BODY_BYTES, parse
from events.errors import PublishError
from events.publisher import Publisher
from events.sharding import shard_of, shards_of
from tests.acceptance.client import SOURCE, event
from tests.acceptance.load import COURSES, INTRODUCED_AGO, load

LEARNERS = 150
BROADCASTS = 0.01
DUPLICATES = 0.04
NONSENSE = 0.01
TIMEOUT_S = 3
AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class Item:
    """One message to publish. Without a command, it is one that belongs in quarantine."""

    body: bytes
    command: Command | None
    repeats: bool = False
    """A command that was published before."""
    shard: int = 0
    """Where it goes when it belongs in quarantine and to no learner."""
    learner: str | None = None
    """Whose shard it goes to when it belongs in quarantine."""


def stream(
    seed: int, commands: int, shards: int, now: datetime, *, pure: bool = False
) -> tuple[list[Item], list[Item]]:
    """What introduces courses, exams and learners, and the items that follow: so many commands, and more.

    Parameters:
        now: the time around which everything happened.
        pure: whether each message is a command that was not published before. Where a broker may lose some, nobody
            could say which copy came first.
    """
    chance = random.Random(f"stream {seed}")
    bodies = load(commands, learners=LEARNERS, seed=seed, now=now)
    first, rest = bodies[:-commands], bodies[-commands:]
    mixed = _mixed(chance, rest, shards, now)
    kept = [item for item in mixed if not pure or (item.command is not None and not item.repeats)]
    return [_known(body) for body in first], kept


def _mixed(chance: random.Random, bodies: Sequence[bytes], shards: int, now: datetime) -> Iterator[Item]:
    published: list[Item] = []
    for number, body in enumerate(bodies):
        broadcast = chance.random() < BROADCASTS
        published.append(_known(_broadcast(chance, number, now) if broadcast else body))
        yield published[-1]
        if chance.random() < DUPLICATES:
            again = chance.choice(published[-500:])
            yield Item(again.body, again.command, repeats=True)
        if chance.random() < NONSENSE:
            yield _nonsense(chance, number, published[-1], shards)


def _known(body: bytes) -> Item:
    return Item(body, parse(body))


def _broadcast(chance: random.Random, number: int, now: datetime) -> bytes:
    data = {"course_id": f"course-{chance.randrange(COURSES)}", "name": f"renamed {number}"}
    # They are younger than the introduction of the course, and some come after a younger one.
    return event("course.upsert.v1", data, f"broadcast-{number}", now - INTRODUCED_AGO * chance.random())


def _nonsense(chance: random.Random, number: int, before: Item, shards: int) -> Item:
    kind = chance.randrange(6)
    shard = chance.randrange(shards)
    update = {"exam_id": "0-0", "user_id": f"u{number}"}
    match kind:
        case 0:
            body = b"no json " + str(number).encode()
        case 1:
            body = json.dumps({"number": number}).encode()
        case 2:
            body = event("exam.attempt.forget.v1", update, f"nonsense-{number}")
        case 3:
            body = event("exam.attempt.update-status.v1", update, f"nonsense-{number}")
        case 4:
            body = str(number).encode().ljust(MAX_BODY_BYTES + 1)
        case _:
            # The id of the command before it, for the same learner, so that it is clear which one comes first.
            assert before.command is not None
            learner = before.command.data.learner_id or "u0"
            data = {"exam_id": "0-0", "user_id": learner, "to_status": f"s{number}"}
            body = event("exam.attempt.update-status.v1", data, before.command.id)
            return Item(body, None, learner=learner)
    return Item(body, None, shard=shard)


class Traffic:
    """Publishes items one after the other, each until the broker has taken it; remembers what it took.

    Parameters:
        shards: how many there are until the broker says so.
    """

    def __init__(self, broker_url: str, shards: int) -> None:
        self.commands: dict[tuple[str, str], bytes] = {}
        """By (source, id), in the order in which they were first taken."""
        self.taken_at: dict[tuple[str, str], float] = {}
        """When the broker had taken each, by the clock on the wall, in seconds."""
        self.nonsense: list[bytes] = []
        self.counts: Counter[str] = Counter()
        self.error: BaseException | None = None
        """What the publisher may not raise."""
        self._publisher = Publisher(broker_url, source=SOURCE, assumed_shards=shards, timeout_s=TIMEOUT_S)
        self._stop = threading.Event()
        self._finish = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, items: Sequence[Item], rate: float) -> None:
        """Publish in the background, so many items a second."""
        self._thread = threading.Thread(target=self._run, args=(items, rate), name="traffic")
        self._thread.start()

    @property
    def is_finished(self) -> bool:
        """Whether the broker has taken everything."""
        return self._thread is not None and not self._thread.is_alive()

    def finish(self) -> None:
        """Publish no more than what is under way."""
        self._finish.set()

    def close(self) -> None:
        """Stop."""
        self._finish.set()
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._publisher.close()

    def _run(self, items: Sequence[Item], rate: float) -> None:
        try:
            self._publish(items, rate)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is a finding
            self.error = error

    def _publish(self, items: Sequence[Item], rate: float) -> None:
        began = time.monotonic()
        for number, item in enumerate(items):
            due_in_s = began + number / rate - time.monotonic()
            self._finish.wait(max(0, due_in_s))
            if self._finish.is_set() or not self._deliver(item):
                return

    def _deliver(self, item: Item) -> bool:
        while not self._stop.is_set():
            try:
                self._send(item)
            except PublishError:
                self.counts["publish errors"] += 1
                self._stop.wait(AGAIN_S)
            else:
                self._remember(item)
                return True
        return False

    def _send(self, item: Item) -> None:
        if item.command is not None:
            self._publisher.publish(item.command)
        elif item.learner is None:
            self._publisher.publish_raw(item.body, item.shard)
        else:
            self._send_nonsense_of(item.learner, item.body)

    def _send_nonsense_of(self, learner: str, body: bytes) -> None:
        while True:
            shard = shard_of(learner, self._publisher.shards)
            # The publisher may hear in this call that there are fewer shards now.
            with suppress(ValueError):
                return self._publisher.publish_raw(body, shard)

    def _remember(self, item: Item) -> None:
        if item.command is None:
            self.nonsense.append(item.body)
            self.counts["malformed"] += 1
            return
        self.counts["messages"] += len(shards_of(item.command.data, self._publisher.shards))
        self.counts["duplicates" if item.repeats else "commands"] += 1
        key = (item.command.source, item.command.id)
        self.commands.setdefault(key, item.body)
        self.taken_at.setdefault(key, time.time())
