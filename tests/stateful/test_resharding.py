"""The number of shards changes in every way that Hypothesis finds, on queues and a database in memory.

The consumers, their parts in the change and the slices are the real ones. Publishers ask now and then, hold a
message for a while before it arrives, or stand still for longer than the change allows. Consumers die at any time.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from db.quarantine import Unreadable
from db.resharding import Resharding, Sharding, losing
from db.shards import Fence
from events import shard_count
from events.envelope import render
from events.shard_count import ShardCount, Silence
from events.sharding import Announcement, shard_of
from tests import sample_commands as c
from worker.commands import resharding as parts
from worker.commands.consumer import Consumer
from worker.commands.decoding import Received
from worker.commands.handler import ShardLostError
from worker.commands.resharding import Part
from worker.commands.slices import barrier
from worker.commands.sources import Message

MOST = 8
LEARNERS = [str(number) for number in range(12)]
PUBLISHERS = 3
ASK_EVERY = 3
PUBLISH_WITHIN = 2
NOTICE = ASK_EVERY + 1
SETTLE = PUBLISH_WITHIN + 1
BATCH = 3


@dataclass
class Database:
    """What `db.resharding` does, in memory."""

    rows: set[int]
    now: int = 0
    epoch: int = 0
    last: int = 0
    change: dict[str, Any] | None = None
    passed: dict[int, int] = field(default_factory=dict)

    def read(self, _connection: object = None) -> Sharding:
        barriers = frozenset(map(_barrier_of, range(1, self.last + 1)))
        return Sharding(len(self.rows), self.last, self._resharding(), barriers)

    def _resharding(self) -> Resharding | None:
        if self.change is None:
            return None
        before, after = self.change["before"], self.change["after"]
        lost = set(losing(before, after))
        return Resharding(
            id=self.last,
            before=before,
            after=after,
            barrier=_barrier_of(self.last),
            notice_s=NOTICE,
            settle_s=SETTLE,
            begun_ago_s=self._ago("begun_at") or 0,
            told_ago_s=self._ago("told_at"),
            switched_ago_s=self._ago("switched_at"),
            drained={one for one, at in self.passed.items() if at == self.last} | (lost - self.rows),
            left_over={one for one in self.rows if one >= after},
        )

    def _ago(self, what: str) -> int | None:
        assert self.change is not None
        return None if self.change.get(what) is None else self.now - self.change[what]

    def begin(self, after: int) -> None:
        before = len(self.rows)
        self.last += 1
        self.change = {"before": before, "after": after, "begun_at": self.now}
        self.rows |= set(range(after))
        self.epoch += 1

    def note_told(self, _connection: object, _id: int) -> None:
        assert self.change is not None
        self.change.setdefault("told_at", self.now)

    def forget_told(self, _connection: object, _id: int) -> None:
        assert self.change is not None
        del self.change["told_at"]

    def note_switched(self, _connection: object, _id: int) -> None:
        assert self.change is not None
        self.change.setdefault("switched_at", self.now)

    def pass_barrier(self, _connection: object, fence: Fence, change_id: int) -> bool:
        if fence.epoch == self.epoch:
            self.passed[fence.shard] = change_id
        return fence.epoch == self.epoch

    def retire(self, _connection: object, fence: Fence) -> bool:
        if fence.epoch == self.epoch:
            self.rows.discard(fence.shard)
        return fence.epoch == self.epoch

    def finish(self, _connection: object, _id: int) -> None:
        self.change = None


def _barrier_of(change: int) -> str:
    return f"{change:032}"


@dataclass
class Queue:
    """One queue of the broker, and what publishers are told there."""

    broker: "Broker"
    shard: int

    @property
    def waiting(self) -> list[Message]:
        return self.broker.queues[self.shard]

    def announce(self, announcement: Announcement, _told: Announcement | None) -> bool:
        self.broker.told = announcement
        return True

    def told(self) -> Announcement | None:
        return self.broker.told

    def put_barrier(self, body: bytes) -> bool:
        self.waiting.append(Message(body, None))
        return True

    def put_back(self, messages: Sequence[Message]) -> None:
        pass

    def held(self) -> int:
        return 0

    def is_empty(self) -> bool:
        return not self.waiting

    def ack(self, batch: Sequence[Message]) -> None:
        self.broker.acks_until_death -= 1
        if self.broker.acks_until_death == 0:
            raise DiedError
        assert self.waiting[: len(batch)] == batch
        del self.waiting[: len(batch)]


class DiedError(Exception):
    """The consumer was killed."""


@dataclass
class Broker:
    told: Announcement | None
    """None once it was wiped."""
    acks_until_death: int = 0
    """At which acknowledgement from now on a consumer dies, before the broker hears of it. Not above 0: at none."""
    queues: Mapping[int, list[Message]] = field(default_factory=lambda: defaultdict(list))


@dataclass
class Publisher:
    """Publishes by the number that its real `ShardCount` knows."""

    broker: Broker
    count: ShardCount = field(default_factory=lambda: ShardCount(None, assumed=4))

    def number(self, now: int) -> int | None:
        """Return the number of shards. None when nothing may be sent now."""
        if self.count.is_stale() and not self.count.hear(self.broker.told or Silence.UNTOLD, now, None):
            return None
        return self.count.number


@dataclass
class UnderWay:
    """A message on its way to a queue. It arrives in time unless its publisher stands still."""

    message: Message
    shard: int
    at: int
    is_late: bool = False


class Batches:
    """Commits batches in memory."""

    def __init__(self, world: "World") -> None:
        self.world = world

    def commit(self, fence: Fence, items: Sequence[Received | Unreadable], _behind: int = 0) -> None:
        if fence.epoch != self.world.database.epoch:
            raise ShardLostError
        for item in items:
            if isinstance(item, Received):
                user_id, handled = item.command.data.learner_id, item.command.id
                assert user_id is not None
                if handled not in self.world.handled[user_id]:
                    self.world.handled[user_id].append(handled)
            else:
                self.world.quarantined.append(item.command_id or "")


class World(RuleBasedStateMachine):
    """A system with four shards, whose number is changed."""

    def __init__(self) -> None:
        super().__init__()
        self.database = Database(set(range(4)))
        self.broker = Broker(Announcement(4))
        self.publishers = [Publisher(self.broker) for _ in range(PUBLISHERS)]
        self.under_way: dict[str, UnderWay] = {}
        self.published: dict[str, list[str]] = defaultdict(list)
        self.handled: dict[str, list[str]] = defaultdict(list)
        self.quarantined: list[str] = []
        self.late: set[str] = set()
        self.parts: dict[int, Part] = {}
        self.patched = ExitStack()
        self.patched.enter_context(patch.object(parts, "resharding", self.database))
        self.patched.enter_context(patch.object(shard_count, "ASK_EVERY_S", ASK_EVERY))
        clock = SimpleNamespace(monotonic=lambda: self.database.now)
        self.patched.enter_context(patch.object(shard_count, "time", clock))

    def teardown(self) -> None:
        try:
            self.come_to_rest()
        finally:
            self.patched.close()

    # --- publishers ------------------------------------------------------------------------------------------

    @rule(user_id=st.sampled_from(LEARNERS), publisher=st.integers(0, PUBLISHERS - 1))
    def publish(self, user_id: str, publisher: int) -> None:
        """Begin a command. A learner's next command begins when this one has arrived, by any publisher."""
        if user_id in self.under_way:
            self.arrive(user_id)
        number = self.publishers[publisher].number(self.database.now)
        if number is None:
            return
        command_id = f"{user_id}-{len(self.published[user_id])}"
        body = render(c.command(c.learner(user_id), command_id))
        self.published[user_id].append(command_id)
        self.under_way[user_id] = UnderWay(Message(body, None), shard_of(user_id, number), self.database.now)

    @rule(user_id=st.sampled_from(LEARNERS))
    def arrive(self, user_id: str) -> None:
        if one := self.under_way.pop(user_id, None):
            self.broker.queues[one.shard].append(one.message)

    @rule(user_id=st.sampled_from(LEARNERS))
    def stand_still(self, user_id: str) -> None:
        """The publisher stands still in the middle of a publish."""
        if one := self.under_way.get(user_id):
            one.is_late = True
            self.late.add(self.published[user_id][-1])

    @rule()
    def time_passes(self) -> None:
        self.database.now += 1
        for user_id, one in list(self.under_way.items()):
            if not one.is_late and self.database.now - one.at >= PUBLISH_WITHIN:
                self.arrive(user_id)

    # --- consumers -------------------------------------------------------------------------------------------

    @rule(shard=st.integers(0, MOST - 1))
    def turn(self, shard: int) -> None:
        """A consumer takes a turn of its loop."""
        if shard not in self.database.rows:
            self.parts.pop(shard, None)
            return
        queue: Any = Queue(self.broker, shard)
        try:
            if shard not in self.parts:
                fence = Fence(shard, "me", self.database.epoch)
                engine: Any = type("Engine", (), {"begin": staticmethod(nullcontext)})
                self.parts[shard] = Part(engine, fence, queue, lambda _: None)
            part = self.parts[shard]
            part.look()
            taken = queue.waiting[:BATCH]
            if taken:
                self._consumer(shard).handle(queue, part, taken)
            else:
                part.found_empty()
        except (ShardLostError, DiedError):
            del self.parts[shard]

    def _consumer(self, shard: int) -> Consumer:
        nothing: Any = None
        batches: Any = Batches(self)
        return Consumer(shard, "me", nothing, batches, nothing, BATCH, 1.0)

    @rule(shard=st.integers(0, MOST - 1), acks=st.integers(0, 2))
    def die(self, shard: int, acks: int) -> None:
        """A consumer dies at one of its acknowledgements, or after its turn."""
        self.broker.acks_until_death = acks
        self.turn(shard)
        self.broker.acks_until_death = 0
        self.parts.pop(shard, None)

    @rule()
    def all_take_turns(self) -> None:
        for shard in range(MOST):
            self.turn(shard)

    # --- operators -------------------------------------------------------------------------------------------

    @precondition(lambda self: self.database.change is None)
    @rule(number=st.sampled_from([1, 2, 4, 8]))
    def set_shards(self, number: int) -> None:
        if number != len(self.database.rows):
            self.database.begin(number)

    @rule(shard=st.integers(0, MOST - 1))
    def lose_barriers(self, shard: int) -> None:
        """The broker loses the barriers of a queue, as one that is wiped does."""
        barriers = {barrier(secret) for secret in self.database.read().barriers}
        self.broker.queues[shard][:] = [one for one in self.broker.queues[shard] if one.body not in barriers]

    @precondition(lambda self: self.database.change is not None and "switched_at" not in self.database.change)
    @rule()
    def wipe_announcement(self) -> None:
        """The broker loses what it tells publishers, as one that is wiped does, before they go over."""
        self.broker.told = None

    # --- what holds ------------------------------------------------------------------------------------------

    @invariant()
    def each_learners_commands_are_handled_in_their_order(self) -> None:
        for user_id, handled in self.handled.items():
            published = iter(self.published[user_id])
            assert all(one in published for one in handled), (handled, self.published[user_id])

    @invariant()
    def only_what_came_late_is_refused(self) -> None:
        assert set(self.quarantined) <= self.late

    def come_to_rest(self) -> None:
        """Let everything arrive and be handled."""
        for user_id in LEARNERS:
            self.arrive(user_id)
        for _ in range(200):
            self.time_passes()
            self.all_take_turns()
            self.each_learners_commands_are_handled_in_their_order()
            self.only_what_came_late_is_refused()
        assert self.database.change is None
        assert self.broker.told is not None
        assert self.database.rows == set(range(self.broker.told.shards))
        handled = {one for each in self.handled.values() for one in each}
        # What came late to a queue that nobody reads any more waits there, and `status` names the queue.
        left = {
            one
            for one in self.late
            if any(one.encode() in m.body for q in self.broker.queues.values() for m in q)
        }
        published = {one for each in self.published.values() for one in each}
        assert handled | set(self.quarantined) | left == published


