"""The effects' queues on RabbitMQ: of the type of the setting, or refused in one line."""

from collections.abc import Iterator

import pytest
from celery import Celery
from kombu import Connection

from tests.integration.effects.conftest import until
from tests.waysin import OFFER, QUEUE, celery_on
from worker.celery.dispatcher import CeleryDispatcher
from worker.celery.queues import check_types
from worker.celery.strict_consumer import StrictConsumer
from worker.errors import ConfigurationError
from worker.kinds import QUEUES


@pytest.fixture
def quorum(rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """An application with quorum queues, which are deleted afterwards."""
    monkeypatch.setenv("INVIGILATOR_EFFECT_QUEUES", "quorum")
    with celery_on(rabbitmq_url, monkeypatch) as app:
        yield app
    with Connection(rabbitmq_url) as connection:
        for queue in set(QUEUES.values()):
            connection.default_channel.queue_delete(queue)


def test_one_of_another_type_is_named_and_refused(
    quorum: Celery, rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given quorum queues, which take offers
    check_types(quorum)
    dispatcher = CeleryDispatcher(quorum)
    dispatcher.dispatch([OFFER])
    until(lambda: dispatcher.queue_length(QUEUE) == 1)  # a quorum queue counts a little later
    # When somebody comes with the other setting
    monkeypatch.setenv("INVIGILATOR_EFFECT_QUEUES", "classic")
    with celery_on(rabbitmq_url, monkeypatch) as other:
        # Then both the worker and the relay say what to do
        said = r"^queue invigilator\.effects\.\w+ exists as another type"
        for ask in (lambda: check_types(other), lambda: CeleryDispatcher(other).queue_length(QUEUE)):
            with pytest.raises(ConfigurationError, match=said):
                ask()


def test_a_broker_that_is_away_is_no_wrong_type(monkeypatch: pytest.MonkeyPatch) -> None:
    with celery_on("amqp://127.0.0.1:1", monkeypatch) as app:
        check_types(app)


def test_a_worker_makes_no_queues_for_tasks_with_a_delay() -> None:
    assert not any("delayed" in step for step in StrictConsumer.Blueprint.default_steps)
