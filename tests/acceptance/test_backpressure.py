"""A service is away while a backlog grows: it is left alone, no process grows, and all of it follows."""

import json
import threading

import psutil

from tests.acceptance.client import event
from tests.acceptance.harness import Process, Stack
from tests.acceptance.lms import Answer, Request
from worker.rules.retry import CIRCUIT_FAILURES

CREDIT = "invigilator.effects.credit"
LIMIT = 2
WORKERS = 2
BACKLOG = 300
WARM = CIRCUIT_FAILURES + 10
"""Failures in a row after which every code path of an outage has been gone through."""
LONG = WARM + 40
GROWTH = 1.2


class Counter:
    """Counts the calls that the LMS sees at once. Each takes a moment, so that they would overlap."""

    def __init__(self) -> None:
        self.most = 0
        self._inside = 0
        self._lock = threading.Lock()

    def __call__(self, _request: Request) -> Answer | None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
        threading.Event().wait(0.02)
        with self._lock:
            self._inside -= 1
        return None


def submitted(first: int, learners: int) -> list[bytes]:
    """Commands that make so many learners owe a credit each."""
    bodies = []
    for number in range(first, first + learners):
        user = f"b{number}"
        contact = {"username": user, "email": f"{user}@example.org"}
        attempt = {"exam_id": "exam", "user_id": user}
        bodies += [
            event("learner.upsert.v1", {"user_id": user, **contact}, f"{user}-1"),
            event("exam.attempt.create.v1", attempt, f"{user}-2"),
            event("exam.attempt.update-status.v1", {**attempt, "to_status": "submitted"}, f"{user}-3"),
        ]
    return bodies


def failures(stack: Stack) -> int:
    return stack.number("SELECT coalesce(max(failures), 0) FROM circuits WHERE queue = :queue", queue=CREDIT)


def resident(processes: list[Process]) -> dict[str, int]:
    """Bytes of memory by process, its children included."""
    sizes = {}
    for one in processes:
        tree = psutil.Process(one.pid)
        sizes[one.name] = sum(part.memory_info().rss for part in [tree, *tree.children(recursive=True)])
    return sizes


def test_an_outage_is_waited_for_and_the_backlog_drains(stack: Stack) -> None:
    # Given a system whose LMS is away
    stack.settings |= {"MAX_CALLS": str(LIMIT), "RETRY_BASE_S": "0.1", "RETRY_CAP_S": "0.1", "POLL_S": "0.1"}
    stack.start("commands")
    relay = stack.start("relay")
    workers = [stack.start("effects") for _ in range(WORKERS)]
    stack.lms.stop()
    stack.client.course("course")
    stack.client.exam("exam", "course")
    stack.client.publish(submitted(0, 60))
    stack.settle_commands()
    stack.wait_until(lambda: failures(stack) >= WARM, "the circuit to open and some probes to fail")
    before = resident([relay, *workers])
    # When a backlog grows, and probe after probe fails
    stack.client.publish(submitted(60, BACKLOG - 60))
    stack.settle_commands()
    stack.wait_until(lambda: failures(stack) >= LONG, "many probes to fail")
    # Then there was one try for each probe, and for what was on its way when the circuit opened
    tries = stack.number("SELECT sum(tries) FROM effects")
    assert tries <= failures(stack) + LIMIT * WORKERS
    assert stack.owed() == BACKLOG
    # and a person sees why nothing moves
    assert set(json.loads(stack.cli("status", "--json").stdout)["circuits"]) == {CREDIT}
    # and nobody's memory has grown
    for name, size in resident([relay, *workers]).items():
        assert size < before[name] * GROWTH, name
    # When the LMS is back
    stack.lms.script = counter = Counter()
    stack.lms.start()
    stack.settle()
    # Then all of it has followed, and the LMS was not stampeded
    credit = {stack.lms.credit(f"b{number}", "course", "content-exam") for number in range(BACKLOG)}
    assert credit == {"submitted"}
    assert counter.most <= LIMIT * WORKERS
    assert stack.number("SELECT count(*) FROM circuits") == 0
