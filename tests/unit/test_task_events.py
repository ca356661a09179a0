"""Whether a worker sends events of tasks."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from celery.worker.control import Panel
from kombu.asynchronous.timer import Entry

from worker.celery.strict_consumer import StrictConsumer
from worker.celery.task_events import ASKED_S, STARTED_S, TaskEvents


class Timer:
    """Celery's timer, with a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self._entries: list[tuple[float, Entry]] = []

    def call_after(self, seconds: float, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Entry:
        entry = Entry(call, arguments)
        self._entries.append((self.now + seconds, entry))
        return entry

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = [entry for at, entry in self._entries if at <= self.now]
        self._entries = [(at, entry) for at, entry in self._entries if at > self.now]
        for entry in due:
            if not entry.canceled:
                entry()


class Worker:
    """A worker's consumer, as Celery's step for events prepares it for each connection."""

    def __init__(self, *groups: str) -> None:
        self.timer = Timer()
        self.event_dispatcher: Any = None
        self._step = TaskEvents(self)
        self.connect(groups)

    def connect(self, groups: Any) -> None:
        self.event_dispatcher = SimpleNamespace(groups=set(groups))
        self._step.start(self)

    def ask(self, command: str = "enable_events") -> None:
        assert "ok" in Panel.data[command](SimpleNamespace(consumer=self))

    @property
    def groups(self) -> Any:
        return self.event_dispatcher.groups


def test_a_worker_sends_events_until_nobody_has_asked_for_a_while() -> None:
    worker = Worker("worker")
    worker.timer.pass_time(STARTED_S - 1)
    assert worker.groups == {"worker", "task"}
    worker.timer.pass_time(1)
    assert worker.groups == {"worker"}


def test_whoever_asks_is_told_for_a_while_each_time() -> None:
    worker = Worker("worker")
    for _ in range(3):
        worker.ask()
        worker.timer.pass_time(ASKED_S - 1)
    worker.ask()
    worker.timer.pass_time(ASKED_S - 1)
    assert worker.groups == {"worker", "task"}
    worker.timer.pass_time(1)
    assert worker.groups == {"worker"}
    worker.ask()
    assert worker.groups == {"worker", "task"}


def test_each_further_connection_begins_with_events() -> None:
    # Given a worker that has stopped to send events
    worker = Worker("worker")
    worker.timer.pass_time(STARTED_S)
    # When its connection is made anew, then a second time soon after
    worker.connect(worker.groups)
    worker.timer.pass_time(ASKED_S - 1)
    worker.connect(worker.groups)
    # Then the last one counts, and whoever has lost the connection, too, has time to come back
    worker.timer.pass_time(ASKED_S - 1)
    assert worker.groups == {"worker", "task"}
    worker.timer.pass_time(1)
    assert worker.groups == {"worker"}


def test_whoever_wants_no_events_gets_none_until_somebody_asks() -> None:
    worker = Worker("worker")
    worker.ask("disable_events")
    assert worker.groups == {"worker"}
    worker.ask()
    assert worker.groups == {"worker", "task"}


def test_a_worker_that_is_told_to_send_all_events_never_stops() -> None:
    worker = Worker()
    worker.ask()
    worker.timer.pass_time(2 * ASKED_S)
    assert worker.groups == set()  # Celery's word for all


def test_a_worker_without_heartbeat_and_gossip_has_no_events() -> None:
    consumer = SimpleNamespace(event_dispatcher=None)
    TaskEvents(consumer).start(consumer)
    assert "error" in Panel.data["enable_events"](SimpleNamespace(consumer=consumer))


def test_the_consumer_has_the_step() -> None:
    assert TaskEvents in StrictConsumer.Blueprint().claim_steps().values()