def test_order_is_kept_and_nothing_is_lost() -> None:
    run_state_machine_as_test(World, settings=settings(stateful_step_count=60, max_examples=30))


# --- what goes wrong -----------------------------------------------------------------------------------------


@pytest.fixture
def world() -> Iterator[World]:
    """A world whose shards are about to become eight, and which does nothing by itself."""
    world = World()
    world.database.begin(8)
    yield world
    world.patched.close()


def part(world: World, shard: int) -> Part:
    queue: Any = Queue(world.broker, shard)
    engine: Any = type("Engine", (), {"begin": staticmethod(nullcontext)})
    return Part(engine, Fence(shard, "me", world.database.epoch), queue, lambda _: None)


def test_publishers_that_cannot_be_told_hold_up_the_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "announce", lambda *_: False)
    part(world, 0).look()
    change = world.database.read().resharding
    assert change is not None
    assert change.told_ago_s is None


def test_the_notice_begins_anew_when_the_broker_was_wiped(world: World) -> None:
    # Given a notice that has lasted for long enough
    part(world, 0)
    world.database.now += NOTICE
    # When the broker is wiped, and the number would change now
    world.broker.told = None
    part(world, 0)
    # Then publishers are told first that it will change, because some may have heard nothing of it
    assert world.broker.told == Announcement(4, next=8, version=1)
    world.database.now += NOTICE
    part(world, 0)
    assert world.broker.told == Announcement(8, version=2)


