"""What Flower tells about the effects, what it lets nobody do, and how it comes back and ends."""

import json
import re
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from kombu import Connection, Exchange, Queue

from invigilator.local.server import free_port
from tests.acceptance.client import SOURCE
from tests.acceptance.harness import PATIENCE_S, Process, Stack
from tests.acceptance.lms import Answer
from tests.rabbit import restartable_rabbitmq
from worker.kinds import QUEUES

CREDIT = "effects.set_credit_status"
CREDIT_QUEUE = "invigilator.effects.credit"
EFFECTS_QUEUES = sorted(set(QUEUES.values()))
CONTROLS = (
    "worker/shutdown/{worker}",
    "worker/pool/restart/{worker}",
    "worker/pool/grow/{worker}?n=1",
    "worker/pool/shrink/{worker}?n=1",
    "worker/pool/autoscale/{worker}?min=1&max=2",
    "worker/queue/add-consumer/{worker}?queue=invigilator.commands.0",
    "worker/queue/cancel-consumer/{worker}?queue=invigilator.effects.credit",
    "task/rate-limit/effects.set_credit_status?workername={worker}&ratelimit=1",
    "task/timeout/effects.set_credit_status?workername={worker}&hard=1",
    "task/revoke/{task}?terminate=true",
    "task/abort/{task}",
)


