"""`invigilator lms check`, against an LMS that does everything right and against some that do not."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import pytest

from invigilator.demo.reference import ReferenceLms, Result
from invigilator.demo.reference.http_server import HttpRequest, HttpResponse, HttpServer
from tests.commandline import CommandLine
from worker.errors import ConfigurationError
from worker.findings import Finding, Verdict
from worker.lms.check import Subject, check
from worker.settings import Settings

NAME = "ask for the course's name"
RESETS = ["reset the learner's work", "the same reset again"]
CREDIT = [
    "set a credit status",
    "the same call again",
    "an older call, which comes late",
    "remove the credit status",
    "remove what is not there",
]
LONG = "a call with the longest headers"
STRANGER = "a call without our credentials"


class Careless(HttpServer):
    """Knows no token, and answers every call in the same way."""

    def __init__(self, status: int, document: object = None) -> None:
        super().__init__()
        self.response = HttpResponse(HTTPStatus(status), document)

    def answer(self, request: HttpRequest) -> HttpResponse:
        return self.response


class Shy(ReferenceLms):
    """Answers a stranger in a way of its own."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(token="right")
        self.status = status

    def answer(self, request: HttpRequest) -> HttpResponse:
        response = super().answer(request)
        return HttpResponse(self.status, {}) if response.status == HTTPStatus.UNAUTHORIZED else response


@pytest.fixture
def lms() -> Iterator[ReferenceLms]:
    with ReferenceLms(token="right") as lms:
        yield lms


def findings(lms: HttpServer, token: str | None = "right", **settings: Any) -> list[Finding]:
    return list(check(Settings(_env_file=None, lms_url=lms.url, lms_token=token, **settings), Subject()))


def test_an_lms_that_does_everything_right(lms: ReferenceLms) -> None:
    found = findings(lms)

    assert [one.check for one in found] == [*CREDIT, NAME, *RESETS, LONG, STRANGER]
    assert {one.verdict for one in found} == {Verdict.OK}
    assert lms.credit == {}
    assert lms.counts == {
        Result.APPLIED: 4,
        Result.DUPLICATE: 2,
        Result.LATE: 1,
        Result.ASKED: 2,
        Result.REFUSED: 1,
    }


def test_only_the_services_that_there_are_are_called(lms: ReferenceLms) -> None:
    assert [one.check for one in findings(lms, credit="off")] == [NAME, *RESETS, LONG, STRANGER]
    assert [one.check for one in findings(lms, instructor="off")] == [*CREDIT, NAME, LONG, STRANGER]


def test_a_refusal_is_shown_with_its_reason_and_the_check_goes_on() -> None:
    with Careless(422, {"code": "no_such_learner"}) as lms:
        found = findings(lms)

    assert [one.verdict for one in found if one.check != LONG] == [Verdict.PROBLEM] * 9
    assert found[0].detail == (
        "LMS answered 422 to POST /credit/set-requirement-status (no_such_learner): an effect would fail; "
        "if the LMS does not know the test learner, name one that it knows"
    )


@pytest.mark.parametrize(("token", "advice"), [("wrong", "check INVIGILATOR_LMS_TOKEN")])
def test_without_an_answer_nothing_more_is_asked(lms: ReferenceLms, token: str, advice: str) -> None:
    found = findings(lms, token)
    assert [(one.check, one.verdict) for one in found] == [(CREDIT[0], Verdict.PROBLEM)]
    assert found[0].detail.endswith(advice)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(200, Verdict.PROBLEM), (302, Verdict.PROBLEM), (404, Verdict.PROBLEM), (403, Verdict.NOTE)],
)
def test_a_stranger_must_be_told_that_the_credentials_are_wrong(status: int, verdict: Verdict) -> None:
    with Shy(HTTPStatus(status)) as lms:
        *others, stranger = findings(lms)

    assert {one.verdict for one in others} == {Verdict.OK}
    assert stranger.verdict is verdict
    assert "401" in stranger.detail


class ShortOfMemory(ReferenceLms):
    """Takes headers of 4 KiB, as some gateways do."""

    def answer(self, request: HttpRequest) -> HttpResponse:
        if any(len(value) > 4096 for value in request.headers.values()):
            return HttpResponse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, {})
        return super().answer(request)


def test_an_lms_that_takes_only_short_headers_is_named() -> None:
    with ShortOfMemory(token="right") as lms:
        *others, longest, stranger = findings(lms)

    assert {one.verdict for one in [*others, stranger]} == {Verdict.OK}
    assert (longest.check, longest.verdict) == (LONG, Verdict.NOTE)
    assert "431" in longest.detail
    assert "8 KiB for each header" in longest.detail


def test_that_nobody_signs_in_is_said() -> None:
    with ReferenceLms() as lms:
        assert findings(lms, token=None)[-1].verdict is Verdict.NOTE


def test_without_an_lms_there_is_nothing_to_check() -> None:
    with pytest.raises(ConfigurationError, match="set it to the address of the LMS"):
        list(check(Settings(_env_file=None), Subject()))


def test_the_command_prints_a_line_for_each_check(
    lms: ReferenceLms, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INVIGILATOR_ENV_FILE", "")
    monkeypatch.setenv("INVIGILATOR_LMS_URL", lms.url)
    monkeypatch.setenv("INVIGILATOR_LMS_TOKEN", "right")
    invigilator = CommandLine(monkeypatch, capsys)
    lms.name_course("test-course", "Botany")
    ran = invigilator("lms", "check", "--user", "7", "--course", "test-course", "--json")
    assert ran.status == 0
    assert [line["check"] for line in ran.lines] == [*CREDIT, NAME, *RESETS, LONG, STRANGER]
    assert ran.lines[5]["detail"] == "it is 'Botany'"
    assert {call.body["course_id"] for call in lms.calls} == {"test-course"}

    lms.token = "another"
    ran = invigilator("lms", "check")
    assert ran.status == 1
    assert "INVIGILATOR_LMS_TOKEN" in ran.out
