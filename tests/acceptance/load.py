"""Load: many learners, everything that may happen to an attempt, in a repeatable order."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any

from tests.acceptance.client import Client, event

COURSES = 3
EXAMS = 3  # in each course
BACKLOG = 60  # waiting messages at most while feeding
STATUSES = (
    *("started",) * 4,
    *("submitted",) * 4,
    *("verified",) * 3,
    *("declined", "rejected") * 2,
    *("ready_to_submit", "timed_out", "second_review_required", "error", "not_reviewed", "verifed"),
)
INTRODUCED_AGO = timedelta(days=30)
KINDS = ("create", *("update",) * 12, "remove")
EXPECTED = ("created", "started", "submitted", "verified", "rejected", "declined")
UNHEARD_OF = {"attempt_code": "unheard of", "external_id": "unheard of"}

Pair = tuple[str, str]
"""An exam and a learner."""
Names = dict[str, str]
"""`attempt_code` and `external_id` of an attempt, or fewer."""


def load(commands: int, *, learners: int = 60, seed: int = 1, now: datetime | None = None) -> list[bytes]:
    """So many commands about attempts, after those that introduce courses, exams and learners.

    Each learner is in one course, and mostly begins with an attempt at the exam. The commands say when they
    happened and which attempt they mean: mostly the present one, sometimes an earlier one or one that never was.

    Parameters:
        now: the time around which everything happened. None asks the clock.
    """
    chance = random.Random(seed)
    now = now or datetime.now(UTC)
    sender = _Sender(chance, now)
    bodies = _introductions(learners, now - INTRODUCED_AGO)
    begun: set[Pair] = set()
    for number in range(commands):
        learner = chance.randrange(learners)
        pair = f"{learner % COURSES}-{chance.randrange(EXAMS)}", f"u{learner}"
        begins = pair not in begun and chance.random() < 0.9
        kind = "create" if begins else chance.choice(KINDS)
        begun.add(pair)
        bodies.append(sender.command(kind, f"n{number}", pair))
    return bodies


def _introductions(learners: int, time: datetime) -> list[bytes]:
    bodies = []
    for course in range(COURSES):
        name = f"course-{course}"
        bodies.append(event("course.upsert.v1", {"course_id": name}, name, time))
        for exam in range(EXAMS):
            name = f"{course}-{exam}"
            data = {"exam_id": name, "course_id": f"course-{course}", "content_id": f"content-{name}"}
            bodies.append(
                event("exam.upsert.v1", {**data, "exam_name": f"Exam {name}"}, f"exam-{name}", time)
            )
    for learner in range(learners):
        data = {"user_id": f"u{learner}", "username": f"name-{learner}", "email": f"u{learner}@example.org"}
        bodies.append(event("learner.upsert.v1", data, f"learner-{learner}", time))
    return bodies


@dataclass
class _Sender:
    """An LMS that remembers the names of its attempts. It does not know what became of its commands."""

    chance: random.Random
    now: datetime
    present: dict[Pair, Names] = field(default_factory=dict)
    """The names of the attempts that are there, unless something was refused."""
    earlier: dict[Pair, Names] = field(default_factory=dict)

    def command(self, kind: str, command_id: str, pair: Pair) -> bytes:
        exam, learner = pair
        data: dict[str, Any] = {"exam_id": exam, "user_id": learner}
        match kind:
            case "create":
                names = self._new_names(command_id)
                data |= {"taking_as_proctored": self.chance.random() < 0.8, **names}
                self.present.setdefault(pair, names)
                name = "exam.attempt.create.v1"
            case "update":
                data |= {"to_status": self.chance.choice(STATUSES), **self._meaning(pair)}
                name = "exam.attempt.update-status.v1"
            case _:
                data |= self._meaning(pair)
                self.earlier[pair] = self.present.pop(pair, {})
                name = "exam.attempt.remove.v1"
        return event(name, data, command_id, self._time())

    def _new_names(self, command_id: str) -> Names:
        names = {"attempt_code": f"code-{command_id}", "external_id": f"vendor-{command_id}"}
        return self._some_of(names)

    def _meaning(self, pair: Pair) -> dict[str, Any]:
        """Say which attempt is meant, and in which status it is expected."""
        candidates = self.present.get(pair, {}), self.earlier.get(pair, {}), UNHEARD_OF
        [names] = self.chance.choices(candidates, [18, 1, 1])
        meant: dict[str, Any] = {**self._some_of(names)}
        if self.chance.random() < 0.1:
            meant["from_statuses"] = self.chance.sample(EXPECTED, 4)
        if self.chance.random() < 0.2:
            meant["if_missing"] = "ignore"
        return meant

    def _some_of(self, names: Names) -> Names:
        return {name: value for name, value in names.items() if self.chance.random() < 0.6}

    def _time(self) -> datetime | None:
        """Return when it happened: in the last hours and out of order, or at a time that nobody believes."""
        recently = -timedelta(minutes=self.chance.randrange(120))
        [ago] = self.chance.choices([None, recently, timedelta(days=-3), timedelta(days=2)], [8, 20, 1, 1])
        return None if ago is None else self.now + ago


@contextmanager
def feeding(client: Client, bodies: Sequence[bytes]) -> Iterator[None]:
    """Publish in the background, a few at a time, so that there is always something waiting; all in the end."""
    stop = Event()
    thread = Thread(target=_feed, args=(client, bodies, stop), name="feeding")
    thread.start()
    try:
        yield
    except BaseException:
        stop.set()
        raise
    finally:
        thread.join()


def _feed(client: Client, bodies: Sequence[bytes], stop: Event) -> None:
    at = 0
    while at < len(bodies) and not stop.is_set():
        if client.waiting() < BACKLOG:
            client.publish(bodies[at : at + BACKLOG])
            at += BACKLOG
        else:
            stop.wait(0.005)
