"""Commands in over HTTP, and what comes back."""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy.exc import OperationalError

from invigilator.web.bodies import MAX_CALL_BYTES
from tests import sample_commands as c
from tests.integration.cli.conftest import Record
from tests.integration.web.conftest import Api, connections
from tests.spans import named, recording
from tests.unit.events.messages import TRACE

SOURCE = "/invigilator/api"
WAIT = {"Prefer": "wait=60"}
MANY = 200


def event(data: Any, command_id: str | None = None, **other: Any) -> dict[str, Any]:
    named = {} if command_id is None else {"id": command_id}
    return {"type": data.type, "data": data.model_dump(mode="json", exclude_unset=True), **named, **other}


CREATE = event(c.create("A", attempt_code="a1"), "create")
SUBMIT = event(c.update("A", "submitted", attempt_code="a1"), "submit")


def post(api: Api, body: Any, **headers: str) -> httpx.Response:
    return api.call("POST", "/v1/commands", json=body, headers=headers)


def in_parallel(api: Api, calls: Callable[[httpx.AsyncClient], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        async with api.client() as client:
            return await calls(client)

    return asyncio.run(run())


# --- without waiting ----------------------------------------------------------------------------------------


def test_a_command_goes_to_the_broker(api: Api) -> None:
    answer = post(api, SUBMIT)
    assert (answer.status_code, answer.json()) == (202, {"commands": [{"source": SOURCE, "id": "submit"}]})
    [published] = api.sink.published
    assert (published.source, published.id, published.data) == (
        SOURCE,
        "submit",
        c.update("A", "submitted", attempt_code="a1"),
    )
    assert published.time is not None


def test_the_trace_of_a_call_is_that_of_its_commands(api: Api) -> None:
    # When one of two commands names a trace of its own
    other = TRACE.replace("b7ad6b7169203331", "00f067aa0ba902b7")
    post(api, [CREATE, {**SUBMIT, "traceparent": other}], traceparent=TRACE)
    assert [one.traceparent for one in api.sink.published] == [TRACE, other]


def test_a_call_has_a_span_between_the_callers_trace_and_the_commands(api: Api) -> None:
    # When a call comes with a trace, one without, one is refused, and the broker is away
    with recording() as exporter:
        post(api, [CREATE, SUBMIT], traceparent=TRACE)
        post(api, SUBMIT)
        post(api, {"type": "nonsense"}, traceparent=TRACE)
        api.sink.away = True
        post(api, SUBMIT, traceparent=TRACE)
        spans = named(exporter, "POST /v1/commands")
    # Then each has a span, and only what we could not do has failed
    statuses = [dict(one.attributes or {})["http.response.status_code"] for one in spans]
    assert statuses == [202, 202, 422, 503]
    assert {one.kind for one in spans} == {SpanKind.SERVER}
    assert [one.status.status_code is StatusCode.ERROR for one in spans] == [False, False, False, True]
    # And the commands are below it: in the trace of the caller, or in one that the call begins
    first, alone = (one.get_span_context() for one in spans[:2])
    assert first is not None
    assert alone is not None
    assert f"{first.trace_id:032x}" == TRACE.split("-")[1] != f"{alone.trace_id:032x}"
    below = [f"00-{one.trace_id:032x}-{one.span_id:016x}" for one in (first, first, alone)]
    assert [(one.traceparent or "")[:-3] for one in api.sink.published] == below


def test_several_go_in_their_order_with_ids_of_their_own(api: Api) -> None:
    answer = post(api, [event(c.create("A")), event(c.create("B"))])
    ids = [one["id"] for one in answer.json()["commands"]]
    assert [one.id for one in api.sink.published] == ids
    assert len(set(ids)) == 2


@pytest.mark.parametrize(
    ("bad", "status", "code"),
    [
        ({"type": "exam.attempt.create.v2", "data": {}}, 422, "unknown_type"),
        ({"type": "exam.attempt.create.v1", "data": {"user_id": "42"}}, 422, "invalid_data"),
        ({"data": {}}, 422, "not_cloudevent"),
        (7, 422, "not_cloudevent"),
        ({**CREATE, "source": "/somebody/else"}, 403, "not_allowed"),
        ({**CREATE, "extra": "x" * 65_536}, 413, "too_large"),
    ],
)
def test_one_bad_command_stops_all(api: Api, bad: Any, status: int, code: str) -> None:
    answer = post(api, [CREATE, bad])
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["index"]) == (status, code, 1)
    assert api.sink.published == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "not_json"),
        (b'{"id": "1", "id": "2"}', 400, "not_json"),
        (b"[" * 100_000, 400, "not_json"),
        (b"[]", 422, "not_cloudevent"),
        (json.dumps([CREATE] * 101).encode(), 422, "not_cloudevent"),
        (b" " * (MAX_CALL_BYTES + 1), 413, "too_large"),
    ],
)
def test_a_body_that_is_none(api: Api, body: bytes, status: int, code: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = api.call("POST", "/v1/commands", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "index" not in answer.json()


@pytest.mark.no_cover  # deep calls are slow to trace, and others cover the same code
def test_depth_is_refused_whatever_notices_it(api: Api) -> None:
    headers = {"Content-Type": "application/json"}
    bodies = [b"[" * depth + b"]" * depth for depth in range(700, 1100, 7)]
    statuses = {
        api.call("POST", "/v1/commands", content=body, headers=headers).status_code for body in bodies
    }
    assert statuses == {400, 422}


@pytest.mark.parametrize("media_type", ["text/plain", "application/xml", ""])
def test_a_media_type_that_is_none(api: Api, media_type: str) -> None:
    headers = {"Content-Type": media_type}
    answer = api.call("POST", "/v1/commands", content=json.dumps(CREATE).encode(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("charset", ["utf-16", "latin-1", "none"])
def test_a_charset_that_is_not_read(api: Api, charset: str) -> None:
    headers = {"Content-Type": f"application/json; charset={charset}"}
    answer = api.call("POST", "/v1/commands", content=json.dumps(CREATE).encode(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert answer.json()["detail"].startswith("content type: the charset must be utf-8; ")
    assert api.sink.published == []


@pytest.mark.parametrize("charset", ["utf-8", '"UTF-8"', "utf8", "us-ascii"])
def test_a_charset_that_is_read(api: Api, charset: str) -> None:
    headers = {"Content-Type": f"Application/JSON; charset={charset}"}
    answer = api.call("POST", "/v1/commands", content=json.dumps(CREATE).encode(), headers=headers)
    assert answer.status_code == 202


def test_what_is_filled_in_counts(api: Api) -> None:
    # Given a command that is as long as it may be without an id
    padding = "x" * 64_000
    named = event(c.update("A", padding))
    named["data"]["to_status"] += "y" * (65_536 - len(json.dumps(named, separators=(",", ":"))))
    # When its id is filled in
    answer = post(api, named)
    # Then nobody is sent what would be refused
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert api.sink.published == []


def test_a_broker_that_is_away(api: Api) -> None:
    api.sink.away = True
    answer = post(api, [event(c.create("A"))])
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "5"
    [command] = problem["commands"]
    assert command.keys() == {"source", "id"}


# --- waiting ------------------------------------------------------------------------------------------------


def test_whoever_waits_gets_the_outcome_and_the_attempt(api: Api) -> None:
    answer = post(api, [CREATE, SUBMIT], **WAIT)
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=60"
    created, submitted = answer.json()["commands"]
    assert (created["outcome"], created["code"], created["detail"]) == ("applied", None, None)
    assert submitted["attempt"]["status"] == "submitted"
    assert submitted["attempt"]["version"] == 2


def test_a_refusal_has_its_code(api: Api) -> None:
    [refused] = post(api, event(c.update("A", "submitted")), **WAIT).json()["commands"]
    assert (refused["outcome"], refused["code"], refused["attempt"]) == (
        "rejected",
        "attempt_not_found",
        None,
    )


def test_the_same_command_twice_has_one_outcome(api: Api) -> None:
    first, second = post(api, CREATE, **WAIT), post(api, CREATE, **WAIT)
    assert first.json() == second.json()
    assert (first.status_code, second.status_code) == (200, 200)


def test_another_command_with_the_same_id_is_quarantined(api: Api) -> None:
    post(api, CREATE, **WAIT)
    [reused] = post(api, {**SUBMIT, "id": "create"}, **WAIT).json()["commands"]
    assert (reused["outcome"], reused["code"]) == ("quarantined", "id_reused")


def test_an_old_message_in_quarantine_is_not_the_answer(api: Api, record: Record) -> None:
    record.quarantine(b"{", source=SOURCE, command_id="create")
    [created] = post(api, CREATE, **WAIT).json()["commands"]
    assert created["outcome"] == "applied"


def test_a_command_that_takes_longer(api: Api) -> None:
    # Given a `consume` that handles only what is sent before
    post(api, CREATE)
    api.sink.consumes = False
    # When one waits for both
    answer = post(api, [CREATE, SUBMIT], Prefer="wait=1")
    # Then one has an outcome
    assert answer.status_code == 202
    done, waiting = answer.json()["commands"]
    assert done["outcome"] == "applied"
    assert waiting == {"source": SOURCE, "id": "submit"}


@pytest.mark.parametrize("preference", ["wait=0", "respond-async", "wait=-1", "wait=x", "await=5"])
def test_a_preference_that_cannot_be_read_is_ignored(api: Api, preference: str) -> None:
    answer = post(api, CREATE, Prefer=preference)
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers


def test_a_longer_wait_is_cut(api: Api) -> None:
    assert post(api, CREATE, Prefer='respond-async, wait="600"').headers["preference-applied"] == "wait=60"


def test_many_wait_without_threads_and_connections(api: Api, record: Record) -> None:
    # Given a `consume` that is slow
    api.sink.consumes = False

    async def calls(client: httpx.AsyncClient) -> tuple[int, int, list[httpx.Response]]:
        # When many wait
        waiting = [
            asyncio.ensure_future(
                client.post("/v1/commands", json=event(c.create("A"), f"c{n}"), headers=WAIT)
            )
            for n in range(MANY)
        ]
        while len(api.sink.published) < MANY:
            await asyncio.sleep(0.01)
        idle = asyncio.ensure_future(client.get("/v1/attempts"))
        await idle
        threads, sessions = threading.active_count(), connections(record)
        # And a batch handles all of their commands
        await asyncio.to_thread(handle_all, api)
        return threads, sessions, await asyncio.gather(*waiting)

    with api.looking_out():
        threads, sessions, answers = in_parallel(api, calls)
    # Then the notification of the commit has woken everybody: nothing was polled
    assert [answer.status_code for answer in answers] == [200] * MANY
    assert sum(answer.json()["commands"][0]["outcome"] == "applied" for answer in answers) == 1
    # And they took no more than the pool of threads that reads
    assert threads < MANY / 2
    assert sessions < MANY / 2


def handle_all(api: Api) -> None:
    for command in list(api.sink.published):
        api.sink.consume(command)


def test_a_database_that_goes_away_does_not_hide_the_ids(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a database that goes away when the broker has the command
    def fail(*_: object) -> None:
        raise OperationalError("", None, Exception())

    monkeypatch.setattr(api.outcomes, "look", fail)
    # When one waits for a command without an id
    answer = post(api, event(c.create("A")), **WAIT)
    # Then it is told which one to ask for later
    assert answer.status_code == 202
    assert answer.json()["commands"] == [{"source": SOURCE, "id": api.sink.published[0].id}]


def test_who_waits_goes_on_when_the_process_stops(api: Api) -> None:
    api.sink.consumes = False

    async def calls(client: httpx.AsyncClient) -> httpx.Response:
        waiting = asyncio.ensure_future(client.post("/v1/commands", json=CREATE, headers=WAIT))
        while not api.sink.published:
            await asyncio.sleep(0.01)
        api.outcomes.close()
        return await waiting

    assert in_parallel(api, calls).status_code == 202
