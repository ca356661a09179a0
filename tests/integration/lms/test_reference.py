"""The reference LMS and the mail sink, as a client in any language would meet them."""

import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from invigilator.demo.reference import MailSink, ReferenceLms, Result
from worker.errors import Transient
from worker.lms.ports import Deadline, Mail
from worker.lms.smtp import SmtpMailer

SET = "/credit/set-requirement-status"
BODY = {
    "user_id": "42",
    "course_id": "c",
    "req_namespace": "proctored_exam",
    "req_name": "b",
    "status": "failed",
}
HEADERS = {"Idempotency-Key": "effect-1", "Invigilator-Sequence": "1"}


@pytest.fixture
def lms() -> Iterator[ReferenceLms]:
    with ReferenceLms() as lms:
        yield lms


@pytest.fixture
def client(lms: ReferenceLms) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=lms.url, trust_env=False, timeout=30) as client:
        yield client


def test_a_repeated_key_is_answered_as_the_first_time(lms: ReferenceLms, client: httpx.Client) -> None:
    answers = [client.post(SET, json=BODY, headers=HEADERS) for _ in range(2)]

    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {})] * 2
    assert [call.result for call in lms.calls] == [Result.APPLIED, Result.DUPLICATE]


def test_what_comes_late_is_answered_as_done(lms: ReferenceLms, client: httpx.Client) -> None:
    newer = {"Idempotency-Key": "effect-2", "Invigilator-Sequence": "2"}
    client.post(SET, json=BODY | {"status": "satisfied"}, headers=newer)

    answer = client.post(SET, json=BODY, headers=HEADERS)

    assert answer.status_code == 200
    assert list(lms.credit.values()) == ["satisfied"]
    assert lms.counts[Result.LATE] == 1


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        (SET, {}, BODY, 400),
        (SET, HEADERS | {"Invigilator-Sequence": "one"}, BODY, 400),
        (SET, HEADERS, {}, 400),
        (SET, HEADERS, "not an object", 400),
        ("/credit/set", HEADERS, BODY, 404),
    ],
)
def test_what_is_not_in_the_contract_is_refused(
    lms: ReferenceLms, client: httpx.Client, path: str, headers: dict[str, str], body: Any, status: int
) -> None:
    assert client.post(path, json=body, headers=headers).status_code == status
    assert lms.counts == {Result.REFUSED: 1}
    assert lms.credit == {}


def test_half_a_call_is_not_heard(lms: ReferenceLms) -> None:
    # Given a caller that is killed in the middle of its call
    address = urlsplit(lms.url)
    assert address.port is not None
    with socket.create_connection(("127.0.0.1", address.port)) as connection:
        connection.sendall(f"POST {SET} HTTP/1.1\r\nContent-Length: 100\r\n\r\n{{".encode())
        connection.shutdown(socket.SHUT_WR)
        # Then the server hangs up without an answer, and has counted nothing
        assert connection.recv(1) == b""
    assert lms.counts == {}


def test_it_listens_on_the_same_port_when_it_is_started_again(lms: ReferenceLms) -> None:
    url = lms.url
    lms.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/credit/state", trust_env=False)
    lms.start()
    assert httpx.get(f"{url}/credit/state", trust_env=False).status_code == 404
    assert lms.url == url


def test_a_course_has_the_name_it_was_given(lms: ReferenceLms, client: httpx.Client) -> None:
    lms.name_course("c", "Maths")
    query = {"user_id": "42", "course_id": "c"}

    assert client.get("/credit/state", params=query).json() == {"course_name": "Maths"}
    assert client.get("/credit/state", params=query | {"course_id": "other"}).status_code == 404
    assert client.get("/credit/state").status_code == 404


def test_the_token_is_asked_for() -> None:
    with ReferenceLms(token="right") as lms, httpx.Client(base_url=lms.url, trust_env=False) as client:
        wrong = HEADERS | {"Authorization": "Bearer wrong"}
        right = HEADERS | {"Authorization": "Bearer right"}

        assert client.post(SET, json=BODY, headers=wrong).status_code == 401
        assert client.get("/credit/state").status_code == 401
        assert client.post(SET, json=BODY, headers=right).status_code == 200


def test_a_fraction_of_the_calls_fails_the_same_way_with_the_same_seed() -> None:
    def statuses(seed: int) -> list[int]:
        with ReferenceLms(fail_fraction=0.5, seed=seed) as lms:
            with httpx.Client(base_url=lms.url, trust_env=False, timeout=30) as client:
                answers = [client.post(SET, json=BODY, headers=HEADERS).status_code for _ in range(20)]
            assert lms.counts[Result.FAILED] == answers.count(503)
            return answers

    first = statuses(1)
    assert set(first) == {200, 503}
    assert statuses(1) == first
    assert statuses(2) != first


def test_a_failed_call_changes_nothing_and_failing_can_be_switched_off(
    lms: ReferenceLms, client: httpx.Client
) -> None:
    lms.fail_fraction = 1
    assert client.post(SET, json=BODY, headers=HEADERS).status_code == 503
    assert lms.credit == {}

    lms.fail_fraction = 0
    assert client.post(SET, json=BODY, headers=HEADERS).status_code == 200
    assert lms.counts == {Result.FAILED: 1, Result.APPLIED: 1}


def test_the_sink_rejects_a_fraction_and_forgets_it() -> None:
    mail = Mail(uuid4(), "ada@example.org", "Algebra", "Hello", "<p>Hello")
    with MailSink(reject_fraction=1) as sink:
        mailer = SmtpMailer(sink.url, "exams@localhost")
        with pytest.raises(Transient, match="451"):
            mailer.send(mail, Deadline.after(30))
        assert (sink.mails, sink.rejected) == ([], 1)

        sink.reject_fraction = 0
        mailer.send(mail, Deadline.after(30))
        mailer.send(mail, Deadline.after(30))
        assert (len(sink.mails), sink.duplicates) == (2, 1)


def test_nothing_is_left_behind_even_with_connections_open() -> None:
    before = set(threading.enumerate())
    lms, sink = ReferenceLms(latency_s=60), MailSink()
    lms.start()
    sink.start()
    with httpx.Client(base_url=lms.url, trust_env=False) as client:
        lms.latency_s = 0
        client.get("/credit/state")  # and keeps the connection

        lms.stop()
        sink.stop()

        assert set(threading.enumerate()) <= before
    lms.stop()
    sink.stop()
