"""The thread of Flower that receives events."""

import logging
import time
from typing import Any

import pytest
from celery import Celery
from celery.events import EventReceiver

from worker.celery.flower import PatientEvents


class _StopError(BaseException):
    """Ends the thread's loop."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(), "the broker is away: ConnectionRefusedError; trying again in 2 s"),
        (KeyError("ada@example.org"), "events cannot be received: KeyError; trying again in 2 s"),
    ],
)
def test_only_an_error_of_the_broker_says_that_it_is_away(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def capture(*_: Any, **__: Any) -> None:
        raise error

    def stop(_: float) -> None:
        raise _StopError

    monkeypatch.setattr(EventReceiver, "capture", capture)
    monkeypatch.setattr(time, "sleep", stop)
    with (
        Celery("test", broker="memory://", set_as_current=False) as app,
        caplog.at_level(logging.WARNING),
        pytest.raises(_StopError),
    ):
        PatientEvents(app, None, max_tasks_in_memory=1).run()
    assert caplog.messages == [said]
