"""docs/openapi-lms.yaml is valid, and the worker's calls and the reference LMS's answers follow it."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qsl, unquote
from uuid import UUID

import pytest
from openapi_core import OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.testing import MockRequest, MockResponse

from invigilator.demo.reference import ReferenceLms
from invigilator.demo.reference.http_server import HttpRequest, HttpResponse
from tests.unit.events.messages import TRACE
from worker.errors import ServiceError
from worker.lms.check import LONGEST
from worker.lms.credentials import BearerToken
from worker.lms.http import HttpLms
from worker.lms.ports import CallKey, CreditRequirement, Deadline, Origin

DOCUMENT = OpenAPI.from_file_path(str(Path(__file__).parents[3] / "docs" / "openapi-lms.yaml"))
KEY = CallKey(UUID(int=7), 1_790_000_000_000_000, Origin("/lms/a b", "é", "code 1", TRACE))
REQUIREMENT = CreditRequirement("42", "course-v1:Org+C+1", "block-v1:Org+C+1+b")


class Recording(ReferenceLms):
    """Keeps every call with its answer."""

    def __init__(self) -> None:
        super().__init__(token="right")
        self.exchanges: list[tuple[HttpRequest, HttpResponse]] = []

    def answer(self, request: HttpRequest) -> HttpResponse:
        response = super().answer(request)
        self.exchanges.append((request, response))
        return response


@pytest.fixture
def lms() -> Iterator[Recording]:
    with Recording() as lms:
        yield lms


def make_every_call(lms: Recording, token: str = "right") -> None:
    with closing(HttpLms(lms.url, BearerToken(token))) as client:
        deadline = Deadline.after(30)
        calls: tuple[Callable[[], object], ...] = (
            lambda: client.set_status(REQUIREMENT, "satisfied", KEY, deadline),
            lambda: client.remove(REQUIREMENT, CallKey(UUID(int=8), 2), deadline),
            lambda: client.course_name("42", "course-v1:Org+C+1", KEY.origin, deadline),
            lambda: client.delete_student_attempt("ada", "c", "b", None, KEY, deadline),
        )
        for call in calls:
            try:
                call()
            except ServiceError:
                assert token != "right" or lms.fail_fraction


def judge(request: HttpRequest, response: HttpResponse) -> None:
    asked = as_document_sees_it(request)
    DOCUMENT.validate_request(asked)
    answered = MockResponse(
        json.dumps(response.document).encode(), status_code=response.status, content_type="application/json"
    )
    DOCUMENT.validate_response(asked, answered)


def as_document_sees_it(request: HttpRequest) -> MockRequest:
    return MockRequest(
        "http://127.0.0.1:8000",
        request.method.lower(),
        request.path,
        args=dict(parse_qsl(request.query)),
        headers=dict(request.headers.items()),
        data=request.body or None,
        content_type="application/json",
    )


def test_the_calls_and_the_answers_follow_the_document(lms: Recording) -> None:
    make_every_call(lms)
    lms.name_course("course-v1:Org+C+1", "Botany")
    make_every_call(lms)
    make_every_call(lms, token="wrong")
    lms.fail_fraction = 1
    make_every_call(lms)

    assert {response.status for _, response in lms.exchanges} == {200, 401, 404, 503}
    for request, response in lms.exchanges:
        judge(request, response)


def test_the_longest_headers_arrive_and_follow_the_document(lms: Recording) -> None:
    with closing(HttpLms(lms.url, BearerToken("right"))) as client:
        client.set_status(REQUIREMENT, "failed", CallKey(UUID(int=9), 3, LONGEST), Deadline.after(30))
    [(request, response)] = lms.exchanges
    source, command_id = request.headers["Invigilator-Command"].split()
    assert (
        Origin(unquote(source), unquote(command_id), unquote(request.headers["Invigilator-Attempt"]))
        == LONGEST
    )
    assert response.status == 200
    judge(request, response)


def test_every_call_of_the_document_is_made(lms: Recording) -> None:
    make_every_call(lms)
    made = {(request.path, request.method.lower()) for request, _ in lms.exchanges}
    paths = DOCUMENT.spec / "paths"
    assert made == {(path, method) for path, item in paths.items() for method, _ in item.items()}


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"status": "banana"}, {}),
        ({"status": "failed", "more": "x"}, {}),
        ({}, {}),
        ({"status": "failed", "req_name": ""}, {}),
        ({"status": "failed"}, {"Idempotency-Key": "no uuid"}),
        ({"status": "failed"}, {"Invigilator-Sequence": "soon"}),
        ({"status": "failed"}, {"traceparent": "00-1-2-01"}),
    ],
)
def test_what_the_worker_never_sends_does_not_follow_it(
    body: dict[str, str], headers: dict[str, str]
) -> None:
    DOCUMENT.validate_request(change({"status": "failed"}, {}))
    with pytest.raises(OpenAPIError):
        DOCUMENT.validate_request(change(body, headers))


def change(body: dict[str, str], headers: dict[str, str]) -> MockRequest:
    requirement = {"user_id": "42", "course_id": "c", "req_namespace": "proctored_exam", "req_name": "b"}
    key = {"Idempotency-Key": str(UUID(int=1)), "Invigilator-Sequence": "1", "Authorization": "Bearer t"}
    return MockRequest(
        "http://127.0.0.1:8000",
        "post",
        "/credit/set-requirement-status",
        headers=key | headers,
        data=json.dumps(requirement | body).encode(),
        content_type="application/json",
    )
