"""The supervision of a part: the pauses before restarts, and when it is given up. The test moves the clock."""

import signal
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from invigilator.local import supervision
from invigilator.local.supervision import (
    GOOD_RUN_S,
    KEEPS_ENDING,
    PAUSES_S,
    Part,
    PartEndedError,
    how_it_ended,
)

STEP_S = 0.25


@dataclass
class Running:
    process: Any
    finished: bool = False

    def finish(self) -> None:
        self.finished = True


@dataclass
class World:
    """Starts processes that end when the test says so, and records the times of the starts."""

    now: float = 1000.0
    starts: list[float] = field(default_factory=list)
    running: list[Running] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    full: bool = False

    def start(self) -> Running:
        self.starts.append(self.now)
        if self.full:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        process = SimpleNamespace(status=None)
        process.poll = lambda: process.status
        self.running.append(Running(process))
        return self.running[-1]

    def end(self, status: int) -> None:
        self.running[-1].process.status = status

    def look_for(self, part: "Part[Running]", seconds: float) -> None:
        """Call `check` again and again, as `up` does."""
        until = self.now + seconds
        while self.now < until:
            part.check()
            self.now += STEP_S

    def pause_after_end(self, part: "Part[Running]", status: int = 1) -> float:
        """End the part and check it until it is started again. Return the seconds that this took."""
        ended, starts = self.now, len(self.starts)
        self.end(status)
        while len(self.starts) == starts:
            part.check()
            self.now += STEP_S
        return self.starts[-1] - ended


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(supervision, "time", SimpleNamespace(monotonic=lambda: world.now))
    return world


def test_it_is_started_once_and_left_alone_while_it_runs(world: World) -> None:
    part = Part("mail", world.start, world.told.append)
    assert world.starts == []
    world.look_for(part, 3600)
    assert (len(world.starts), world.told) == (1, [])


def test_whoever_runs_already_is_not_started(world: World) -> None:
    running = world.start()
    part = Part("guard", world.start, world.told.append, running=running)
    world.look_for(part, 3600)
    assert len(world.starts) == 1
    assert part.running is running


@pytest.mark.parametrize("status", [0, 1, -signal.SIGKILL])
def test_one_that_keeps_ending_is_given_up(status: int, world: World) -> None:
    # Given a part that ends as soon as it has been started
    part = Part("mail", world.start, world.told.append)
    part.check()
    # When it is started again and again, the pauses grow
    pauses = [world.pause_after_end(part, status) for _ in range(KEEPS_ENDING - 1)]
    assert pauses == list(PAUSES_S[: KEEPS_ENDING - 1])
    assert [line.partition(": ")[2] for line in world.told] == [
        f"it is started again in {p:g} s" for p in pauses
    ]
    # Then in the end it is given up, by name, and nothing is left of it
    world.end(status)
    with pytest.raises(PartEndedError) as caught:
        part.check()
    assert str(caught.value) == (
        f"mail ended by itself ({how_it_ended(status)}) {KEEPS_ENDING} times in a row: the system was stopped"
    )
    assert part.running is None
    assert all(one.finished for one in world.running)


def test_what_the_rest_can_do_without_is_never_given_up(world: World) -> None:
    part = Part("flower", world.start, world.told.append, indispensable=False)
    part.check()
    pauses = [world.pause_after_end(part) for _ in range(3000)]
    assert pauses[: len(PAUSES_S)] == list(PAUSES_S)
    assert set(pauses[len(PAUSES_S) :]) == {PAUSES_S[-1]}


def test_after_a_good_run_the_pauses_begin_anew(world: World) -> None:
    part = Part("mail", world.start, world.told.append)
    part.check()
    for _ in range(3):
        pauses = [world.pause_after_end(part) for _ in range(KEEPS_ENDING - 1)]
        assert pauses == list(PAUSES_S[: KEEPS_ENDING - 1])
        world.look_for(part, GOOD_RUN_S)


def test_runs_that_are_not_long_enough_do_not_count_as_good(world: World) -> None:
    part = Part("mail", world.start, world.told.append)
    part.check()
    for _ in range(KEEPS_ENDING - 1):
        world.look_for(part, GOOD_RUN_S - 2)
        world.pause_after_end(part)
    world.end(1)
    with pytest.raises(PartEndedError):
        part.check()


def test_what_cannot_be_started_now_is_tried_again(world: World) -> None:
    # Given a machine on which nothing can be started
    world.full = True
    part = Part("mail", world.start, world.told.append)
    part.check()
    assert world.told == [
        "mail could not be started (Resource temporarily unavailable): it is started again in 0.25 s"
    ]
    # When that is over, then it runs
    world.full = False
    world.look_for(part, 1)
    assert part.running is not None


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "status 0"), (137, "status 137"), (-9, "killed by SIGKILL"), (-40, "killed by signal 40")],
)
def test_how_a_process_ended(status: int, words: str) -> None:
    assert how_it_ended(status) == words
