"""The facts of health: shared, and nobody is held up."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from invigilator.web import shared_facts
from invigilator.web.shared_facts import SharedFacts, SilentBrokerError
from worker.errors import ConfigurationError
from worker.health.facts import Facts

CALLERS = 5


@dataclass
class Reading:
    """Reads facts once it may."""

    may_answer: threading.Event = field(default_factory=threading.Event)
    times: int = 0

    def __call__(self) -> Facts:
        self.times += 1
        assert self.may_answer.wait(60)
        return Facts(quarantined=self.times)


@pytest.fixture
def reading() -> Iterator[Reading]:
    reading = Reading()
    yield reading
    reading.may_answer.set()


def test_each_who_asks_when_nobody_does_is_told_what_is_so_now(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_facts, "BROKER_S", 60.0)
    reading.may_answer.set()
    shared = SharedFacts(reading)
    assert [shared().quarantined, shared().quarantined] == [1, 2]


def test_a_silent_broker_is_said_and_asked_once(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_facts, "BROKER_S", 0.0)
    shared = SharedFacts(reading)
    for _ in range(CALLERS):
        with pytest.raises(SilentBrokerError, match="the broker does not answer"):
            shared()
    assert reading.times == 1


def test_what_is_wrong_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_facts, "BROKER_S", 60.0)

    def read() -> Facts:
        raise ConfigurationError("the broker is none of ours")

    with pytest.raises(ConfigurationError, match="none of ours"):
        SharedFacts(read)()
