"""What an LMS connects with, beside the real system: the client, and the examples of the documents."""

import json
import re
import shlex
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest

import events
from events.answers import (
    REJECTIONS,
    Attempt,
    CommandQuarantinedError,
    CommandRejectedError,
    OutcomePendingError,
)
from events.client import Client
from events.vocabulary import OutcomeCode
from tests.acceptance.conftest import MakeStack
from tests.acceptance.harness import Stack
from tests.programs import run_program

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python api\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
"""A Python example that needs the API. The others are run by `tests/unit/test_examples.py`."""
LPUSH = re.compile(r"^\$ (?P<command>redis-cli -u redis://… LPUSH .*?\}')$", re.MULTILINE | re.DOTALL)
JAVASCRIPT = re.compile(r"^```javascript\n// submit\.mjs\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
API_OF_UP = "http://127.0.0.1:8080"
EXAM = "7"
LONG = 60


@pytest.fixture(scope="module")
def stack(make_module_stack: MakeStack) -> Stack:
    """A `consume` and the API, which polls nothing: what it hears of, it is notified of."""
    stack = make_module_stack()
    stack.start("commands")
    stack.some_owner()
    return stack


@pytest.fixture(scope="module")
def url(stack: Stack) -> str:
    """Where the API is."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    stack.start("web", WEB_ADDRESS=address, POLL_S=3600)
    stack.wait_until(lambda: is_ready(f"http://{address}"), "the API to be ready")
    return f"http://{address}"


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Client]:
    """The client. There is an exam."""
    with Client(url) as client:
        client.upsert_exam(exam_id=EXAM, course_id="phys", content_id="b7", exam_name="Mechanics", wait=LONG)
        yield client


@pytest.fixture
def attempt(client: Client, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The parts of a command that name an attempt of the test's own learner. It is submitted."""
    user_id = re.sub(r"\W", "-", request.node.name)
    client.upsert_learner(user_id=user_id, username="ada", email="ada@example.org", wait=LONG)
    named = {"exam_id": EXAM, "user_id": user_id, "attempt_code": f"code-{user_id}"}
    client.create_attempt(**named, wait=LONG)
    client.update_status(**named, to_status="submitted", wait=LONG)
    return named


def state(attempt: Attempt | None) -> tuple[str, int]:
    assert attempt is not None
    return attempt.status, attempt.version


def test_an_applied_command_returns_the_attempt(client: Client, attempt: dict[str, Any]) -> None:
    assert state(client.update_status(**attempt, to_status="verified", wait=LONG)) == ("verified", 3)
    removed = client.remove_attempt(**attempt, wait=LONG)
    assert removed is not None
    assert removed.removed_at is not None


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"to_status": "submitted"}, id="unchanged"),
        pytest.param({"to_status": "verified", "from_statuses": ["rejected"]}, id="ignored"),
    ],
)
def test_an_attempt_that_stays_as_it_is_is_returned_too(
    client: Client, attempt: dict[str, Any], asked: dict[str, Any]
) -> None:
    assert state(client.update_status(**attempt, **asked, wait=LONG)) == ("submitted", 2)


def test_without_an_attempt_an_ignored_command_returns_none(client: Client) -> None:
    nobody = {"exam_id": EXAM, "user_id": "nobody", "to_status": "submitted"}
    assert client.update_status(**nobody, if_missing="ignore", wait=LONG) is None


Rejected = Callable[[Client, dict[str, Any]], object]

REJECTED: dict[OutcomeCode, Rejected] = {
    OutcomeCode.EXAM_NOT_FOUND: lambda client, attempt: client.create_attempt(
        exam_id="none", user_id=attempt["user_id"], wait=LONG
    ),
    OutcomeCode.LEARNER_NOT_FOUND: lambda client, attempt: client.create_attempt(
        exam_id=EXAM, user_id="nobody", wait=LONG
    ),
    OutcomeCode.ATTEMPT_NOT_FOUND: lambda client, attempt: client.update_status(
        exam_id=EXAM, user_id="nobody", to_status="submitted", wait=LONG
    ),
    OutcomeCode.ATTEMPT_EXISTS: lambda client, attempt: client.create_attempt(
        exam_id=EXAM, user_id=attempt["user_id"], wait=LONG
    ),
    OutcomeCode.ATTEMPT_CODE_TAKEN: lambda client, attempt: (
        client.remove_attempt(**attempt, wait=LONG),
        client.create_attempt(**attempt, wait=LONG),
    ),
    OutcomeCode.STALE_ATTEMPT: lambda client, attempt: client.update_status(
        **{**attempt, "attempt_code": "another"}, to_status="verified", wait=LONG
    ),
    OutcomeCode.ILLEGAL_TRANSITION: lambda client, attempt: client.update_status(
        **attempt, to_status="started", wait=LONG
    ),
    OutcomeCode.UNKNOWN_STATUS: lambda client, attempt: client.update_status(
        **attempt, to_status="finished", wait=LONG
    ),
}


