"""`invigilator web` beside a real `consume`: commands in, their outcomes, and how it ends."""

import json
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.acceptance.harness import Stack

PREPARED = [
    {
        "type": "exam.upsert.v1",
        "data": {"exam_id": "7", "course_id": "phys", "content_id": "b7", "exam_name": "Mechanics"},
    },
    {"type": "learner.upsert.v1", "data": {"user_id": "42", "username": "ada", "email": "ada@example.org"}},
    {"type": "exam.attempt.create.v1", "data": {"exam_id": "7", "user_id": "42", "attempt_code": "a1"}},
]
SUBMIT = {
    "type": "exam.attempt.update-status.v1",
    "data": {"exam_id": "7", "user_id": "42", "to_status": "submitted", "attempt_code": "a1"},
}


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    """Calls the API, which polls nothing: what it hears of, it is notified of."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    stack.start("web", WEB_ADDRESS=address, POLL_S=3600)
    stack.start("commands")
    stack.some_owner()
    with httpx.Client(base_url=f"http://{address}", timeout=120) as client:
        stack.wait_until(lambda: is_ready(client), "the API to be ready")
        yield client


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_a_command_comes_back_with_its_outcome(stack: Stack, client: httpx.Client) -> None:
    # When commands are sent, and one waits for them
    waited = client.post("/v1/commands", json=PREPARED, headers={"Prefer": "wait=60"})
    # Then their outcomes come
    assert waited.status_code == 200, waited.text
    assert [one["outcome"] for one in waited.json()["commands"]] == ["applied"] * 3
    # And without waiting, they can be asked for
    [sent] = client.post("/v1/commands", json=SUBMIT).json()["commands"]
    stack.wait_until_handled(4)
    assert client.get("/v1/commands", params=sent).json()["outcome"] == "applied"
    assert client.get("/v1/attempt", params={"code": "a1"}).json()["attempt"]["status"] == "submitted"


def test_a_stop_answers_whoever_waits(stack: Stack, client: httpx.Client) -> None:
    # Given a command for which nobody is there
    [consume] = stack.running("commands")
    consume.kill()
    answers: list[httpx.Response] = []

    def send() -> None:
        answers.append(client.post("/v1/commands", json=SUBMIT, headers={"Prefer": "wait=60"}))

    thread = threading.Thread(target=send)
    thread.start()
    stack.wait_until(lambda: queued(stack) == 1, "the command to be in the queue")
    # When the API is asked to stop
    [web] = stack.running("web")
    status = web.terminate()
    thread.join()
    # Then it says that the command was taken, and ends in peace
    assert status == 0, web.output()
    assert answers[0].status_code == 202
    assert "outcome" not in answers[0].json()["commands"][0]


def queued(stack: Stack) -> int:
    return int(json.loads(stack.cli("status", "--json").stdout)["commands"]["queued"])
