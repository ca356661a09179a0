"""A standby takes the shard while its owner is only stopped (SIGSTOP). That one wakes: nothing of it commits."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.acceptance.harness import Process, Stack
from tests.acceptance.oracle import Record, read_record
from tests.chaos.points import Crash
from tests.chaos.proxy import Proxy, proxying
from tests.engines import disposed

STATUSES = ("started", "submitted", "verified")


@dataclass
class Scene:
    """A stack whose first owner reaches the broker by way of a proxy."""

    stack: Stack
    proxy: Proxy

    def start_owner(self, point: str) -> Process:
        """An owner that will stop at the point."""
        return self.stack.start(
            "commands", crash=Crash(point, "stop"), BROKER_URL=self.proxy.url(self.stack.broker_url)
        )

    def take_over(self) -> Process:
        """A successor, once it has the shard. RabbitMQ would miss the old one's heartbeats after some seconds."""
        successor = self.stack.start("commands")
        self.stack.wait_until(lambda: self.stack.owner() is successor, "the standby to take over")
        if self.stack.broker_url.startswith("amqp"):
            self.proxy.cut()
        return successor

    def wake(self, stopped: Process) -> None:
        """Let the old owner go on, until it knows that its tenure is over."""
        stopped.resume()
        self.stack.wait_until(
            lambda: "starts over" in stopped.output(), "the old owner to see that its tenure is over"
        )

    def forget_duplicates(self) -> None:
        """Prune the whole inbox: from here on a command that is applied again leaves its traces."""
        self.stack.execute("DELETE FROM outcomes; DELETE FROM inbox")

    def record(self) -> Record:
        with disposed(self.stack.database_url) as engine, engine.connect() as connection:
            return read_record(connection)

    def exam_name(self) -> str:
        [[name]] = self.stack.rows("SELECT exam_name FROM exams")
        return str(name)


@pytest.fixture
def scene(stack: Stack) -> Iterator[Scene]:
    with proxying(stack.broker_url) as proxy:
        yield Scene(stack, proxy)


def publish_attempt(stack: Stack) -> None:
    """A batch that would undo what comes later, if it were applied after it."""
    stack.client.course("c")
    stack.client.exam("e", "c", exam_name="old name")
    stack.client.learner("u")
    stack.client.create("e", "u")
    stack.client.remove("e", "u")


def publish_what_follows(stack: Stack) -> None:
    stack.client.exam("e", "c", exam_name="new name")
    stack.client.create("e", "u")
    for status in STATUSES:
        stack.client.update("e", "u", status)


@pytest.mark.parametrize("point", ["before_fence", "before_commit"])
def test_stopped_with_a_batch_in_hand(scene: Scene, point: str) -> None:
    # Given an owner that stops with a batch, and a successor that applies it and what follows
    stack = scene.stack
    publish_attempt(stack)
    old = scene.start_owner(point)
    stack.wait_until_struck(old)
    scene.take_over()
    publish_what_follows(stack)
    stack.settle_commands()
    history = ["created", "created", *STATUSES]
    assert stack.history("e", "u") == history
    # When nobody remembers these commands any more, and the old owner wakes
    scene.forget_duplicates()
    before = scene.record()
    scene.wake(old)
    # Then nothing of it commits
    assert scene.record() == before
    assert (scene.exam_name(), stack.history("e", "u")) == ("new name", history)


def test_stopped_between_commit_and_acknowledgement(scene: Scene) -> None:
    # Given an owner that stops when it has committed, and a successor that gets the same again, and more
    stack = scene.stack
    publish_attempt(stack)
    old = scene.start_owner("before_acknowledge")
    stack.wait_until_struck(old)
    committed = stack.handled()
    successor = scene.take_over()
    publish_what_follows(stack)
    stack.settle_commands()
    assert 0 < committed < stack.handled()
    # When the old owner acknowledges late, while others wait
    successor.pause()
    stack.client.update("e", "u", "rejected")
    scene.wake(old)
    # Then these are not acknowledged with the old ones
    successor.resume()
    stack.settle_commands()
    assert stack.history("e", "u") == ["created", "created", *STATUSES, "rejected"]


def test_stopped_while_idle(scene: Scene) -> None:
    # Given an idle owner that stops, and a successor that works
    stack = scene.stack
    old = scene.start_owner("idle")
    stack.wait_until_struck(old)
    scene.take_over()
    publish_attempt(stack)
    stack.settle_commands()
    # When it wakes, then it sees the end of its tenure before it takes anything
    scene.wake(old)
    publish_what_follows(stack)
    stack.settle_commands()
    assert stack.history("e", "u") == ["created", "created", *STATUSES]
