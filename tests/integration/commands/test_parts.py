"""The part of a shard's owner in a change of the number of shards, one step after the other, in one thread.

`test_resharding` has the same with everything at once, where chance decides what happens.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from sqlalchemy import Engine, text

from db import resharding, shards
from db.resharding import Resharding, Sharding, Step
from db.shards import Fence
from events.sharding import Announcement
from tests import sample_commands as c
from tests.integration.commands.test_consumer import FakeSource, consumer, handled, running, until
from worker.commands import consumer as consuming
from worker.commands import resharding as stepping
from worker.commands.handler import ShardLostError
from worker.commands.resharding import Part
from worker.commands.slices import barrier
from worker.commands.sources import Message

LEASE_S = 60.0


@dataclass
class System:
    """Owners of shards, each with a queue of its own."""

    engine: Engine
    rows: list[int] = field(default_factory=list)

    def begin(self, before: int, after: int, notice_s: float = 0) -> None:
        with self.engine.begin() as connection:
            shards.ensure_shards(connection, before)
            resharding.lock(connection)
            resharding.begin(connection, before, after, notice_s=notice_s, settle_s=0)

    def take(self, shard: int) -> Fence:
        with self.engine.begin() as connection:
            fence = shards.take(connection, shard, "me", LEASE_S)
        assert fence is not None
        return fence

    def part(self, shard: int) -> tuple[Part, FakeSource]:
        source = FakeSource()
        return Part(self.engine, self.take(shard), source, self.rows.append), source

    def end_tenures(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("UPDATE shards SET epoch = epoch + 1"))

    @property
    def sharding(self) -> Sharding:
        with self.engine.begin() as connection:
            return resharding.read(connection)

    @property
    def change(self) -> Resharding:
        change = self.sharding.resharding
        assert change is not None
        return change

    @property
    def barrier(self) -> bytes:
        return barrier(self.change.barrier)


@pytest.fixture
def system(engine: Engine) -> System:
    return System(engine)


def drained(system: System, part: Part) -> None:
    """Let the leader take the change to where its own shard has handled what it loses."""
    while system.change.step != Step.DRAINING:
        part.look()
    part.pass_barrier(system.barrier)


def test_more_shards_step_by_step(system: System) -> None:
    # Given owners of two shards, of which there are to be four
    system.begin(2, 4)
    first, queue = system.part(0)
    second, other_queue = system.part(1)
    assert system.rows == [4, 4]
    assert (system.change.step, other_queue.announced) == (Step.SWITCHING, [])
    # When publishers know the new number
    first.look()
    first.look()
    assert [one.shards for one in queue.announced] == [2, 4, 4]
    # Then each queue gets one barrier, however often its owner looks
    first.look()
    second.look()
    second.look()
    assert [message.body for message in queue.waiting] == [system.barrier]
    assert [message.body for message in other_queue.waiting] == [system.barrier]
    # and when both have passed it, the change is finished
    first.pass_barrier(system.barrier)
    assert system.change.drained == {0}
    second.pass_barrier(system.barrier)
    first.look()
    first.look()
    assert system.sharding == Sharding(4, last=system.sharding.last)
    assert queue.announced[-1] == Announcement(4, version=2)


def test_the_barrier_of_another_change_means_nothing(system: System) -> None:
    system.begin(2, 4)
    part, _ = system.part(0)
    part.pass_barrier(barrier("of another"))
    assert system.change.drained == set()
    # and neither does one that comes twice, or one without a change
    drained(system, part)
    secret = system.barrier
    part.pass_barrier(secret)
    assert system.change.drained == {0}
    drained(system, system.part(1)[0])
    part.look()
    part.look()
    part.pass_barrier(secret)
    assert system.sharding.resharding is None


def test_a_shard_that_is_new_passes_no_barrier(system: System) -> None:
    system.begin(2, 4)
    leader, _ = system.part(0)
    drained(system, leader)
    part, queue = system.part(2)
    part.look()
    part.pass_barrier(system.barrier)
    assert (queue.waiting, system.change.drained) == ([], {0})


def test_a_broker_that_forgot_the_notice_is_told_anew(system: System) -> None:
    # Given a change that is announced
    system.begin(2, 4, notice_s=600)
    part, queue = system.part(0)
    assert system.change.step == Step.NOTICE
    assert system.change.told_ago_s is not None
    with system.engine.begin() as connection:
        connection.execute(text("UPDATE reshardings SET told_at = told_at - interval '500 s'"))
    # When the broker is wiped, then the notice begins anew
    queue.announced.clear()
    part.look()
    assert queue.announced == [Announcement(2, next=4, version=1)]
    assert (system.change.told_ago_s or 0) < 500


def test_a_broker_that_lost_the_barrier_gets_it_again(system: System) -> None:
    system.begin(2, 4)
    part, queue = system.part(0)
    while not queue.waiting:
        part.look()
    queue.waiting.clear()
    part.look()
    assert queue.waiting == []
    part.found_empty()
    part.look()
    assert [message.body for message in queue.waiting] == [system.barrier]


def test_a_broker_that_does_not_take_the_number_holds_up_the_change(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSource, "announce", lambda *_: False)
    system.begin(2, 4)
    part, _ = system.part(0)
    part.look()
    assert system.change.step == Step.ANNOUNCING


def test_a_shard_that_is_no_longer_needed_goes_when_it_is_empty(system: System) -> None:
    system.begin(2, 1)
    leader, _ = system.part(0)
    part, _ = system.part(1)
    # When it is empty before it has passed its barrier, then it stays
    part.found_empty()
    assert not part.is_retired
    while system.change.step != Step.DRAINING:
        leader.look()
    part.look()
    part.pass_barrier(system.barrier)
    # and when it is empty afterwards, it goes
    part.found_empty()
    assert (part.is_retired, system.sharding.rows) == (True, 1)
    leader.found_empty()
    assert not leader.is_retired
    leader.look()
    leader.found_empty()
    assert system.sharding.resharding is None


def test_whoever_lost_the_shard_changes_nothing(system: System) -> None:
    system.begin(2, 1)
    leader, _ = system.part(0)
    part, _ = system.part(1)
    while system.change.step != Step.DRAINING:
        leader.look()
    part.look()
    # Given an owner whose tenure ends behind its back, before the barrier and after it
    system.end_tenures()
    with pytest.raises(ShardLostError):
        part.pass_barrier(system.barrier)
    assert system.change.drained == set()
    part, _ = system.part(1)
    part.pass_barrier(system.barrier)
    system.end_tenures()
    with pytest.raises(ShardLostError):
        part.found_empty()
    assert (part.is_retired, system.sharding.rows) == (False, 2)


def moving() -> Iterator[Message]:
    """Commands of learners who go from shard 0 of two to shard 2 of four."""
    return (Message(c.received(c.learner(user)).body, None) for user in c.who_goes(0, 2))


def test_what_comes_before_the_barrier_is_committed_and_what_comes_after_it_waits(system: System) -> None:
    system.begin(2, 4)
    part, queue = system.part(0)
    while not queue.waiting:
        part.look()
    commands = moving()
    early, late = next(commands), next(commands)
    queue.waiting = [early, *queue.waiting, late]
    # When a batch has a barrier in its middle
    one = consumer(system.engine, queue)
    done = one.handle(queue, part, list(queue.waiting))
    # Then it ends there, and the barrier is passed behind what was committed
    assert (done, queue.waiting, handled(system.engine)) == (2, [late], 1)
    assert system.change.drained == {0}
    assert part.accepted.drained == {0}


def test_a_new_shard_waits_for_the_old_one_and_serves_its_learners(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consuming, "STEP_EVERY_S", 0.01)
    monkeypatch.setattr(stepping, "STEP_EVERY_S", 0.01)
    system.begin(2, 4)
    leader, _ = system.part(0)
    # Given a command of a learner who is the old shard's until that has passed its barrier
    queue = FakeSource([next(moving())])
    one = replace(consumer(system.engine, queue), shard=2)
    with running(one):
        until(lambda: one.progressed.ago_s is not None)
        assert (handled(system.engine), len(queue.waiting)) == (0, 1)
        # When it has
        drained(system, leader)
        until(lambda: not queue.waiting)
    assert handled(system.engine) == 1


def test_the_consumer_of_a_shard_that_is_gone_stands_by(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stepping, "STEP_EVERY_S", 0.01)
    system.begin(2, 1)
    leader, _ = system.part(0)
    queue = FakeSource()
    with running(replace(consumer(system.engine, queue), shard=1)):
        while system.change.step != Step.DRAINING:
            leader.look()
        until(lambda: system.sharding.rows == 1)
        until(lambda: queue.closed == 1)
    assert queue.opened == 1
