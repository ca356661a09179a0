"""Changes of the number of shards, as the database has them."""

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from db import resharding, shards
from db.resharding import Sharding, Step
from db.shards import Fence
from events.sharding import Announcement

LEASE_S = 60.0


def begin(
    connection: Connection, before: int, after: int, *, notice_s: float = 0, settle_s: float = 0
) -> Sharding:
    resharding.lock(connection)
    resharding.begin(connection, before, after, notice_s=notice_s, settle_s=settle_s)
    return resharding.read(connection)


def taken(connection: Connection, shard: int) -> Fence:
    fence = shards.take(connection, shard, "me", LEASE_S)
    assert fence is not None
    return fence


def step(connection: Connection) -> tuple[Step, Announcement]:
    now = resharding.read(connection)
    assert now.resharding is not None
    return now.resharding.step, now.announcement


def test_a_change_begins_by_ending_every_tenure(connection: Connection) -> None:
    shards.ensure_shards(connection, 2)
    before = taken(connection, 0)
    now = begin(connection, 2, 4)
    assert (now.rows, now.number) == (4, 2)
    assert not shards.renew(connection, before, LEASE_S)
    # and the owner takes its shard again, without waiting for its lease to end
    assert taken(connection, 0).epoch > before.epoch


def test_there_is_one_at_a_time(connection: Connection) -> None:
    shards.ensure_shards(connection, 2)
    begin(connection, 2, 4)
    with pytest.raises(IntegrityError, match="ix_reshardings_unfinished"):
        begin(connection, 4, 8)


def test_more_shards_step_by_step(connection: Connection) -> None:
    shards.ensure_shards(connection, 2)
    now = begin(connection, 2, 4)
    assert now.resharding is not None
    change = now.resharding.id
    assert step(connection) == (Step.ANNOUNCING, Announcement(2, next=4, version=2 * change - 1))
    resharding.note_told(connection, change)
    assert step(connection) == (Step.SWITCHING, Announcement(4, version=2 * change))
    resharding.note_switched(connection, change)
    assert step(connection)[0] == Step.DRAINING
    for shard in range(2):
        assert resharding.pass_barrier(connection, taken(connection, shard), change)
    resharding.finish(connection, change)
    now = resharding.read(connection)
    assert (now, now.announcement) == (Sharding(4, last=change), Announcement(4, version=2 * change))


def test_it_waits_for_publishers(connection: Connection) -> None:
    shards.ensure_shards(connection, 1)
    now = begin(connection, 1, 2, notice_s=600, settle_s=600)
    assert now.resharding is not None
    resharding.note_told(connection, now.resharding.id)
    assert step(connection)[0] == Step.NOTICE
    connection.execute(text("UPDATE reshardings SET told_at = told_at - interval '700 s'"))
    assert step(connection)[0] == Step.SWITCHING
    # and again when the broker has forgotten what it told them
    resharding.forget_told(connection, now.resharding.id)
    assert step(connection)[0] == Step.ANNOUNCING
    resharding.note_told(connection, now.resharding.id)
    connection.execute(text("UPDATE reshardings SET told_at = told_at - interval '700 s'"))
    resharding.note_switched(connection, now.resharding.id)
    assert step(connection)[0] == Step.SETTLING
    # but not once they were told the new number
    resharding.forget_told(connection, now.resharding.id)
    assert step(connection)[0] == Step.SETTLING


def test_a_shard_that_goes_leaves_its_counts(connection: Connection) -> None:
    shards.ensure_shards(connection, 2)
    connection.execute(text("UPDATE shards SET quarantine_discarded = shard + 1"))
    now = begin(connection, 2, 1)
    assert now.resharding is not None
    fence = taken(connection, 1)
    # Only its owner passes a barrier for it, and takes it away
    late = Fence(1, "me", fence.epoch - 1)
    assert not resharding.pass_barrier(connection, late, now.resharding.id)
    assert not resharding.retire(connection, late)
    assert (now.resharding.waits_for, now.resharding.left_over) == ([1], {1})
    assert resharding.pass_barrier(connection, fence, now.resharding.id)
    assert resharding.retire(connection, fence)
    now = resharding.read(connection)
    assert now.resharding is not None
    assert now.resharding.is_done
    assert connection.execute(text("SELECT shard, quarantine_discarded FROM shards")).all() == [(0, 3)]