def test_a_tenure_that_is_over_passes_no_barrier(world: World) -> None:
    one = part(world, 0)
    world.database.epoch += 1
    with pytest.raises(ShardLostError):
        one.pass_barrier(barrier_of(world))
    assert world.database.passed == {}


def test_the_barrier_of_another_change_means_nothing(world: World) -> None:
    part(world, 0).pass_barrier(barrier_of(world) + b" ")
    assert world.database.passed == {}


def test_a_tenure_that_is_over_takes_no_shard_away(world: World) -> None:
    world.database.change = {"before": 8, "after": 4, "begun_at": 0}
    world.database.passed[7] = world.database.last
    one = part(world, 7)
    world.database.epoch += 1
    with pytest.raises(ShardLostError):
        one.found_empty()
    assert 7 in world.database.rows


@pytest.mark.parametrize("acks", [1, 2])
def test_what_was_committed_is_not_refused_when_it_comes_again(world: World, acks: int) -> None:
    # Given a command of a learner who changes the shard, and a barrier behind it
    user_id = next(one for one in LEARNERS if (shard_of(one, 4), shard_of(one, 8)) == (0, 4))
    world.publish(user_id, 0)
    world.arrive(user_id)
    for _ in range(NOTICE + SETTLE + 2):
        world.database.now += 1
        part(world, 0)
    # When the consumer dies at an acknowledgement of theirs, and another one goes on
    world.die(0, acks)
    world.turn(0)
    world.turn(0)
    # Then the command is handled, and the barrier is passed
    assert world.handled[user_id] == world.published[user_id]
    assert (world.quarantined, world.database.passed) == ([], {0: 1})


def test_what_only_looks_like_a_barrier_goes_to_quarantine(world: World) -> None:
    world.broker.queues[0].append(Message(barrier("of nobody"), None))
    world.turn(0)
    assert world.broker.queues[0] == []
    assert len(world.quarantined) == 1


def test_who_looks_again_when_it_is_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one = part(world, 1)
    monkeypatch.setattr("worker.commands.resharding.time.monotonic", lambda: math.inf)
    world.database.change = None
    # While the number changes it looks again, and then never, because a change would end its tenure
    one.look_when_due()
    assert one.accepted.shards == len(world.database.rows)
    world.database.rows = set(range(4))
    monkeypatch.setattr("worker.commands.resharding.time.monotonic", lambda: 1e12)
    one.look_when_due()
    assert one.accepted.shards == 8


def barrier_of(world: World) -> bytes:
    change = world.database.read().resharding
    assert change is not None
    return barrier(change.barrier)
