"""Acting in the console: the count, the reason, the row in the audit, and what changes."""

import re
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from db import acts, subscribers
from invigilator.acts.actor import Role
from tests import sample_commands as c
from tests.integration.cli.conftest import Record
from tests.unit.web.console.visiting import behind_proxy
from worker.kinds import EffectKind

HIDDEN = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)">')
NUMBER = 3


@pytest.fixture
def failed(record: Record) -> Record:
    """Three learners have submitted exam A, and their credit has failed."""
    for number in range(NUMBER):
        user_id = f"u{number}"
        record.handle(
            c.received(c.learner(user_id), f"l{number}"),
            c.received(c.create("A", user_id), f"c{number}"),
            c.received(c.update("A", "submitted", user_id), f"s{number}"),
        )
    for effect_id in record.effect_ids(EffectKind.SET_CREDIT_STATUS):
        record.set_state(effect_id, "failed")
    return record


@pytest.fixture
def operator(failed: Record) -> TestClient:
    return behind_proxy(failed.engine, Role.OPERATOR)


def audit(record: Record) -> list[dict[str, Any]]:
    """Oldest first."""
    with record.engine.connect() as connection:
        assert acts.verify(connection).holds
        return list(acts.acts(connection))[::-1]


def states(record: Record) -> list[str]:
    return [record.effect(one).state for one in record.effect_ids(EffectKind.SET_CREDIT_STATUS)]


def asked(browser: TestClient, path: str) -> dict[str, Any]:
    """What the form of a page sends when nothing is filled in. Fields of one name are a list."""
    page = browser.get(path)
    assert page.status_code == 200, page.text
    form = page.text.partition('class="ask"')[2]
    fields: dict[str, Any] = {}
    for name, value in HIDDEN.findall(form):
        fields.setdefault(name, []).append(value.replace("&#34;", '"').replace("&amp;", "&"))
    return fields


def until_over(browser: TestClient, place: str) -> str:
    """Look at the progress of an act in bulk until it has ended."""
    while 'hx-trigger="load delay:1s"' in (page := browser.get(place).text):
        pass
    return page


def test_who_acts_on_all_that_match_sees_why_they_failed_and_which_come_too_late(
    failed: Record, operator: TestClient
) -> None:
    # Given failed credits of one cause, and a failed mail with a newer one that was sent
    failed.execute("INSERT INTO causes (id, kind, reason) VALUES ('c1', 'set_credit_status', 'answered 503')")
    failed.execute("UPDATE effects SET cause = 'c1' WHERE state = 'failed'")
    failed.handle(
        c.received(c.create("B", "u0", taking_as_proctored=True), "create-B"),
        c.received(c.update("B", "submitted", "u0"), "submit-B"),
    )
    [mail] = failed.effect_ids(EffectKind.SEND_STATUS_EMAIL)
    failed.set_state(mail, "failed")
    failed.handle(c.received(c.update("B", "verified", "u0"), "verify-B"))
    failed.set_state(failed.effect_ids(EffectKind.SEND_STATUS_EMAIL)[-1], "done")
    # When an operator is asked, of all and of the mail
    page = operator.get("/console/acts/retry?state=failed").text
    named = operator.get(f"/console/acts/retry?id={mail}").text
    # Then the page tells how many of which cause, and warns
    assert re.search(r"answered 503.*set_credit_status.*>3<", page, re.DOTALL)
    for one in (page, named):
        assert "1 of them would come too late" in one
    assert "too late" not in operator.get("/console/acts/cancel?state=failed").text


@pytest.mark.parametrize("wanted", ["cause=unheard-of", "kind=mail", "state=lost"])
def test_a_filter_that_names_what_is_not_there_is_refused(operator: TestClient, wanted: str) -> None:
    for page in ("effects", "acts/retry"):
        assert operator.get(f"/console/{page}?{wanted}").status_code == 400


def test_one_effect_is_retried_with_a_reason(failed: Record, operator: TestClient) -> None:
    effect_id = failed.effect_ids(EffectKind.SET_CREDIT_STATUS)[0]
    fields = asked(operator, f"/console/acts/retry?id={effect_id}")
    answer = operator.post("/console/acts/retry", data={**fields, "reason": "the service is back"})
    assert "1 effect of 1 is to be tried again." in answer.text
    assert states(failed) == ["pending", "failed", "failed"]
    [act] = audit(failed)
    assert (act["actor"], act["via"], act["origin"], act["is_claimed"]) == (
        "ada",
        "console",
        "10.1.2.3",
        False,
    )
    assert (act["action"], act["number"], act["reason"]) == ("retry", 1, "the service is back")


