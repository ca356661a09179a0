"""Ownership of shards."""

from sqlalchemy import Connection, Engine, text

from db import shards


def expire(connection: Connection) -> None:
    connection.execute(text("UPDATE shards SET lease_until = now() - interval '1s'"))


def test_the_number_of_shards_is_stored_once(connection: Connection) -> None:
    assert shards.ensure_shards(connection, 4) == 4
    assert shards.ensure_shards(connection, 2) == 4
    assert connection.scalar(text("SELECT count(*) FROM shards")) == 4


def test_a_shard_has_one_owner(connection: Connection) -> None:
    shards.ensure_shards(connection, 2)
    mine = shards.take(connection, 0, "me", 60)
    assert mine == shards.Fence(0, "me", 1)
    assert shards.take(connection, 0, "other", 60) is None
    assert shards.take(connection, 1, "other", 60) == shards.Fence(1, "other", 1)
    assert shards.take(connection, 9, "other", 60) is None


def test_an_owner_that_begins_anew_does_not_wait_for_its_own_lease(connection: Connection) -> None:
    shards.ensure_shards(connection, 1)
    old = shards.take(connection, 0, "me", 60)
    new = shards.take(connection, 0, "me", 60)
    assert old is not None
    assert new == shards.Fence(0, "me", 2)
    assert not shards.renew(connection, old, 60)


def test_every_tenure_has_an_epoch_of_its_own(connection: Connection) -> None:
    # Given a tenure whose lease has ended
    shards.ensure_shards(connection, 1)
    old = shards.take(connection, 0, "me", 60)
    assert old is not None
    expire(connection)
    # When nobody has taken the shard, then the owner may go on
    assert shards.renew(connection, old, 60)
    # When somebody has, then it may not
    expire(connection)
    new = shards.take(connection, 0, "me", 60)
    assert new == shards.Fence(0, "me", 2)
    assert not shards.renew(connection, old, 60)
    shards.release(connection, old)
    assert shards.renew(connection, new, 60)


def test_a_released_shard_is_free(connection: Connection) -> None:
    shards.ensure_shards(connection, 1)
    fence = shards.take(connection, 0, "me", 60)
    assert fence is not None
    shards.release(connection, fence)
    assert not shards.renew(connection, fence, 60)
    assert shards.take(connection, 0, "other", 60) == shards.Fence(0, "other", 2)


def test_an_owner_in_the_middle_of_a_batch_is_not_overtaken(engine: Engine) -> None:
    # Given an owner whose lease ends while its batch is not committed
    with engine.begin() as connection:
        shards.ensure_shards(connection, 1)
        fence = shards.take(connection, 0, "me", 60)
        assert fence is not None
    with engine.begin() as batch:
        assert shards.renew(batch, fence, -1)
        # When a standby looks, then it neither waits nor gets the shard
        with engine.begin() as connection:
            assert shards.take(connection, 0, "other", 60) is None
    # and when the batch is committed it does
    with engine.begin() as connection:
        assert shards.take(connection, 0, "other", 60) == shards.Fence(0, "other", 2)
