"""Load: many learners, everything that may happen to an attempt, in a repeatable order."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread

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
KINDS = ("create", *("update",) * 12, "remove")


def load(commands: int, *, learners: int = 60, seed: int = 1) -> list[bytes]:
    """So many commands about attempts, after those that introduce courses, exams and learners.

    Each learner is in one course, and mostly begins with an attempt at the exam.
    """
    chance = random.Random(seed)
    bodies = _introductions(learners)
    begun: set[tuple[str, str]] = set()
    for number in range(commands):
        learner = chance.randrange(learners)
        pair = f"{learner % COURSES}-{chance.randrange(EXAMS)}", f"u{learner}"
        begins = pair not in begun and chance.random() < 0.9
        kind = "create" if begins else chance.choice(KINDS)
        begun.add(pair)
        bodies.append(_about_an_attempt(chance, kind, f"n{number}", *pair))
    return bodies


def _introductions(learners: int) -> list[bytes]:
    bodies = []
    for course in range(COURSES):
        bodies.append(event("course.upsert.v1", {"course_id": f"course-{course}"}, f"course-{course}"))
        for exam in range(EXAMS):
            name = f"{course}-{exam}"
            data = {"exam_id": name, "course_id": f"course-{course}", "content_id": f"content-{name}"}
            bodies.append(event("exam.upsert.v1", {**data, "exam_name": f"Exam {name}"}, f"exam-{name}"))
    for learner in range(learners):
        data = {"user_id": f"u{learner}", "username": f"name-{learner}", "email": f"u{learner}@example.org"}
        bodies.append(event("learner.upsert.v1", data, f"learner-{learner}"))
    return bodies


def _about_an_attempt(chance: random.Random, kind: str, command_id: str, exam: str, learner: str) -> bytes:
    ids = {"exam_id": exam, "user_id": learner}
    match kind:
        case "create":
            proctored = chance.random() < 0.8
            return event("exam.attempt.create.v1", {**ids, "taking_as_proctored": proctored}, command_id)
        case "update":
            status = chance.choice(STATUSES)
            return event("exam.attempt.update-status.v1", {**ids, "to_status": status}, command_id)
        case _:
            return event("exam.attempt.remove.v1", ids, command_id)


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