def test_what_cannot_be_done_is_said_of_each(failed: Record, operator: TestClient) -> None:
    first, second, _ = failed.effect_ids(EffectKind.SET_CREDIT_STATUS)
    failed.set_state(second, "done")
    fields = asked(operator, f"/console/acts/cancel?id={first}&id={second}&selected=1")
    page = operator.post("/console/acts/cancel", data={**fields, "reason": "no"}).text
    assert "1 effect of 2 is cancelled." in page
    assert f'{second}</bdi>: <span dir="auto">is done' in page


def test_all_that_match_are_retried_in_steps_with_progress(failed: Record, operator: TestClient) -> None:
    place = "/console/acts/retry?kind=set_credit_status"
    assert f"Retry {NUMBER} effects that match" in operator.get(place).text
    answer = operator.post("/console/acts/retry", data={**asked(operator, place), "reason": "mended"})
    assert answer.status_code == 303, answer.text
    page = until_over(operator, answer.headers["location"])
    assert f"{NUMBER} of {NUMBER} are to be tried again." in page
    assert states(failed) == ["pending"] * NUMBER
    # And the page says what became of them, why it was done, and how to go on
    assert f'{NUMBER} <span class="state pending">' in page
    assert "mended" in page
    assert "kind <bdi>set_credit_status</bdi>, state <bdi>failed</bdi>" in page
    link = re.search(r'href="(/console/act\?id=[^"]*)">The effects of this act', page)
    assert link is not None
    effects = operator.get(link[1]).text
    assert all(str(one) in effects for one in failed.effect_ids(EffectKind.SET_CREDIT_STATUS))
    assert re.search(r'data-label="Before"><span class="state failed">', effects)
    assert re.search(r'data-label="Now"><span class="state pending">', effects)
    rows = audit(failed)
    assert len({row["act_id"] for row in rows}) == 1
    assert [(row["number"], row["closing"]) for row in rows] == [(NUMBER, False), (NUMBER, True)]
    assert {row["reason"] for row in rows} == {"mended"}
    # In the audit, the last row adds up the other
    rows_shown = re.findall(r'data-label="How many">(.*?)</td>', operator.get("/console/audit").text)
    assert [re.sub("<[^>]*>", "", one) for one in rows_shown] == [f"{NUMBER} in total, finished", f"{NUMBER}"]


def test_no_more_are_changed_than_the_person_was_told_of(failed: Record, operator: TestClient) -> None:
    fields = asked(operator, "/console/acts/cancel?state=failed")
    fields["expected"] = ["2"]
    answer = operator.post("/console/acts/cancel", data={**fields, "reason": "x"})
    until_over(operator, answer.headers["location"])
    assert states(failed) == ["cancelled", "cancelled", "failed"]


def test_an_act_in_bulk_can_be_stopped(failed: Record, operator: TestClient) -> None:
    token = asked(operator, "/console/acts/retry?state=failed")["csrf"]
    with failed.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO bulk_acts (id, action, filter, actor, expected, state)"
                " VALUES ('00000000-0000-4000-8000-000000000001', 'retry', '{}', 'eve', 9, 'running')"
            )
        )
    place = "/console/bulk?id=00000000-0000-4000-8000-000000000001"
    assert "Stop" in operator.get(place).text
    fields = {"csrf": token, "id": "00000000-0000-4000-8000-000000000001"}
    assert operator.post("/console/bulk/stop", data=fields).headers["location"] == place
    assert "It ends before its next step" in operator.get(place).text
    # And who has stopped it is told, once
    operator.post("/console/bulk/stop", data=fields)
    [row] = audit(failed)
    assert (row["action"], row["act_id"]) == ("stop", UUID("00000000-0000-4000-8000-000000000001"))
    assert (row["actor"], row["via"], row["closing"]) == ("ada", "console", False)
    with failed.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE bulk_acts SET state = 'stopped', ended_at = now()")
    assert "It was stopped by <bdi>ada</bdi>" in operator.get(place).text


