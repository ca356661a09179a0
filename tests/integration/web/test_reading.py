"""What the API tells: attempts, commands and timelines."""

import json
from itertools import product
from typing import Any
from uuid import uuid4

import pytest
from starlette.responses import PlainTextResponse

from db import acts, lookups
from db.acts import NewAct, Target
from events.vocabulary import Status
from tests import sample_commands as c
from tests.commandline import CommandLine
from tests.integration.cli.conftest import Record
from tests.integration.cli.conftest import cli as cli
from tests.integration.web.conftest import Api


def codes(page: Any) -> list[str]:
    return [attempt["attempt_code"] for attempt in page["attempts"]]


@pytest.fixture
def submitted(record: Record) -> Record:
    """A learner who has submitted exam A, has started exam B, and has sent one command too many."""
    record.handle(
        c.received(c.create("A", attempt_code="a1", taking_as_proctored=True), "create-a"),
        c.received(c.create("B", attempt_code="b1"), "create-b"),
        c.received(c.update("A", "submitted"), "submit-a"),
        c.received(c.update("A", "started"), "back"),
    )
    return record


# --- an attempt ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("submitted")
def test_an_attempt_is_what_the_command_line_shows(api: Api, cli: CommandLine) -> None:
    answer = api.get("/v1/attempt", code="a1")
    shown = cli("attempts", "show", "--code", "a1", "--json").json
    assert answer.status_code == 200
    assert answer.json() == shown
    assert answer.headers["etag"] == '"2"'
    assert answer.headers["cache-control"] == "no-store"
    assert api.get("/v1/attempt", exam_id="A", user_id="42").json() == shown


@pytest.mark.usefixtures("submitted")
def test_an_attempt_that_did_not_change_is_not_sent_again(api: Api) -> None:
    for seen in ('"2"', 'W/"2"', '"1", "2"'):
        answer = api.get("/v1/attempt", {"If-None-Match": seen}, code="a1")
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"2"')
    assert api.get("/v1/attempt", {"If-None-Match": '"1"'}, code="a1").status_code == 200
    # The attempt of a learner at an exam may be another one by now.
    assert api.get("/v1/attempt", {"If-None-Match": '"2"'}, exam_id="A", user_id="42").status_code == 200


def test_a_removal_changes_the_etag(api: Api, submitted: Record) -> None:
    submitted.handle(c.received(c.remove("A")))
    answer = api.get("/v1/attempt", {"If-None-Match": '"2"'}, code="a1")
    assert answer.status_code == 200
    assert answer.json()["attempt"]["removed_at"] is not None


def test_an_attempt_that_is_not_there(api: Api) -> None:
    answer = api.get("/v1/attempt", code="nobody's")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("query", [{}, {"exam_id": "A"}, {"user_id": "42"}, {"code": ""}, {"code": "x\0"}])
def test_an_attempt_must_be_named(api: Api, query: dict[str, Any]) -> None:
    answer = api.get("/v1/attempt", **query)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_query")


# --- attempts -----------------------------------------------------------------------------------------------


def test_attempts_are_filtered(api: Api, submitted: Record) -> None:
    submitted.handle(c.received(c.remove("B")))
    assert codes(api.get("/v1/attempts").json()) == ["a1"]
    assert codes(api.get("/v1/attempts", removed="true").json()) == ["b1"]
    assert codes(api.get("/v1/attempts", removed="any").json()) == ["a1", "b1"]
    assert codes(api.get("/v1/attempts", removed="any", exam_id="B").json()) == ["b1"]
    assert codes(api.get("/v1/attempts", course_id=c.COURSE, user_id="42", status="submitted").json()) == [
        "a1"
    ]
    assert codes(api.get("/v1/attempts", course_id="other").json()) == []


@pytest.mark.usefixtures("submitted")
def test_pages_follow_each_other(api: Api) -> None:
    first = api.get("/v1/attempts", limit=1).json()
    second = api.get("/v1/attempts", limit=1, cursor=first["next"]).json()
    assert codes(first) + codes(second) == ["a1", "b1"]
    assert second["next"] is None


@pytest.fixture
def several(record: Record) -> list[Any]:
    """Attempts of three learners at three exams in two courses, some of them removed; as one page shows them."""
    record.handle(c.received(c.exam("C", course_id="other"), "exam-C"))
    for user in ("1", "2", "3"):
        record.handle(
            c.received(c.learner(user), f"learner-{user}"),
            *(c.received(c.create(exam, user), f"{exam}{user}") for exam in ("A", "B", "C")),
            c.received(c.update("A", "submitted", user), f"submit-{user}"),
            c.received(c.remove("B", user), f"remove-{user}"),
            c.received(c.create("B", user), f"again-{user}"),
        )
    with record.engine.connect() as connection:
        return list(lookups.attempts(connection, removed=None, limit=100).attempts)


COURSES = {"A": c.COURSE, "B": c.COURSE, "C": "other"}


