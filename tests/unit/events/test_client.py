"""The client of the HTTP API, against a stand-in that answers as the contract says."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from events.answers import (
    REFUSALS,
    REJECTIONS,
    ApiError,
    CommandQuarantinedError,
    CommandRejectedError,
    OutcomePendingError,
    RateLimitedError,
    UnavailableError,
)
from events.client import Client
from events.commands import COMMAND_TYPES
from events.errors import InvalidMessageError
from events.vocabulary import OutcomeCode, QuarantineCode

ONLY_IGNORED = {
    OutcomeCode.PRECONDITION_FAILED,
    OutcomeCode.LATE_TIMEOUT,
    OutcomeCode.OVERTAKEN,
    OutcomeCode.VERDICT_PROTECTED,
}
ATTEMPT = {
    "id": "018f4e5a-0000-7000-8000-000000000000",
    "exam_id": "7",
    "user_id": "42",
    "attempt_code": "a1",
    "status": "submitted",
    "taking_as_proctored": True,
    "is_sample_attempt": False,
    "external_id": None,
    "started_at": "2026-03-01T08:00:00Z",
    "completed_at": "2026-03-01T09:00:00+00:00",
    "version": 3,
    "removed_at": None,
    "a member of a newer release": 1,
}
SUBMITTED: dict[str, Any] = {"exam_id": "7", "user_id": "42", "to_status": "submitted"}


class Server:
    """Answers every call alike, and keeps the calls."""

    def __init__(self) -> None:
        self.calls: list[httpx.Request] = []
        self.answer: Callable[[httpx.Request], httpx.Response] = self.handle
        self.told: dict[str, Any] = {"outcome": "applied", "attempt": ATTEMPT}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request)
        return self.answer(request)

    def handle(self, request: httpx.Request) -> httpx.Response:
        sent = {"source": "/lms/acme", "id": json.loads(request.content)["id"], **self.told}
        return httpx.Response(200 if self.told else 202, json={"commands": [sent]})

    def refuse(self, status: int, code: str, **headers: str) -> None:
        problem = {"type": "about:blank", "title": "?", "status": status, "code": code, "detail": "do that"}
        self.answer = lambda _: httpx.Response(status, json=problem, headers=headers)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    transport = httpx.MockTransport(server)
    with Client("https://invigilator.example/api/", "secret", timeout_s=3, transport=transport) as client:
        yield client


def test_it_sends_one_event_and_waits(client: Client, server: Server) -> None:
    client.update_status(**SUBMITTED, command_id="5f0c", wait=7)
    [call] = server.calls
    event = json.loads(call.content)
    assert (call.method, str(call.url)) == ("POST", "https://invigilator.example/api/v1/commands")
    assert call.headers["Authorization"] == "Bearer secret"
    assert call.headers["Prefer"] == "wait=7"
    assert call.headers["Content-Type"] == "application/cloudevents+json"
    assert call.extensions["timeout"]["read"] == 10
    assert event.pop("time").endswith("Z")
    assert event == {
        "specversion": "1.0",
        "id": "5f0c",
        "type": "exam.attempt.update-status.v1",
        "data": SUBMITTED,
    }


def test_without_a_token_it_sends_none(server: Server) -> None:
    with Client("http://localhost:8080", transport=httpx.MockTransport(server)) as client:
        client.update_status(**SUBMITTED)
    assert "Authorization" not in server.calls[0].headers


@pytest.mark.parametrize("token", ["S3CRETtok\n", "S3CRET tok", "S3CRETtök", "S3CRET\x7f", ""])
def test_a_token_that_cannot_be_sent_is_refused_without_quoting_it(token: str) -> None:
    with pytest.raises(ValueError, match=r"^token must be printable ASCII without spaces; [a-z ]+\?$"):
        Client("https://invigilator.example", token)


@pytest.mark.parametrize("outcome", ["applied", "unchanged", "ignored"])
def test_it_returns_the_attempt(client: Client, server: Server, outcome: str) -> None:
    server.told["outcome"] = outcome
    attempt = client.update_status(**SUBMITTED)
    assert attempt is not None
    assert (attempt.status, attempt.version, attempt.attempt_code) == ("submitted", 3, "a1")
    assert attempt.completed_at is not None
    assert attempt.completed_at.hour == 9


def test_without_an_attempt_it_returns_none(client: Client, server: Server) -> None:
    server.told = {"outcome": "ignored", "code": "attempt_not_found", "attempt": None}
    assert client.update_status(**SUBMITTED, if_missing="ignore") is None


def test_there_is_a_method_for_each_command(client: Client, server: Server) -> None:
    client.create_attempt(exam_id="7", user_id="42")
    client.update_status(**SUBMITTED)
    client.remove_attempt(exam_id="7", user_id="42")
    client.upsert_course(course_id="phys")
    client.upsert_exam(exam_id="7", course_id="phys", content_id="block-7", exam_name="Mechanics")
    client.upsert_learner(user_id="42", username="ada", email="ada@example.org")
    assert {json.loads(call.content)["type"] for call in server.calls} == set(COMMAND_TYPES)


@pytest.mark.parametrize("code", sorted(set(OutcomeCode) - ONLY_IGNORED))
def test_a_rejection_raises_the_error_of_its_code(client: Client, server: Server, code: OutcomeCode) -> None:
    server.told = {"outcome": "rejected", "code": code, "detail": "no", "attempt": ATTEMPT}
    with pytest.raises(CommandRejectedError, match=r"^no$") as raised:
        client.update_status(**SUBMITTED, command_id="5f0c")
    error = raised.value
    assert type(error).__name__ == "".join(word.title() for word in code.split("_")) + "Error"
    assert (error.reason, error.command_id, error.attempt and error.attempt.version) == (code, "5f0c", 3)


def test_the_errors_are_those_of_the_codes() -> None:
    assert set(REJECTIONS) == set(OutcomeCode) - ONLY_IGNORED
    assert set(REFUSALS) == {"unauthorized", "not_allowed", "rate_limited"}


@pytest.mark.parametrize(("code", "reason"), [("too_late", "too_late"), (None, "rejected")])
def test_an_unknown_rejection_is_one_too(
    client: Client, server: Server, code: str | None, reason: str
) -> None:
    server.told = {"outcome": "rejected", "code": code}
    with pytest.raises(CommandRejectedError, match=reason) as raised:
        client.update_status(**SUBMITTED)
    assert type(raised.value) is CommandRejectedError
    assert raised.value.reason == reason


def test_a_quarantined_command_is_said(client: Client, server: Server) -> None:
    server.told = {"outcome": "quarantined", "code": "id_reused", "detail": "another command has this id"}
    with pytest.raises(CommandQuarantinedError, match="another command has this id") as raised:
        client.update_status(**SUBMITTED)
    assert raised.value.reason == "id_reused"


def test_a_command_without_an_outcome_is_pending(client: Client, server: Server) -> None:
    server.told = {}
    with pytest.raises(OutcomePendingError) as raised:
        client.update_status(**SUBMITTED, command_id="5f0c", wait=1)
    assert raised.value.command_id == "5f0c"


@pytest.mark.parametrize("wait", [0, 61, 1.5, 5.0, True, "5", None])
def test_it_waits_whole_seconds_and_a_minute_at_most(client: Client, server: Server, wait: Any) -> None:
    with pytest.raises(ValueError, match="wait must be a whole number of seconds from 1 to 60"):
        client.update_status(**SUBMITTED, wait=wait)
    assert server.calls == []


def test_a_wrong_argument_is_not_sent(client: Client, server: Server) -> None:
    with pytest.raises(InvalidMessageError, match="exam_id"):
        client.update_status(exam_id="", user_id="42", to_status="submitted")
    with pytest.raises(TypeError, match="colour"):
        client.update_status(**SUBMITTED, colour="red")
    assert server.calls == []


def test_an_id_that_is_no_text_is_refused_by_the_server(client: Client, server: Server) -> None:
    server.refuse(422, "not_cloudevent")
    with pytest.raises(InvalidMessageError):
        client.update_status(**SUBMITTED, command_id="\ud800")
    assert b'"id": "\\ud800"' in server.calls[0].content


@pytest.mark.parametrize("code", ["unauthorized", "not_allowed", "rate_limited"])
def test_a_refused_call_raises_the_error_of_its_code(client: Client, server: Server, code: str) -> None:
    server.refuse(418, code)
    with pytest.raises(REFUSALS[code], match="do that") as raised:
        client.update_status(**SUBMITTED)
    assert (raised.value.status, raised.value.reason, raised.value.detail) == (418, code, "do that")


@pytest.mark.parametrize(("header", "seconds"), [({"Retry-After": "3"}, 3), ({"Retry-After": "soon"}, None)])
def test_who_is_too_fast_is_told_when(
    client: Client, server: Server, header: dict[str, str], seconds: float | None
) -> None:
    server.refuse(429, "rate_limited", **header)
    with pytest.raises(RateLimitedError) as raised:
        client.update_status(**SUBMITTED)
    assert raised.value.retry_after_s == seconds


def test_an_invalid_command_is_an_invalid_message(client: Client, server: Server) -> None:
    server.refuse(422, "invalid_data")
    with pytest.raises(InvalidMessageError, match="do that") as raised:
        client.update_status(**SUBMITTED)
    assert raised.value.reason is QuarantineCode.INVALID_DATA


def test_other_problems_are_errors_of_the_api(client: Client, server: Server) -> None:
    server.refuse(405, "method_not_allowed")
    with pytest.raises(ApiError, match="method_not_allowed: do that") as raised:
        client.update_status(**SUBMITTED)
    assert type(raised.value) is ApiError


@pytest.mark.parametrize("status", [200, 202, 301, 404])
def test_an_answer_that_is_not_ours_is_said(client: Client, server: Server, status: int) -> None:
    server.answer = lambda _: httpx.Response(status, html="<p>Welcome to the gateway")
    with pytest.raises(ApiError, match="check base_url") as raised:
        client.update_status(**SUBMITTED)
    assert raised.value.status == status


def test_a_server_that_cannot_answer_now_is_unavailable(client: Client, server: Server) -> None:
    server.refuse(503, "unavailable")
    with pytest.raises(UnavailableError, match="do that; send the command again with the same id") as raised:
        client.update_status(**SUBMITTED, command_id="5f0c")
    assert raised.value.command_id == "5f0c"


def test_a_server_that_is_away_is_unavailable(client: Client, server: Server) -> None:
    def break_off(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("late", request=request)

    server.answer = break_off
    with pytest.raises(UnavailableError, match="ReadTimeout") as raised:
        client.update_status(**SUBMITTED, command_id="5f0c")
    assert raised.value.command_id == "5f0c"
