"""`/v1/effects`."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from db import acts as audit
from invigilator.acts import effects as module
from invigilator.web import effects as web
from invigilator.web.tokens import Caller, Scope, Tokens, digest
from tests import sample_commands as c
from tests.integration.cli.conftest import Record
from tests.integration.web.conftest import Api
from worker.kinds import EffectKind

FAILED = {"filter": {"states": ["failed"]}}


@pytest.fixture
def failed(record: Record) -> list[UUID]:
    """Three failed credits, oldest first: of two causes."""
    for user in ("1", "2", "3"):
        record.handle(
            c.received(c.learner(user)),
            c.received(c.create("A", user)),
            c.received(c.update("A", "submitted", user)),
        )
    owed = list(record.effect_ids(EffectKind.SET_CREDIT_STATUS))
    for effect_id, cause in zip(owed, ("down", "down", "refused"), strict=True):
        record.set_state(effect_id, "failed")
        record.execute(
            "UPDATE effects SET cause = :cause, failed_at = now() WHERE id = :id", cause=cause, id=effect_id
        )
    record.execute(
        "INSERT INTO causes (id, kind, reason) VALUES ('down', 'set_credit_status', 'down'),"
        " ('refused', 'set_credit_status', 'refused')"
    )
    return owed


def _acts(api: Api) -> list[dict[str, Any]]:
    with api.engine.connect() as connection:
        return list(audit.acts(connection))


def _ids(answer: Any) -> list[UUID]:
    return [UUID(one["id"]) for one in answer["effects"]]


def test_pages_of_effects(api: Api, failed: list[UUID]) -> None:
    first = api.get("/v1/effects", states="failed", limit=2).json()
    assert _ids(first) == [failed[2], failed[1]]
    assert first["effects"][0]["label"] == "credit submitted · exam A · learner 3"
    second = api.get("/v1/effects", states="failed", limit=2, cursor=first["next"]).json()
    assert (_ids(second), second["next"]) == ([failed[0]], None)
    assert _ids(api.get("/v1/effects", cause="refused").json()) == [failed[2]]
    assert _ids(api.get("/v1/effects", user_id="1", kinds="set_credit_status").json()) == [failed[0]]


@pytest.mark.parametrize(
    "query",
    [
        {"cursor": str(uuid4())},
        {"states": "lost"},
        {"kinds": "mail"},
        {"cause": "unheard of"},
        {"since": "2026-03-01T00:00:00"},
        {"since": "0"},
        {"until": "yesterday"},
        {"stat": "failed"},
        {"limit": "0"},
    ],
)
def test_wrong_queries(api: Api, record: Record, query: dict[str, str]) -> None:
    answer = api.call("GET", "/v1/effects", params=query)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_query")
    assert "no identifier" not in answer.json()["detail"]


def test_what_is_wrong_in_a_list_is_named_by_the_list(api: Api) -> None:
    problem = api.call("GET", "/v1/effects", params={"kinds": "mail"}).json()
    assert problem["detail"].startswith("kinds: must be one of set_credit_status, ")


def test_causes(api: Api, failed: list[UUID]) -> None:
    found = api.get("/v1/effects/causes").json()["causes"]
    assert [(one["cause"], one["count"], one["state"]) for one in found] == [
        ("down", 2, "failed"),
        ("refused", 1, "failed"),
    ]


def test_acts_in_bulk(api: Api, record: Record, failed: list[UUID]) -> None:
    # Given a count
    body = {"filter": {"cause": "down"}, "reason": "it is back"}
    counted = api.call("POST", "/v1/effects/retry", json={**body, "dry_run": True})
    assert (counted.status_code, counted.json()) == (200, {"would_retry": 2})
    # When they are retried
    done = api.call("POST", "/v1/effects/retry", json=body).json()
    assert (done["retried"], done["refused"], done["next"]) == (2, [], None)
    assert [record.effect(one).state for one in failed] == ["pending", "pending", "failed"]
    # Then the audit says who
    closing, step = _acts(api)
    assert {str(closing["act_id"]), str(step["act_id"])} == {done["act_id"]}
    assert (step["via"], step["actor"], step["is_claimed"], step["reason"]) == (
        "api",
        "local",
        True,
        "it is back",
    )
    assert step["origin"] == "127.0.0.1"
    # And the rest is cancelled by name
    done = api.call("POST", "/v1/effects/cancel", json={"effects": [str(failed[2]), str(uuid4())]}).json()
    assert (done["cancelled"], len(done["refused"])) == (1, 1)


def test_a_call_has_an_end_and_the_next_one_goes_on(
    api: Api, record: Record, failed: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "MAX_EFFECTS", 2)
    # Given an effect that is refused, because a newer one has overtaken it
    record.handle(c.received(c.update("A", "verified", "1")))
    first = api.call("POST", "/v1/effects/retry", json=FAILED).json()
    assert (first["retried"], len(first["refused"]), first["next"]) == (1, 1, str(failed[1]))
    second = api.call("POST", "/v1/effects/retry", json={**FAILED, "after": first["next"]}).json()
    assert (second["retried"], second["refused"], second["next"]) == (1, [], None)
    assert record.effect(failed[2]).state == "pending"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"filter": {}},
        {"filter": {"states": ["done"]}},
        {"filter": {"state": ["failed"]}},
        {"filter": {"cause": "unheard of"}},
        {"filter": {"cause": "unheard of"}, "dry_run": True},
        {"filter": {"cause": "x"}, "effects": [str(uuid4())]},
        {"effects": [str(uuid4())], "dry_run": True},
        {"effects": []},
        {**FAILED, "after": str(uuid4())},
        {**FAILED, "reason": "\x00"},
        {**FAILED, "dry_run": "yes"},
        {"filter": {"since": 0}},
    ],
)
def test_wrong_acts_change_nothing(api: Api, failed: list[UUID], body: dict[str, Any]) -> None:
    answer = api.call("POST", "/v1/effects/retry", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_query")
    assert not [act for act in _acts(api) if act["number"]]


def test_a_form_of_another_site_is_no_act(api: Api, failed: list[UUID]) -> None:
    # Given a page elsewhere that makes a browser on this machine send JSON as plain text
    answer = api.call(
        "POST",
        "/v1/effects/retry",
        content=b'{"filter": {"states": ["failed"]}}',
        headers={"Content-Type": "text/plain"},
    )
    assert answer.status_code == 400
    assert _acts(api) == []


def test_a_token_needs_the_scope(api: Api, failed: list[UUID]) -> None:
    # Given a token that may look, and one that may act
    looker = Caller("looker", frozenset({Scope.READ}), None)
    operator = Caller("on call", frozenset({Scope.OPERATE}), None)
    api.tokens = Tokens({digest("a"): looker, digest("b"): operator})
    for path, body in (
        ("/v1/effects/retry", FAILED),
        ("/v1/effects/cancel", FAILED),
        ("/v1/effects/pause", {"kind": "set_credit_status"}),
        ("/v1/effects/resume", {"kind": "set_credit_status"}),
    ):
        answer = api.call("POST", path, json=body, headers={"Authorization": "Bearer a"})
        assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed")
        assert api.call("POST", path, json=body, headers={"Authorization": "Bearer b"}).status_code == 200
    # Then what is done has the token's name
    assert {(act["actor"], act["is_claimed"]) for act in _acts(api)} == {("on call", False)}
    assert [act["action"] for act in _acts(api)][:2] == ["resume", "pause"]


def test_pausing(api: Api, record: Record) -> None:
    kind = {"kind": "set_credit_status"}
    paused = api.call(
        "POST", "/v1/effects/pause", json={**kind, "until": "2099-01-01T00:00:00Z", "reason": "x"}
    )
    assert paused.json()["ends_at"] == "2099-01-01T00:00:00Z"
    assert api.call("POST", "/v1/effects/resume", json=kind).json()["reason"] == "x"
    again = api.call("POST", "/v1/effects/resume", json=kind)
    assert (again.status_code, again.json()["code"]) == (404, "not_found")
    past = api.call("POST", "/v1/effects/pause", json={**kind, "until": "2020-01-01T00:00:00Z"})
    assert (past.status_code, past.json()["code"]) == (400, "invalid_query")


def test_a_blank_text_is_refused(api: Api, failed: list[UUID]) -> None:
    asked = api.call("GET", "/v1/effects?error=%20")
    assert (asked.status_code, asked.json()["code"]) == (400, "invalid_query")
    act = api.call("POST", "/v1/effects/cancel", json={"filter": {"error": " "}, "reason": "x"})
    assert act.status_code == 400
    assert "blank" in act.text


def test_an_offset_that_postgresql_does_not_take(api: Api, record: Record) -> None:
    far = {"kind": "set_credit_status", "until": "2126-08-14T12:00:00-23:42"}
    assert api.call("POST", "/v1/effects/pause", json=far).json()["ends_at"] == "2126-08-15T11:42:00Z"
    assert api.call("GET", "/v1/effects?since=2026-08-14T12:00:00%2B23:42").status_code == 200
    beyond = api.call("GET", "/v1/effects?since=9999-12-31T23:59:59-23:00")
    assert (beyond.status_code, beyond.json()["code"]) == (400, "invalid_query")


def test_a_row_that_somebody_holds(
    api: Api, record: Record, failed: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invigilator.acts.transactions.LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(module, "STEP_EFFECTS", 1)
    with record.engine.begin() as connection:
        connection.execute(text("SELECT FROM effects WHERE id = :id FOR UPDATE"), {"id": failed[1]})
        answer = api.call("POST", "/v1/effects/retry", json=FAILED)
    # Then the caller is told, and the act has ended after what it has done
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert _acts(api)[0]["details"] == {"expected": 3, "refused": 0, "state": "failed"}
