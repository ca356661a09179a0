"""The thread of Flower that receives events."""

import time
from typing import Any

import pytest
from celery import Celery
from celery.app.control import Control
from celery.events import EventReceiver
from kombu.transport.memory import Transport
from kombu.utils import functional
from structlog.typing import EventDict

from worker.celery.flower import PatientEvents


class _StopError(BaseException):
    """Ends the thread's loop."""


def receive_until_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Receive events, until Flower or kombu waits before the next try."""

    def stop(_: float) -> None:
        raise _StopError

    monkeypatch.setattr(time, "sleep", stop)
    monkeypatch.setattr(functional, "sleep", stop)
    with Celery("test", broker="memory://", set_as_current=False) as app, pytest.raises(_StopError):
        PatientEvents(app, None, max_tasks_in_memory=1).run()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(), "the broker is away: ConnectionRefusedError"),
        (KeyError("ada@example.org"), "events cannot be received: KeyError"),
    ],
)
def test_only_an_error_of_the_broker_says_that_it_is_away(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    def capture(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(EventReceiver, "capture", capture)
    receive_until_a_pause(monkeypatch)
    [line] = logged
    assert (line["reason"], line["again_in_s"]) == (said, 2)


def test_a_broker_that_goes_between_two_connections_is_tried_again_after_the_same_pause(
    monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    # Given a broker that takes one connection, and is away from then on
    establish = Transport.establish_connection
    taken: list[Transport] = []

    def take_one(transport: Transport) -> Any:
        if taken:
            raise ConnectionRefusedError
        taken.append(transport)
        return establish(transport)

    def lose(*_: Any, **__: Any) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(Transport, "establish_connection", take_one)
    monkeypatch.setattr(Transport, "drain_events", lose)
    # When Flower receives events
    receive_until_a_pause(monkeypatch)
    # Then the pause is its own, not kombu's
    assert logged[-1]["reason"] == "the broker is away: ConnectionResetError"
    assert logged[-1]["again_in_s"] == 2


def test_those_who_are_there_are_asked_for_events_before_they_are_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened: list[str] = []

    def capture(*_: Any, **__: Any) -> None:
        happened.append("capture")
        raise _StopError

    monkeypatch.setattr(Control, "broadcast", lambda _, command, **__: happened.append(command))
    monkeypatch.setattr(EventReceiver, "capture", capture)
    receive_until_a_pause(monkeypatch)
    assert happened == ["enable_events", "capture"]
