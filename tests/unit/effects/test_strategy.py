"""How a Celery worker hands a message to its threads."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.worker import state

from tests.unit.test_strict_consumer import BODY, EFFECT, HEADERS, TASK_ID, message
from worker.celery.results import EffectTask
from worker.celery.strict_consumer import reduce_message


def run(effect_id: str) -> str:
    return effect_id


class Worker:
    """What Celery's consumer has for a strategy."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.requests: list[Any] = []
        self.seen: list[Any] = []
        self.applied: list[Any] = []
        self.hostname, self.connection_errors = "effects@host", ()
        self.controller = SimpleNamespace(state=state)
        self.event_dispatcher = SimpleNamespace(enabled=True, send=self._send)
        self.pool = SimpleNamespace(apply_async=lambda _, args, **__: self.applied.append(args))
        self.on_task_request = self.requests.append

    def _send(self, kind: str, **fields: Any) -> None:
        self.events.append((kind, fields))

    def receive(self) -> None:
        """Receive one message of ours."""
        with Celery("test", set_as_current=False, task_cls=EffectTask, broker="memory://") as app:
            task = app.task(run, name=HEADERS["task"], shared=False)  # else every app gets it
            hand_over = task.start_strategy(app, self)
            one = message(HEADERS, BODY_TEXT)
            one.delivery_info = {"routing_key": "invigilator.effects.cascade"}
            reduce_message(one)
            hand_over(one, None, lambda *_: None, lambda *_: None, [self.seen.append])


BODY_TEXT = json.dumps(BODY)


@pytest.fixture(autouse=True)
def _no_requests() -> Any:
    yield
    state.reset_state()


def test_a_message_is_told_of_and_handed_to_a_thread_as_it_was_read() -> None:
    worker = Worker()
    worker.receive()
    [(kind, fields)] = worker.events
    assert (kind, fields["uuid"], fields["args"]) == ("task-received", TASK_ID, HEADERS["argsrepr"])
    [request] = worker.requests
    assert worker.seen == [request]
    assert request in state.reserved_requests
    request.execute_using_pool(worker.pool)
    [(name, task_id, _, body, content_type, _)] = worker.applied
    assert (name, task_id, body, content_type) == (HEADERS["task"], TASK_ID, ([EFFECT], {}, {}), None)


def test_a_task_that_was_revoked_does_not_run() -> None:
    worker = Worker()
    state.revoked.add(TASK_ID)
    worker.receive()
    assert worker.requests == []
