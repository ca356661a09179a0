"""What a broker does not take, and a tenure that ends while the number of shards changes."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from redis.exceptions import OutOfMemoryError, WatchError

from db import resharding
from db.shards import Fence
from events.sharding import Announcement
from worker.commands.handler import ShardLostError
from worker.commands.resharding import Part
from worker.commands.slices import barrier
from worker.commands.sources import rabbitmq_publishing
from worker.commands.sources.rabbitmq import RabbitSource
from worker.commands.sources.rabbitmq_publishing import Publishing
from worker.commands.sources.redis import RedisSource

QUEUE = "invigilator.commands.1"


def test_a_message_under_way_is_not_published_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Future[None]] = []

    def begin(_publish: object) -> Future[None]:
        begun.append(Future())
        return begun[-1]

    monkeypatch.setattr(rabbitmq_publishing, "begin", begin)
    monkeypatch.setattr(rabbitmq_publishing, "WAIT_S", 0)
    publishing = Publishing(MagicMock())
    for _ in range(2):
        with pytest.raises(TimeoutError):
            publishing.publish(QUEUE, b"barrier")
    begun[0].set_result(None)
    publishing.publish(QUEUE, b"barrier")
    assert len(begun) == 1
    # and when it is there, the same is another message
    with pytest.raises(TimeoutError):
        publishing.publish(QUEUE, b"barrier")
    assert len(begun) == 2


def test_a_barrier_that_rabbitmq_does_not_take_is_not_put() -> None:
    connection = SimpleNamespace(connection_errors=(), channel_errors=(), recoverable_connection_errors=())
    publishing: Any = MagicMock()
    publishing.publish.side_effect = TimeoutError
    assert not RabbitSource(connection, None, QUEUE, publishing).put_barrier(b"barrier")


def test_a_barrier_that_redis_does_not_take_is_not_put() -> None:
    client: Any = MagicMock()
    client.eval.side_effect = OutOfMemoryError
    assert not RedisSource(client, QUEUE).put_barrier(b"barrier")


def test_an_announcement_that_somebody_else_has_made_is_not_told() -> None:
    client: Any = MagicMock()
    pipeline = client.pipeline.return_value.__enter__.return_value
    client.pipeline.return_value.__exit__.return_value = False
    pipeline.get.return_value = None
    pipeline.execute.side_effect = WatchError
    assert not RedisSource(client, QUEUE).announce(Announcement(4), None)


@pytest.mark.parametrize(("shard", "step"), [(1, "pass_barrier"), (5, "retire")])
def test_a_tenure_that_is_over_takes_no_step(monkeypatch: pytest.MonkeyPatch, shard: int, step: str) -> None:
    change: Any = SimpleNamespace(
        id=1, before=8, after=4, barrier="x", is_settled=False, losing={1}, drained={5}, left_over={5}
    )
    sharding = SimpleNamespace(resharding=change, rows=8, barriers={"x"})
    monkeypatch.setattr(resharding, "read", lambda _connection: sharding)
    monkeypatch.setattr(resharding, step, lambda *_: False)
    part = Part(MagicMock(), Fence(shard, "me", 1), MagicMock(), lambda _rows: None)
    take_step = {
        "pass_barrier": lambda: part.pass_barrier(barrier(change.barrier)),
        "retire": part.found_empty,
    }[step]
    with pytest.raises(ShardLostError):
        take_step()