@pytest.mark.parametrize("reason", ["", "   ", "x" * 2_001])
def test_nothing_is_done_without_a_reason(failed: Record, operator: TestClient, reason: str) -> None:
    fields = asked(operator, "/console/acts/retry?state=failed")
    assert operator.post("/console/acts/retry", data={**fields, "reason": reason}).status_code == 400
    assert states(failed) == ["failed"] * NUMBER
    assert audit(failed) == []


@pytest.mark.parametrize(
    ("path", "back"),
    [
        ("acts/retry?state=failed", "effects?state=failed"),
        ("pause?kind=set_credit_status", ""),
        ("quarantine/discard?all=1", "quarantine"),
    ],
)
def test_who_is_asked_may_go_back_and_begins_with_the_reason(
    failed: Record, operator: TestClient, path: str, back: str
) -> None:
    page = operator.get(f"/console/{path}").text
    assert f'<a class="button" href="/console/{back}">Back</a>' in page
    if "nothing to do" not in page:
        assert "required autofocus" in page


def test_a_form_of_another_sign_in_says_what_to_do(failed: Record, operator: TestClient) -> None:
    answer = operator.post("/console/pause", data={"kind": "set_credit_status", "reason": "x", "csrf": "y"})
    assert answer.status_code == 403
    assert "Nothing was changed. Go back, load the page again" in answer.text


def test_a_viewer_changes_nothing_by_requests_made_by_hand(failed: Record) -> None:
    viewer = behind_proxy(failed.engine, Role.VIEWER)
    token = viewer.get("/console/search").text.partition('name="csrf" value="')[2].partition('"')[0]
    effect_id = str(failed.effect_ids(EffectKind.SET_CREDIT_STATUS)[0])
    for path, fields in {
        "/console/acts/retry": {"id": effect_id},
        "/console/acts/cancel": {"filter": '{"states": ["failed"]}', "expected": "3"},
        "/console/pause": {"kind": "set_credit_status"},
        "/console/quarantine/discard": {"all": "1"},
        "/console/bulk/stop": {"id": effect_id},
    }.items():
        answer = viewer.post(path, data={**fields, "csrf": token, "reason": "because"})
        assert answer.status_code == 403
        assert "This needs the role operator. You have the role viewer." in answer.text
    assert states(failed) == ["failed"] * NUMBER
    assert audit(failed) == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/console/acts/retry", 400),
        ("/console/acts/retry?selected=1", 400),
        ("/console/acts/retry?state=done", 400),
        ("/console/acts/retry?state=nonsense", 400),
        ("/console/acts/retry?id=nonsense", 400),
        ("/console/acts/retry?since=nonsense", 400),
        ("/console/acts/retry?error=%00", 400),
        ("/console/acts/retry?kind=%00", 400),
        ("/console/effects?kind=%00", 400),
        ("/console/pause?kind=nonsense", 400),
        ("/console/quarantine/replay", 400),
        ("/console/quarantine/replay?id=-1", 400),
        ("/console/quarantine/replay?all=1&code=nonsense", 400),
        ("/console/bulk?id=00000000-0000-4000-8000-000000000001", 404),
        ("/console/effects?after=00000000-0000-4000-8000-000000000001", 404),
        ("/console/effect?id=x", 400),
        ("/console/act", 404),
        ("/console/act?id=00000000-0000-4000-8000-000000000001&step=2", 404),
        ("/console/effect", 404),
        ("/console/attempt", 400),
        ("/console/command?id=1", 400),
        ("/console/learner?user_id=nobody", 404),
        ("/console/learner?user_id=u0&after=nonsense", 400),
        ("/console/quarantined?id=99999999999999999999", 400),
        ("/console/audit?before=x", 400),
        ("/console/cause?id=nonsense", 404),
        ("/console/webhook?name=nonsense", 404),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(operator: TestClient, path: str, status: int) -> None:
    answer = operator.get(path)
    assert answer.status_code == status
    assert "<h1>" in answer.text


