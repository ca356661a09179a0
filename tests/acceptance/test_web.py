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

ACCEPTED = 20


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


def test_what_was_accepted_outlives_a_kill(stack: Stack, client: httpx.Client) -> None:
    # Given commands that were accepted, one that somebody waits for, and nobody who handles them
    [consume] = stack.running("commands")
    consume.kill()
    events = [{**learner(number), "id": f"learner-{number}"} for number in range(ACCEPTED)]
    assert {client.post("/v1/commands", json=event).status_code for event in events} == {202}
    awaited = {**learner(ACCEPTED), "id": "awaited"}
    failures: list[httpx.TransportError] = []

    def send() -> None:
        try:
            client.post("/v1/commands", json=awaited, headers={"Prefer": "wait=60"})
        except httpx.TransportError as error:
            failures.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    stack.wait_until(lambda: queued(stack) == ACCEPTED + 1, "the commands to be in the queue")
    # When the API is killed, and everything starts again
    [web] = stack.running("web")
    web.kill()
    thread.join()
    stack.start("web", WEB_ADDRESS=f"{client.base_url.host}:{client.base_url.port}", POLL_S=3600)
    stack.start("commands")
    stack.wait_until(lambda: is_ready(client), "the API to be ready")
    # Then whoever had to wait knows nothing, sends the command again, and gets its outcome
    assert len(failures) == 1
    again = client.post("/v1/commands", json=awaited, headers={"Prefer": "wait=60"})
    assert [one["outcome"] for one in again.json()["commands"]] == ["applied"]
    # And nothing that was accepted is lost or doubled
    stack.wait_until_handled(ACCEPTED + 1)
    for number in range(ACCEPTED):
        sent = {"source": "/invigilator/api", "id": f"learner-{number}"}
        assert client.get("/v1/commands", params=sent).json()["outcome"] == "applied"
    # And nothing personal was written down
    logs = "".join(process.output() for process in stack.processes)
    assert "example.org" not in logs


def learner(number: int) -> dict[str, object]:
    data = {"user_id": f"k{number}", "username": f"ada{number}", "email": f"ada{number}@example.org"}
    return {"type": "learner.upsert.v1", "data": data}


def queued(stack: Stack) -> int:
    return int(json.loads(stack.cli("status", "--json").stdout)["commands"]["queued"])