@pytest.mark.parametrize("code", REJECTIONS)
def test_a_rejected_command_raises_the_error_of_its_code(
    client: Client, attempt: dict[str, Any], code: str
) -> None:
    with pytest.raises(CommandRejectedError) as raised:
        REJECTED[OutcomeCode(code)](client, attempt)
    assert (type(raised.value), raised.value.reason) == (REJECTIONS[code], code)


def test_another_command_with_the_same_id_is_quarantined(client: Client, attempt: dict[str, Any]) -> None:
    client.update_status(**attempt, to_status="verified", command_id="once", wait=LONG)
    with pytest.raises(CommandQuarantinedError) as raised:
        client.update_status(**attempt, to_status="rejected", command_id="once", wait=LONG)
    assert raised.value.reason == "id_reused"


def test_a_command_that_takes_longer_is_pending_and_can_be_waited_for(
    stack: Stack, client: Client, attempt: dict[str, Any]
) -> None:
    # Given that nobody handles commands
    owner = stack.some_owner()
    owner.pause()
    # When one waits for a second, the client says that there is no outcome
    with pytest.raises(OutcomePendingError) as raised:
        client.update_status(**attempt, to_status="verified", wait=1)
    # Then the same call with the same id goes on waiting, and the command is handled once
    owner.resume()
    command_id = raised.value.command_id
    again = client.update_status(**attempt, to_status="verified", command_id=command_id, wait=LONG)
    assert state(again) == ("verified", 3)


def test_the_examples_of_the_documents_work_one_after_the_other(
    stack: Stack, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The Python of the README, then that of the page about the client, which goes on with its attempt
    monkeypatch.setitem(sys.modules, "invigilator_client", events)
    submitted, refused = run_python("README.md", url)
    assert re.match(r"submitted \d{4}-\d\d-\d\d ", submitted)
    assert refused == "submitted cannot become started"
    [again] = run_python("docs/client.md", url)
    assert again.startswith("Submitted at ")
    # And redis-cli
    [example] = LPUSH.finditer((ROOT / "README.md").read_text())
    command = shlex.split(example["command"].replace("redis://…", stack.broker_url))
    pushed = run_program(*command, folder=stack.folder)
    assert pushed.stdout.strip().isdigit(), pushed.stdout + pushed.stderr
    sent = {name: json.loads(command[-1])[name] for name in ("source", "id")}
    stack.wait_until(
        lambda: httpx.get(f"{url}/v1/commands", params=sent).status_code == 200, "the command of redis-cli"
    )
    assert httpx.get(f"{url}/v1/commands", params=sent).json()["outcome"] == "unchanged"
    # And JavaScript
    [program] = JAVASCRIPT.finditer((ROOT / "docs" / "javascript.md").read_text())
    (stack.folder / "submit.mjs").write_text(program["code"])
    ran = run_program("node", "submit.mjs", folder=stack.folder, INVIGILATOR=url, TOKEN="")
    assert (ran.returncode, ran.stdout) == (0, "unchanged submitted\n"), ran.stderr
    # Which fails when the command is quarantined, here because its id was another command's
    quarantined = program["code"].replace('"submitted"', '"started"')
    (stack.folder / "submit.mjs").write_text(quarantined)
    ran = run_program("node", "submit.mjs", folder=stack.folder, INVIGILATOR=url, TOKEN="")
    assert ran.returncode == 1
    assert "Error: quarantined: id_reused: " in ran.stderr
    # And when it is rejected
    (stack.folder / "submit.mjs").write_text(quarantined.replace('"submission-', '"another-'))
    ran = run_program("node", "submit.mjs", folder=stack.folder, INVIGILATOR=url, TOKEN="")
    assert ran.returncode == 1
    assert "Error: rejected: illegal_transition: " in ran.stderr


def run_python(document: str, url: str) -> list[str]:
    """Run the examples of a document that need the API. Returns the lines that they print."""
    printed = StringIO()
    for block in BLOCK.finditer((ROOT / document).read_text()):
        with redirect_stdout(printed):
            exec(block["code"].replace(API_OF_UP, url), {"__name__": "__example__"})
    return printed.getvalue().splitlines()