def test_a_kind_is_paused_and_resumed(failed: Record, operator: TestClient) -> None:
    fields = asked(operator, "/console/pause?kind=set_credit_status")
    sent = {**fields, "reason": "the service is moved", "until": "2h"}
    assert operator.post("/console/pause", data=sent).status_code == 303
    page = operator.get("/console/").text
    assert "the service is moved" in page
    fields = asked(operator, "/console/resume?kind=set_credit_status")
    assert operator.post("/console/resume", data={**fields, "reason": "moved"}).status_code == 303
    assert "the service is moved" not in operator.get("/console/").text
    assert operator.post("/console/resume", data={**fields, "reason": "again"}).status_code == 409
    assert [row["action"] for row in audit(failed)] == ["pause", "resume"]


@pytest.mark.parametrize("until", ["nonsense", "2000-01-01T00:00", "99999999999d"])
def test_a_pause_needs_an_end_to_come(failed: Record, operator: TestClient, until: str) -> None:
    fields = asked(operator, "/console/pause?kind=set_credit_status")
    answer = operator.post("/console/pause", data={**fields, "reason": "x", "until": until})
    assert answer.status_code in (400, 409)
    assert audit(failed) == []


@pytest.fixture
def quarantined(failed: Record) -> Record:
    for number in range(NUMBER):
        failed.quarantine(b"no command %d" % number, source=f"/lms/{number % 2}")
    return failed


def test_selected_messages_are_discarded(quarantined: Record, operator: TestClient) -> None:
    first, second, third = quarantined.quarantine_ids()
    fields = asked(operator, f"/console/quarantine/discard?id={first}&id={third}")
    page = operator.post("/console/quarantine/discard", data={**fields, "reason": "spam"}).text
    assert "2 messages of 2 are discarded." in page
    assert list(quarantined.quarantine_ids()) == [second]


def test_all_messages_that_match_are_discarded(quarantined: Record, operator: TestClient) -> None:
    place = "/console/quarantine/discard?all=1&source=%2Flms%2F0"
    assert "Discard 2 messages" in operator.get(place).text
    answer = operator.post("/console/quarantine/discard", data={**asked(operator, place), "reason": "spam"})
    page = until_over(operator, answer.headers["location"])
    assert "2 of 2 are discarded." in page
    assert len(quarantined.quarantine_ids()) == 1
    assert [(row["number"], row["closing"]) for row in audit(quarantined)] == [(2, False), (2, True)]


def test_while_the_broker_is_away_nothing_is_replayed(quarantined: Record, operator: TestClient) -> None:
    first = quarantined.quarantine_ids()[0]
    fields = asked(operator, f"/console/quarantine/replay?id={first}")
    page = operator.post("/console/quarantine/replay", data={**fields, "reason": "mended"}).text
    assert "0 messages of 1 are replayed." in page
    assert len(quarantined.quarantine_ids()) == NUMBER
    assert audit(quarantined) == []


def test_an_administrator_erases_a_learner(failed: Record, operator: TestClient) -> None:
    assert operator.get("/console/learner/erase?user_id=u0").status_code == 403
    admin = behind_proxy(failed.engine, Role.ADMIN)
    fields = asked(admin, "/console/learner/erase?user_id=u0")
    page = admin.post("/console/learner/erase", data={**fields, "reason": "they asked for it"}).text
    assert "The names and addresses of learner u0 are gone." in page
    assert [row["action"] for row in audit(failed)] == ["erase"]
    assert (
        admin.post("/console/learner/erase", data={**fields, "user_id": "x", "reason": "y"}).status_code
        == 409
    )


def test_an_endpoint_is_switched_off_and_a_feed_is_told_again(failed: Record) -> None:
    with failed.engine.begin() as connection:
        subscribers.store(
            connection, {"webhook.acme": {"url": "https://acme.example"}, "feed.lms": {"name": "e"}}
        )
    admin = behind_proxy(failed.engine, Role.ADMIN)
    fields = asked(admin, "/console/webhook/off?name=acme")
    admin.post("/console/webhook/off", data={**fields, "reason": "it is moved"})
    page = admin.get("/console/webhook?name=acme").text
    assert "it is moved" in page
    assert "Switch on" in page
    fields = asked(admin, "/console/events/replay?name=feed.lms")
    sent = {**fields, "after": "0", "reason": "it was restored"}
    assert "is told again" in admin.post("/console/events/replay", data=sent).text
    assert [row["action"] for row in audit(failed)] == ["webhook off", "replay events"]