@pytest.mark.parametrize("course", [None, c.COURSE, "other", "none"])
@pytest.mark.parametrize("removed", [None, True, False])
def test_pages_have_all_that_fits_though_each_looks_at_few(
    record: Record,
    several: list[Any],
    course: str | None,
    removed: bool | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given pages that end after few attempts
    monkeypatch.setattr(lookups, "LOOKED_AT", 4)
    monkeypatch.setattr(lookups, "FEWEST_LOOKED_AT", 1)
    assert len(several) == 12
    for exam, user, status in product(
        (None, "A", "B"), (None, "2"), (None, Status.CREATED, Status.SUBMITTED)
    ):
        wanted: dict[str, Any] = {"course_id": course, "exam_id": exam, "user_id": user, "status": status}
        # When all of them are read
        found: list[Any] = []
        with record.engine.connect() as connection:
            page = lookups.attempts(connection, **wanted, removed=removed, limit=2)
            found += page.attempts
            while page.next is not None:
                page = lookups.attempts(connection, **wanted, removed=removed, after=page.next, limit=2)
                found += page.attempts
        # Then they have every attempt that fits, once and in order
        assert found == [
            one
            for one in several
            if course in (None, COURSES[one["exam_id"]])
            and exam in (None, one["exam_id"])
            and user in (None, one["user_id"])
            and status in (None, one["status"])
            and removed in (None, one["removed_at"] is not None)
        ]


@pytest.mark.parametrize(
    "query", [{"status": "banana"}, {"limit": 0}, {"limit": 501}, {"cursor": "x"}, {"removed": "maybe"}]
)
def test_a_wrong_parameter_is_named(api: Api, query: dict[str, Any]) -> None:
    problem = api.get("/v1/attempts", **query).json()
    assert (problem["status"], problem["code"]) == (400, "invalid_query")
    assert problem["detail"].startswith(f"{next(iter(query))}: ")


# --- commands -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("submitted")
def test_a_command_is_what_the_command_line_shows(api: Api, cli: CommandLine) -> None:
    answer = api.get("/v1/commands", source="/tests", id="back")
    assert answer.json() == cli("commands", "show", "--source", "/tests", "--id", "back", "--json").json
    assert (answer.json()["outcome"], answer.json()["code"]) == ("rejected", "illegal_transition")


def test_a_command_in_quarantine(api: Api, record: Record) -> None:
    record.quarantine(b"{", source="/lms", command_id="broken")
    found = api.get("/v1/commands", source="/lms", id="broken").json()
    assert (found["outcome"], found["code"]) == ("quarantined", "not_json")


def test_a_command_that_nobody_has_seen(api: Api) -> None:
    assert api.get("/v1/commands", source="/lms", id="none").status_code == 404
    assert api.get("/v1/commands", source="/lms").json()["code"] == "invalid_query"


# --- a timeline ---------------------------------------------------------------------------------------------


def test_a_timeline_has_everything_in_order(api: Api, submitted: Record) -> None:
    submitted.quarantine(b"{", source="/tests", command_id="back")
    entries = api.get("/v1/timeline", user_id="42").json()["entries"]
    moments = [entry["recorded_at"] for entry in entries]
    assert moments == sorted(moments)
    told = [(entry["what"], entry.get("outcome") or entry.get("to_status") or "") for entry in entries]
    assert [one for one in told if one[0] == "transition"] == [
        ("transition", "created"),
        ("transition", "created"),
        ("transition", "submitted"),
    ]
    assert [one for one in told if one[0] == "command"].count(("command", "rejected")) == 1
    assert {"command", "quarantined", "attempt", "transition", "effect"} == {what for what, _ in told}
    assert "u42@example.org" not in json.dumps(entries)
    assert "Ada" not in json.dumps(entries)


def test_a_timeline_tells_of_tries_and_mails(api: Api, submitted: Record) -> None:
    submitted.execute(
        "INSERT INTO tries (effect_id, number, started_at, finished_at, result)"
        " SELECT id, 1, now(), now(), 'done' FROM effects WHERE kind = 'send_status_email'"
    )
    entries = api.get("/v1/timeline", user_id="42").json()["entries"]
    assert [entry["what"] for entry in entries if entry["what"] in ("try", "mail")] == ["try", "mail"]


def test_a_timeline_has_messages_that_only_name_the_learner(api: Api, submitted: Record) -> None:
    submitted.quarantine(b"{", user_id="42")
    submitted.quarantine(b"{", user_id="43")
    told = [
        entry for entry in api.get("/v1/timeline", user_id="42").json()["entries"] if "quarantine_id" in entry
    ]
    assert [(one["what"], one["code"], one["id"]) for one in told] == [("quarantined", "not_json", None)]


def test_a_timeline_tells_what_people_did(api: Api, submitted: Record) -> None:
    # Given an act about the learner, one on an effect of theirs and of another, and one about others
    effect_id, other_id = submitted.effect_ids()[0], uuid4()
    targets = [Target(effect_id, "failed", "pending"), Target(other_id, "failed", "pending")]
    abouts: list[dict[str, Any]] = [{"user_id": "42"}, {"targets": targets}, {"user_id": "43"}]
    for about in abouts:
        with submitted.engine.begin() as connection:
            acts.append(
                connection,
                NewAct("ops@host", True, "command line", "host", "retry", {}, 1, reason="why", **about),
            )
    # Then the story has the first two, and of the second the learner's own effect only
    told = [
        entry for entry in api.get("/v1/timeline", user_id="42").json()["entries"] if entry["what"] == "act"
    ]
    assert [(one["actor"], one["action"], one["reason"]) for one in told] == [
        ("ops@host", "retry", "why")
    ] * 2
    assert [one["effects"] for one in told] == [
        [],
        [{"id": str(effect_id), "before": "failed", "after": "pending"}],
    ]


def test_a_timeline_has_deliveries_about_no_attempt(api: Api, submitted: Record) -> None:
    submitted.execute(
        "INSERT INTO effects (id, kind, state, user_id, payload, source, command_id, subscriber) VALUES "
        "(gen_random_uuid(), 'deliver_event', 'pending', '42', '{}', '/x', 'x', 'webhook.acme')"
    )
    entries = api.get("/v1/timeline", user_id="42").json()["entries"]
    [delivery] = [entry for entry in entries if entry.get("subscriber")]
    assert (delivery["kind"], delivery["attempt_code"]) == ("deliver_event", None)


def test_a_timeline_says_once_what_is_no_longer_kept(api: Api, submitted: Record) -> None:
    submitted.execute(
        "INSERT INTO pruned VALUES ('outcomes', '2026-02-01T00:00:00Z'), ('effects', '2999-01-01T00:00:00Z')"
    )
    whole = api.get("/v1/timeline", user_id="42").json()["entries"]
    assert [entry["what"] for entry in whole].count("pruned") == 1
    assert whole[0]["what"] == "pruned"
    assert whole[0]["before"] == {
        "outcomes": "2026-02-01T00:00:00.000000Z",
        "effects": "2999-01-01T00:00:00.000000Z",
    }
    moments = [entry["recorded_at"] for entry in whole]
    assert moments == sorted(moments)
    # And nothing is skipped behind it
    first = api.get("/v1/timeline", user_id="42", limit=1).json()
    rest = api.get("/v1/timeline", user_id="42", cursor=first["next"]).json()
    assert first["entries"] + rest["entries"] == whole
    # And nobody's story has no beginning either
    assert api.get("/v1/timeline", user_id="nobody").json()["entries"] == []


def test_ten_thousand_entries_come_page_by_page(api: Api, submitted: Record) -> None:
    submitted.execute(
        "INSERT INTO tries (effect_id, number, started_at, finished_at, result)"
        " SELECT id, number, now() + number * interval '1 s', now(), 'retry'"
        " FROM (SELECT id FROM effects LIMIT 1) AS one, generate_series(1, 10000) AS number"
    )
    numbers: list[int] = []
    cursor: dict[str, Any] = {}
    while True:
        page = api.get("/v1/timeline", user_id="42", limit=500, **cursor).json()
        numbers += [entry["number"] for entry in page["entries"] if entry["what"] == "try"]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert numbers == list(range(1, 10_001))


@pytest.mark.usefixtures("submitted")
def test_the_pages_of_a_timeline_have_each_entry_once(api: Api) -> None:
    whole = api.get("/v1/timeline", user_id="42").json()["entries"]
    pages: list[Any] = []
    cursor: dict[str, Any] = {}
    while True:
        page = api.get("/v1/timeline", user_id="42", limit=2, **cursor).json()
        pages += page["entries"]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert pages == whole


@pytest.mark.parametrize("cursor", ["x", "bnVsbA==", "W10=", "WyIyMDI2LTAxLTAxIiwgIngiXQ==", "é"])
def test_a_cursor_that_is_none(api: Api, cursor: str) -> None:
    answer = api.get("/v1/timeline", user_id="42", cursor=cursor)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_query")


def test_nobody_has_an_empty_timeline(api: Api) -> None:
    assert api.get("/v1/timeline", user_id="nobody").json() == {"entries": [], "next": None}


# --- the rest -----------------------------------------------------------------------------------------------


def test_what_is_not_there_is_a_problem_too(api: Api) -> None:
    assert api.get("/v2/attempts").json()["code"] == "not_found"
    answer = api.call("DELETE", "/v1/attempts")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/attempts/"), ("POST", "/v1/commands/")])
def test_nobody_is_redirected_with_a_token(api: Api, method: str, path: str) -> None:
    """Behind a proxy with TLS we would redirect to http, and a client might send its token there."""
    answer = api.call(method, path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/", "/console"])
def test_a_browser_is_led_to_the_console(api: Api, path: str) -> None:
    api.console = PlainTextResponse("the console")
    answer = api.get(path)
    assert (answer.status_code, answer.headers["Location"]) == (307, "/console/")
    assert api.get("/console/").text == "the console"


def test_health_needs_no_token(api: Api) -> None:
    assert api.get("/healthz").json() == {"status": "ok"}
    ready = api.get("/readyz")
    assert ready.status_code == 503
    assert ready.json() == {"ready": False, "reasons": ["the broker does not answer"]}
