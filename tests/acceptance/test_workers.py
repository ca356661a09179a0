"""Celery's workers as anybody starts them: with less than the Procfile says, with too much, and more than once."""

from collections.abc import Iterator

import pytest

from tests.acceptance.harness import Stack

READY = " ready."
QUEUE = "invigilator.effects.credit"


@pytest.fixture(params=["valkey", "rabbitmq"])
def stack(request: pytest.FixtureRequest, database_url: str) -> Iterator[Stack]:
    with Stack(database_url, request.getfixturevalue(f"{request.param}_url")) as stack:
        yield stack


def owe(stack: Stack, user: str) -> None:
    """A learner to whom effects of each queue are owed, and paid but for the last."""
    stack.client.course("course")
    for exam in ("A", "B"):
        stack.client.exam(exam, "course")
    stack.client.learner(user)
    stack.client.create("A", user, taking_as_proctored=True)
    for status in ("submitted", "rejected"):
        stack.client.update("A", user, status)
    stack.settle()  # or the removal would fold the cascade in
    stack.client.remove("A", user, requested_by="staff")


@pytest.mark.parametrize("options", [(), ("--pool", "solo"), ("--beat",)], ids=["plain", "solo", "beat"])
def test_a_worker_without_queues_works_on_all_of_them(stack: Stack, options: tuple[str, ...]) -> None:
    for name in ("commands", "relay"):
        stack.start(name)
    worker = stack.celery("worker", *options)
    owe(stack, "u")
    stack.settle()
    assert {line["kind"] for line in worker.logged() if line["event"] == "try done"} >= {
        "set_credit_status",
        "cascade_decline",
        "send_status_email",
        "delete_student_attempt",
    }
    assert worker.terminate() == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            ("--queues", "invigilator.effects.credits"),
            "no queue of effects called 'invigilator.effects.credits'",
        ),
        (
            ("--queues", "invigilator.effects.credit,invigilator.commands.0"),
            "called 'invigilator.commands.0'",
        ),
        (("--exclude-queues", "celery"), "no queue of effects called 'celery'"),
        (("--queues", QUEUE, "--exclude-queues", QUEUE), "leaves no queue to work on"),
        (("--pool", "processes"), "effects run in threads"),
        (("--autoscale", "10,2"), "use --concurrency instead"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_worker_that_cannot_work_says_so_in_one_line(
    database_url: str, valkey_url: str, options: tuple[str, ...], reason: str
) -> None:
    with Stack(database_url, valkey_url) as stack:
        worker = stack.celery("worker", *options)
        assert worker.wait() == 1
        [line] = worker.output().splitlines()
        assert line.startswith("invigilator: ")
        assert reason in line


def test_a_worker_does_not_take_commands_when_it_is_told_to(stack: Stack) -> None:
    # Given a worker, and a command that waits
    worker = stack.start("effects")
    stack.wait_until(lambda: READY in worker.output(), "the worker")
    stack.client.course("course")
    # When somebody tells it to consume from the commands' queue
    assert stack.celery("control", "add_consumer", "invigilator.commands.0").wait() == 0
    # Then it says no, and the command is still there
    stack.wait_until(lambda: "a queue was refused" in worker.output(), "its word")
    stack.start("commands")
    stack.settle_commands()
    assert stack.handled() == 1


def test_the_same_line_may_run_more_than_once(stack: Stack) -> None:
    # Given two workers from the same line of the Procfile
    workers = [stack.start("effects") for _ in range(2)]
    stack.wait_until(lambda: all(READY in one.output() for one in workers), "both of them")
    # Then both answer, under names of their own
    ping = stack.celery("inspect", "ping", "--timeout", "5")
    assert ping.wait() == 0
    assert "2 nodes online" in ping.output()
    # When one stands still, then one that takes its place starts at once, and does the work
    workers[0].pause()
    other = stack.start("effects")
    stack.wait_until(lambda: READY in other.output(), "the one in its place")
    workers[1].kill()
    for name in ("commands", "relay", "mail"):
        stack.start(name)
    owe(stack, "u")
    stack.settle()
    assert "try done" in other.output()
    assert "RESOURCE_LOCKED" not in "".join(one.output() for one in (*workers, other))
    # and the one that stood still goes on
    workers[0].resume()
    owe(stack, "v")
    stack.settle()
    assert workers[0].is_running