class Flower:
    """The Procfile's dashboard, its API open for reading."""

    def __init__(self, stack: Stack) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.process: Process = stack.start("flower", FLOWER_PORT=port, FLOWER_UNAUTHENTICATED_API="true")
        stack.wait_until(self._is_up, "Flower")

    def _is_up(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthcheck").is_success
        except httpx.TransportError:
            return False

    def get(self, path: str) -> Any:
        """A document of its API."""
        return httpx.get(f"{self.url}/api/{path}", timeout=PATIENCE_S).raise_for_status().json()

    def post(self, path: str, document: object = None) -> httpx.Response:
        return httpx.post(f"{self.url}/api/{path}", json=document, timeout=PATIENCE_S)

    def page(self, path: str) -> str:
        """A page for people."""
        return httpx.get(f"{self.url}/{path}", timeout=PATIENCE_S).raise_for_status().text

    def tasks(self, about: str) -> list[dict[str, Any]]:
        """Tasks whose label has this in it, the oldest first."""
        tasks = [task for task in self.get("tasks").values() if about in (task["args"] or "")]
        return sorted(tasks, key=lambda task: task["received"])

    def states(self, about: str) -> list[str]:
        return [task["state"] for task in self.tasks(about)]

    def workers(self) -> list[str]:
        """The names of those that are there."""
        return [name for name, alive in self.get("workers?status=true").items() if alive]

    def counted(self, kind: str) -> int:
        """What its metrics say of an event of credit."""
        pattern = rf'flower_events_total\{{task="{CREDIT}",type="{kind}",worker="[^"]*"\}} ([0-9.]+)'
        return sum(int(float(number)) for number in re.findall(pattern, self.page("metrics")))


on_valkey = pytest.mark.parametrize("stack", ["valkey"], indirect=True)
"""For what is the same on both brokers."""


@pytest.fixture(params=["valkey", "rabbitmq"])
def stack(request: pytest.FixtureRequest, database_url: str) -> Iterator[Stack]:
    with Stack(database_url, request.getfixturevalue(f"{request.param}_url"), RETRY_CAP_S=1) as stack:
        yield stack


def submit(stack: Stack, user: str) -> str:
    """A learner whose attempt owes credit; returns the id of the command that it follows from."""
    stack.client.learner(user)
    stack.client.create("exam", user)
    return stack.client.update("exam", user, "submitted")


def credit_of(stack: Stack, user: str) -> Any:
    stack.wait_until(
        lambda: bool(stack.rows("SELECT 1 FROM effects WHERE user_id = :user", user=user)), "an effect"
    )
    [row] = stack.rows("SELECT * FROM effects WHERE user_id = :user ORDER BY sequence LIMIT 1", user=user)
    return row


def test_flower_tells_the_truth(stack: Stack) -> None:
    # Given the whole system, and an LMS that answers 500 to one learner and refuses another
    stack.client.course("course")
    stack.client.exam("exam", "course")
    answers = {"later": Answer(500), "never": Answer(400)}
    stack.lms.script = lambda request: answers.get(request.fields.get("user_id"))
    for name in ("commands", "relay"):
        stack.start(name)
    worker = stack.start("effects")
    flower = Flower(stack)
    stack.wait_until(lambda: len(flower.workers()) == 1, "Flower to see the worker")
    # When each has owed credit for a while
    commands = {user: submit(stack, user) for user in ("later", "never", "fine")}
    stack.wait_until(lambda: flower.states("learner later").count("RETRY") > 1, "some tries")
    stack.wait_until(lambda: flower.states("learner never") == ["FAILURE"], "a refusal")
    stack.wait_until(lambda: flower.states("learner fine") == ["SUCCESS"], "a success")
    # Then nothing that the other side does not have is a success, and each has its reason
    assert set(flower.states("learner later")) <= {"RECEIVED", "STARTED", "RETRY"}
    again = next(task for task in flower.tasks("learner later") if task["state"] == "RETRY")
    assert "try 1: LMS answered 500" in again["result"]
    assert again["result"] == again["exception"]
    [refused] = flower.tasks("learner never")
    assert "try 1: LMS answered 400" in refused["result"]
    [done] = flower.tasks("learner fine")
    assert "try 1: done" in done["result"]
    assert again["traceback"] is refused["traceback"] is None
    # and so with the log: every line about an end has the ids of effect and command
    for user, command in commands.items():
        effect = credit_of(stack, user)
        ends = [line for line in worker.logged() if line.get("effect") == str(effect.id)]
        assert ends
        assert {(line["source"], line["command"]) for line in ends} == {(SOURCE, command)}
    # When somebody offers the refused one again
    failed = credit_of(stack, "never")
    assert failed.state == "failed"
    send(stack, str(failed.id))
    # Then that is neither success nor failure, and says what to do
    stack.wait_until(lambda: "IGNORED" in flower.states(str(failed.id)), "an answer")
    [offered] = [task for task in flower.tasks(str(failed.id)) if task["state"] == "IGNORED"]
    assert offered["result"].startswith("failed: use effects retry · ")
    assert f"effect {failed.id} · command {SOURCE} " in offered["result"]
    [left] = [line for line in worker.logged() if line["event"] == "an offer was left alone"]
    assert (left["effect"], left["reason"]) == (str(failed.id), "failed: use effects retry")
    # and the counters count each apart
    assert flower.counted("task-ignored") == 1
    assert flower.counted("task-failed") == 1
    assert flower.counted("task-succeeded") == 1
    assert flower.counted("task-retried") > 1
    # When the LMS is well
    answers.clear()
    stack.wait_until(lambda: "SUCCESS" in flower.states("learner later"), "a success")
    assert stack.lms.credit("later", "course", "content-exam") == "submitted"


def send(stack: Stack, effect_id: str) -> None:
    """What Celery makes of `apply_async`, from any program that can reach the broker."""
    with Connection(stack.broker_url) as connection, connection.Producer() as producer:
        producer.publish(
            json.dumps([[effect_id], {}, {}]).encode(),
            routing_key=CREDIT_QUEUE,
            declare=[Queue(CREDIT_QUEUE, Exchange(CREDIT_QUEUE), CREDIT_QUEUE)],  # as workers do
            content_type="application/json",
            content_encoding="utf-8",
            headers={
                "lang": "py",
                "task": CREDIT,
                "id": "5f0c1c1e-0000-4000-8000-000000000000",
                "argsrepr": effect_id,
            },
        )


@on_valkey
def test_an_offer_that_an_open_circuit_leaves_alone_says_so(stack: Stack) -> None:
    # Given a service that has not answered for a while
    stack.client.course("course")
    stack.client.exam("exam", "course")
    stack.lms.script = lambda _request: Answer(503)
    for name in ("commands", "relay", "effects"):
        stack.start(name)
    flower = Flower(stack)
    stack.wait_until(lambda: len(flower.workers()) == 1, "Flower to see the worker")
    for number in range(8):
        submit(stack, f"u{number}")
    stack.wait_until(lambda: bool(stack.rows("SELECT 1 FROM circuits WHERE open_until > now()")), "a circuit")
    stack.execute("UPDATE circuits SET open_until = now() + interval '1 hour'")
    [pending] = stack.rows(
        "SELECT id FROM effects WHERE kind = 'set_credit_status' AND state = 'pending' LIMIT 1"
    )
    # When an effect is offered all the same
    send(stack, str(pending.id))
    # Then Flower says since when nobody calls it
    about = str(pending.id)
    stack.wait_until(lambda: "IGNORED" in flower.states(about), "an answer")
    said = [task["result"] for task in flower.tasks(about) if task["state"] == "IGNORED"]
    since = re.compile(r"circuit open since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ, no call before ")
    assert any(since.match(result) for result in said), said


def waiting(flower: Flower) -> dict[str, int]:
    return {queue["name"]: queue["messages"] for queue in flower.get("queues/length")["active_queues"]}


def test_flower_lists_every_queue_and_changes_nothing(stack: Stack) -> None:
    # Given Flower before anybody else, two shards, and then a worker that works on one queue
    stack.settings["COMMAND_SHARDS"] = "2"
    flower = Flower(stack)
    names = ["invigilator.commands.0", "invigilator.commands.1", *EFFECTS_QUEUES]
    assert [queue["name"] for queue in flower.get("queues/length")["active_queues"]] == names
    mail = stack.start("mail")
    stack.wait_until(lambda: len(flower.workers()) == 1, "Flower to see the worker")
    send(stack, "7")
    send(stack, "8")
    # When Flower knows the worker's queues
    [worker] = flower.workers()
    stack.wait_until(
        lambda: "active_queues" in flower.get("workers?refresh=1").get(worker, {}), "what it works on"
    )
    # Then it lists all the same, with what waits
    stack.wait_until(lambda: waiting(flower)["invigilator.effects.credit"] == 2, "both messages")
    assert list(waiting(flower)) == names
    page = flower.page("broker")
    assert all(f"<td>{name}</td>" in page for name in names)
    # and its tables show the label, state, result and times
    tasks = flower.page("tasks")
    assert all(
        f'data-column="{slug}"' in tasks for slug in ("args", "state", "result", "received", "runtime")
    )
    # and nothing can be changed from it
    for path in CONTROLS:
        assert flower.post(path.format(worker=worker, task="x")).status_code == 403, path
    for path in ("apply", "async-apply", "send-task"):
        refused = flower.post(f"task/{path}/{CREDIT}", {"args": ["7"]})
        assert refused.status_code == 403
        assert "failed: use effects retry" in refused.text
    assert "Shut Down" not in flower.page(f"worker/{worker}")
    assert mail.is_running
    assert waiting(flower)["invigilator.effects.credit"] == 2


@on_valkey
def test_without_being_told_its_api_is_closed(stack: Stack) -> None:
    closed = stack.start("flower", FLOWER_PORT=(port := free_port()))
    stack.wait_until(lambda: "Visit me at" in closed.output(), "Flower")
    assert httpx.get(f"http://127.0.0.1:{port}/api/tasks").status_code == 401


def test_flower_comes_back_soon_after_the_broker_and_ends_without_it(database_url: str) -> None:
    # Given Flower on a RabbitMQ that is away for longer than any pause of its own
    with restartable_rabbitmq() as rabbit, Stack(database_url, rabbit.url) as stack:
        flower = Flower(stack)
        rabbit.end(signal.SIGKILL)
        again = "Flower tries again"
        stack.wait_until(lambda: flower.process.output().count(again) >= 3, "some attempts")
        # When the broker is back
        rabbit.start()
        stack.start("effects")
        # Then it sees the worker
        stack.wait_until(lambda: len(flower.workers()) == 1, "Flower to see the worker")
        # and when the broker is away again, it still ends when it is told to
        rabbit.end(signal.SIGKILL)
        before = flower.process.output().count(again)
        stack.wait_until(lambda: flower.process.output().count(again) > before, "another attempt")
        httpx.get(f"{flower.url}/api/workers?refresh=1&workername=x", timeout=PATIENCE_S)
        assert flower.process.terminate() == 0
