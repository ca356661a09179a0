"""Fills the command queues with the messages that the publisher would send.

It is used where the publisher is not measured, because it is much faster.
"""

import base64
import json
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import amqp
from kombu import Connection
from redis import Redis

from benchmarks.engines import VALKEY, Broker
from benchmarks.publish import SOURCE, publish
from benchmarks.workload import Step
from events.commands import AttemptCreate, AttemptUpdateStatus, Command
from events.envelope import CONTENT_TYPE, render
from events.publisher import Publisher
from events.sharding import queue_name, shard_of

PIPELINE = 1_000
UNREAD = 1
"""The number of a Redis database in which no consumer reads. The sample message is published there."""


def preload(broker: Broker, todo: Iterable[Step], shards: int = 1) -> int:
    """Put the commands of these steps into their queues, which must exist. Return the number of commands."""
    return (_into_valkey if broker.name == VALKEY else _into_rabbitmq)(broker, todo, shards)


def _into_valkey(broker: Broker, todo: Iterable[Step], shards: int) -> int:
    number = 0
    envelope = _envelope(broker)
    with Redis.from_url(broker.url) as client:
        pipeline = client.pipeline(transaction=False)
        for number, step in enumerate(todo, 1):
            pipeline.lpush(_queue(step, shards), envelope(body_of(step)))
            if number % PIPELINE == 0:
                pipeline.execute()
        pipeline.execute()
    return number


def _envelope(broker: Broker) -> Callable[[bytes], bytes]:
    """Return a function that wraps a body in the same envelope as the publisher does."""
    elsewhere = f"{broker.url.rpartition('/')[0]}/{UNREAD}"
    with Publisher(elsewhere, source=SOURCE, shards=1) as publisher, Redis.from_url(elsewhere) as client:
        publish(publisher, Step(0, "template"))
        raw: Any = client.rpop(queue_name(0))
    sample = json.loads(raw)
    assert sample["properties"]["body_encoding"] == "base64"

    def wrapped(body: bytes) -> bytes:
        sample["body"] = base64.b64encode(body).decode()
        sample["properties"]["delivery_tag"] = str(uuid4())
        return json.dumps(sample).encode()

    return wrapped


def _into_rabbitmq(broker: Broker, todo: Iterable[Step], shards: int) -> int:
    todo = list(todo)
    with Connection(broker.url) as connection, closing(connection.channel()) as channel:
        for step in todo:
            message = amqp.Message(
                body_of(step), content_type=CONTENT_TYPE, content_encoding="utf-8", delivery_mode=2
            )
            channel.basic_publish(message, exchange="", routing_key=_queue(step, shards))
        # RabbitMQ answers this only after it has accepted all messages before.
        for shard in range(shards):
            channel.queue_declare(queue_name(shard), passive=True)
    return len(todo)


def _queue(step: Step, shards: int) -> str:
    return queue_name(shard_of(str(step.learner), shards))


def body_of(step: Step) -> bytes:
    """Return the message of a step, as a publisher would send it."""
    user_id = str(step.learner)
    data = (
        AttemptCreate(exam_id=step.exam, user_id=user_id, taking_as_proctored=True)
        if step.to_status is None
        else AttemptUpdateStatus(exam_id=step.exam, user_id=user_id, to_status=step.to_status)
    )
    return render(Command(source=SOURCE, id=str(uuid4()), data=data, time=datetime.now(UTC)))
