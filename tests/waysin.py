"""Every way in to a broker: what publishes, counts and reads commands, and what offers effects."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest
from celery import Celery
from kombu import pools

from db.offers import Offer
from events.errors import PublishError
from events.publisher import Publisher
from events.sharding import queue_name
from worker import app as module
from worker.celery.dispatcher import CeleryDispatcher
from worker.commands.sources import BrokerAwayError, open_source
from worker.commands.sources.brokers import queued
from worker.errors import Transient
from worker.kinds import QUEUES, EffectKind

LIMIT = 10
OFFER = Offer(
    UUID(int=7),
    EffectKind.SET_CREDIT_STATUS,
    {"exam_id": "A", "user_id": "42", "course_id": "c", "content_id": "x", "status": "submitted"},
    0,
)
QUEUE = QUEUES[OFFER.kind]
PATIENCE_S = 60


@contextmanager
def celery_on(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """An application set up as ours is, on another broker."""
    pools.reset()  # kombu keeps connections for whoever asks for the same host, whatever they say about TLS
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", url)
    app = Celery("test", set_as_current=False, amqp=module.Amqp)
    app.config_from_object("celeryconfig")
    app.conf.update(module.broker_settings())
    app.conf.broker_transport_options |= {"max_retries": 0}
    try:
        yield app
    finally:
        app.close()
        pools.reset()


def every_way_in(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish, count, consume and dispatch over one URL."""
    with open_source(url, queue_name(0), LIMIT) as source:
        with Publisher(url, source="/tests") as publisher:
            publisher.publish_raw(b"hello", 0)
        batch = source.take(LIMIT, 10)
        assert [message.body for message in batch] == [b"hello"]
        source.ack(batch)
    assert queued(url, 1) == 0
    with celery_on(url, monkeypatch) as app:
        dispatcher = CeleryDispatcher(app)
        before = dispatcher.queue_length(QUEUE)
        dispatcher.dispatch([OFFER])
        # RabbitMQ may count before it has put the message into its queue.
        deadline = time.monotonic() + PATIENCE_S
        while dispatcher.queue_length(QUEUE) != before + 1:
            assert time.monotonic() < deadline
        with app.connection_for_write() as connection:
            connection.connect()
            connection.default_channel.queue_purge(QUEUE)


def every_refusal(url: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Try every way in to a broker that cannot be used, and return what each error says."""
    with Publisher(url, source="/tests") as publisher, pytest.raises(PublishError) as refused:
        publisher.publish_raw(b"hello", 0)
    said = [str(refused.value)]
    for attempt in (lambda: open_source(url, queue_name(0), LIMIT), lambda: queued(url, 1)):
        with pytest.raises(BrokerAwayError) as away:
            attempt()
        said.append(str(away.value))
    with celery_on(url, monkeypatch) as app, pytest.raises(Transient) as transient:
        CeleryDispatcher(app).dispatch([OFFER])
    return [*said, str(transient.value)]
