"""The other side fails in every way that it can, and comes back."""

import json
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import pytest
from sqlalchemy import Row

from tests.acceptance.conftest import MakeStack
from tests.acceptance.harness import Stack
from tests.acceptance.lms import Answer, Request

RETRY_AFTER_S = 1.2
CAP_S = 2
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
PERMANENT = (302, 400, 404, 409, 422)

_numbers = count(1)


@pytest.fixture(scope="module")
def shared(make_module_stack: MakeStack) -> Stack:
    stack = make_module_stack(RETRY_CAP_S=CAP_S)
    stack.start_all()
    stack.client.course("course")
    stack.client.exam("exam", "course")
    return stack


@pytest.fixture
def stack(shared: Stack) -> Iterator[Stack]:
    """The shared stack; whatever a test does to the other side is mended after it."""
    yield shared
    shared.lms.script = lambda _request: None
    shared.lms.latency_s = 0.0
    shared.mail.reject_fraction = 0.0


def _owe(stack: Stack, *statuses: str) -> str:
    """A new learner whose attempt owes something for each status; returns the user's id."""
    user = f"u{next(_numbers)}"
    stack.client.learner(user)
    stack.client.create("exam", user, taking_as_proctored=True)
    for status in statuses:
        stack.client.update("exam", user, status)
    return user


def _credit_effects(stack: Stack, user: str) -> list[Row[Any]]:
    return stack.rows(
        "SELECT * FROM effects WHERE user_id = :user AND target IS NOT NULL ORDER BY sequence", user=user
    )


def _results(stack: Stack, user: str) -> list[str]:
    rows = stack.rows(
        "SELECT result FROM tries JOIN effects ON id = effect_id "
        "WHERE user_id = :user AND target IS NOT NULL ORDER BY started_at",
        user=user,
    )
    return [row.result for row in rows]


def test_refused_connections_are_tried_again_until_the_lms_is_back(stack: Stack) -> None:
    before = _owe(stack, "submitted")
    stack.settle()  # the workers have connections now, which go stale
    stack.lms.stop()
    user = _owe(stack, "submitted")
    stack.wait_until(lambda: len(_results(stack, user)) > 2, "some tries")
    stack.lms.start()
    stack.settle()
    assert stack.lms.credit(user, "course", "content-exam") == "submitted"
    assert stack.lms.credit(before, "course", "content-exam") == "submitted"
    *failed, last = _results(stack, user)
    assert set(failed) == {"retry"}
    assert last == "done"


def test_an_lms_that_never_answers_holds_nobody_for_longer_than_the_deadline(stack: Stack) -> None:
    stack.lms.latency_s = 30
    user = _owe(stack, "submitted")
    stack.wait_until(lambda: "retry" in _results(stack, user), "a try to time out")
    stack.lms.latency_s = 0.0
    stack.settle()
    assert stack.lms.credit(user, "course", "content-exam") == "submitted"


def test_transient_answers_are_tried_again(stack: Stack) -> None:
    users = _owe_each_answered(stack, TRANSIENT)
    stack.wait_until(lambda: all("retry" in _results(stack, user) for user in users), "each to be tried")
    stack.lms.script = lambda _request: None
    stack.settle()
    assert {_results(stack, user)[-1] for user in users} == {"done"}
    assert {stack.lms.credit(user, "course", "content-exam") for user in users} == {"submitted"}


def test_permanent_answers_fail_in_plain_sight_at_once(stack: Stack) -> None:
    users = _owe_each_answered(stack, PERMANENT)
    other = _owe(stack, "submitted")
    stack.settle()
    [log] = [one.logged() for one in stack.running("effects")]
    for user, status in users.items():
        [effect] = _credit_effects(stack, user)
        assert (effect.state, effect.tries) == ("failed", 1)
        assert str(status) in effect.last_error
        warnings = [line for line in log if line["level"] == "warning" and line["effect"] == str(effect.id)]
        assert [line["event"] for line in warnings] == ["effect failed"]
    assert stack.lms.credit(other, "course", "content-exam") == "submitted"
    _retry_all(stack, len(users))
    assert {tuple(_results(stack, user)) for user in users} == {("failed", "done")}
    assert {stack.lms.credit(user, "course", "content-exam") for user in users} == {"submitted"}


@pytest.mark.parametrize(
    ("status", "setting"), [(401, "INVIGILATOR_LMS_TOKEN"), (407, "INVIGILATOR_LMS_PROXY")]
)
def test_a_token_that_is_not_accepted_fails_no_effect(stack: Stack, status: int, setting: str) -> None:
    # Given an LMS, or a proxy before it, that does not know our token any more
    stack.lms.script = lambda _request: Answer(status)
    effects, mail = (stack.running(name)[0] for name in ("effects", "mail"))
    before = len(effects.logged())
    users = [_owe(stack, "submitted") for _ in range(3)]
    stack.wait_until(lambda: "invigilator.effects.credit" in _circuits(stack), "its circuit to open")
    stack.wait_until(lambda: "retry" in _results(stack, users[0]), "a try of the first")
    # When the token is mended
    stack.lms.script = lambda _request: None
    stack.settle()
    # Then everything is done, and the log has said what was wrong
    assert {stack.lms.credit(user, "course", "content-exam") for user in users} == {"submitted"}
    assert set(users) <= {one.recipient.partition("@")[0] for one in stack.mail.mails}
    warned = [line for line in effects.logged()[before:] if "hint" in line]
    assert warned
    for line in warned:
        assert (line["level"], line["circuit"]) == ("warning", "open")
        assert line["hint"].startswith(f"check {setting}; ")
        assert f"LMS answered {status}" in line["reason"]
    assert "circuit" not in mail.output()
    failed = "SELECT count(*) FROM effects WHERE state = 'failed'"
    assert stack.number(failed) == 0


def test_one_learners_403_holds_up_nobody_and_ends(stack: Stack) -> None:
    # Given a learner of whom the LMS will not hear
    stranger = _owe_each_answered(stack, [403])
    [user] = stranger
    stack.wait_until(lambda: _results(stack, user).count("retry") > 5, "some tries")
    # When others come
    others = [_owe(stack, "submitted") for _ in range(3)]
    # Then theirs is done, while that one is still tried
    stack.wait_until(
        lambda: {stack.lms.credit(one, "course", "content-exam") for one in others} == {"submitted"},
        "the others to be done",
    )
    [effect] = _credit_effects(stack, user)
    assert effect.state in ("pending", "running")
    assert "LMS answered 403" in effect.last_error
    stack.lms.script = lambda _request: None
    stack.settle()
    assert stack.lms.credit(user, "course", "content-exam") == "submitted"


def _circuits(stack: Stack) -> dict[str, str]:
    circuits: dict[str, str] = json.loads(stack.cli("status", "--json").stdout)["circuits"]
    return circuits


def test_why_the_lms_refuses_is_seen(stack: Stack) -> None:
    stack.lms.script = lambda request: Answer(422, code="requirement_unknown") if request.body else None
    user = _owe(stack, "submitted")
    stack.settle()
    [effect] = _credit_effects(stack, user)
    shown = json.loads(stack.cli("effects", "show", str(effect.id), "--json").stdout)
    expected = "LMS answered 422 to POST /credit/set-requirement-status (requirement_unknown)"
    assert [one["error"] for one in shown["tries"]] == [expected]
    _retry_all(stack, 1)


def _owe_each_answered(stack: Stack, statuses: Sequence[int]) -> dict[str, int]:
    """A learner for each status, whose credit is answered with it."""
    answers: dict[str, Answer] = {}

    def script(request: Request) -> Answer | None:
        return answers.get(request.fields.get("user_id"))

    stack.lms.script = script
    users = {}
    for status in statuses:
        user = f"u{next(_numbers)}"
        answers[user] = Answer(status)
        users[user] = status
        stack.client.learner(user)
        stack.client.create("exam", user)
        stack.client.update("exam", user, "submitted")
    return users


def _retry_all(stack: Stack, how_many: int) -> None:
    stack.lms.script = lambda _request: None
    done = stack.cli("effects", "retry", "--state", "failed", "--json")
    assert json.loads(done.stdout)["retried"] == how_many
    stack.settle()


def test_retry_after_is_honoured(stack: Stack) -> None:
    answers = iter([Answer(503, {"Retry-After": str(RETRY_AFTER_S)})])
    stack.lms.script = lambda request: next(answers, None) if request.body else None
    user = _owe(stack, "submitted")
    stack.settle()
    [effect] = _credit_effects(stack, user)
    first, second = (one for one in stack.lms.requests if one.effect_id == str(effect.id))
    assert second.at - first.at >= RETRY_AFTER_S


def test_retry_after_is_honoured_up_to_the_cap_only(stack: Stack) -> None:
    answers = iter([Answer(429, {"Retry-After": "86400"})])
    stack.lms.script = lambda request: next(answers, None) if request.body else None
    user = _owe(stack, "submitted")
    stack.settle()
    [effect] = _credit_effects(stack, user)
    first, second = (one for one in stack.lms.requests if one.effect_id == str(effect.id))
    assert second.at - first.at >= CAP_S


def test_what_failed_is_seen_and_brought_home_by_a_person(stack: Stack) -> None:
    stack.lms.script = lambda request: Answer(400) if request.body else None
    user = _owe(stack, "submitted")
    stack.settle()
    [line] = stack.cli("effects", "list", "--state", "failed", "--json").stdout.splitlines()
    failed = json.loads(line)
    assert (failed["kind"], failed["tries"]) == ("set_credit_status", 1)
    assert json.loads(stack.cli("status", "--json").stdout)["effects"]["failed"] == 1
    stack.lms.script = lambda _request: None
    stack.cli("effects", "retry", failed["id"])
    stack.settle()
    assert _results(stack, user) == ["failed", "done"]
    assert stack.lms.credit(user, "course", "content-exam") == "submitted"


def test_a_failed_credit_that_is_overtaken_is_not_retried(stack: Stack) -> None:
    stack.lms.script = lambda request: Answer(400) if request.body else None
    user = _owe(stack, "submitted")
    stack.settle()
    stack.lms.script = lambda _request: None
    stack.client.update("exam", user, "verified")
    stack.settle()
    old, _new = _credit_effects(stack, user)
    refused = stack.cli("effects", "retry", str(old.id), check=False)
    assert refused.returncode == 1
    assert "overtaken" in refused.stderr
    assert stack.lms.credit(user, "course", "content-exam") == "satisfied"


def test_while_the_lms_is_down_only_the_newest_credit_waits(stack: Stack) -> None:
    stack.lms.stop()
    user = _owe(stack, "submitted", "second_review_required", "verified", "rejected", "verified")
    stack.settle_commands()
    stack.wait_until(lambda: len(_results(stack, user)) > 1, "some tries")
    stack.lms.start()
    stack.settle()
    effects = _credit_effects(stack, user)
    assert [one.state for one in effects][-1] == "done"
    assert stack.lms.credit(user, "course", "content-exam") == "satisfied"
    calls = [call.sequence for call in stack.lms.calls if call.body.get("user_id") == user]
    assert calls == sorted(calls)


def test_after_an_outage_of_the_mail_server_the_last_mail_of_each_learner_is_the_truth(stack: Stack) -> None:
    # Given forty learners, whose attempts change while the mail server refuses every mail, and then is away
    stack.mail.reject_fraction = 1.0
    ways = [
        ("submitted", "verified"),
        ("submitted", "rejected", "verified"),
        ("submitted", "rejected"),
        ("submitted", "verified", "rejected", "submitted"),
    ]
    users = {_owe(stack, *way): list(way) for way in ways * 10}
    stack.settle_commands()
    stack.wait_until(lambda: stack.mail.rejected > len(users), "many to be refused")
    stack.mail.stop()
    stack.wait_until(
        lambda: stack.rows("SELECT FROM circuits WHERE open_until IS NOT NULL") != [], "a circuit"
    )
    # When it is back, and takes some at first, so that a newer mail could overtake an older one
    before = len(stack.mail.mails)
    stack.mail.reject_fraction = 0.5
    stack.mail.start()
    stack.wait_until(lambda: len(stack.mail.mails) > before + len(users), "many to be taken")
    stack.mail.reject_fraction = 0.0
    stack.settle()
    # Then each learner has got every mail once, in order, and the last one says what the record says
    assert {user: _mailed(stack, user) for user in users} == users
    assert {user: stack.attempt("exam", user).status for user in users} == {
        user: way[-1] for user, way in users.items()
    }


def _mailed(stack: Stack, user: str) -> list[str]:
    """The statuses of which a learner was told by mail, in the order of arrival."""
    owed = stack.rows(
        "SELECT id, payload->>'status' AS status FROM effects "
        "WHERE user_id = :user AND kind = 'send_status_email'",
        user=user,
    )
    status_of = {str(effect.id): effect.status for effect in owed}
    mails = [one for one in stack.mail.mails if one.recipient == f"{user}@example.org"]
    return [status_of[mail.message_id.strip("<").partition("@")[0]] for mail in mails]


def test_a_mail_waits_when_the_credit_state_is_away(stack: Stack) -> None:
    stack.lms.script = lambda request: Answer(503) if request.path == "/credit/state" else None
    user = _owe(stack, "submitted")
    mail = "SELECT tries FROM effects WHERE user_id = :user AND kind = 'send_status_email'"
    stack.wait_until(lambda: [row.tries > 1 for row in stack.rows(mail, user=user)] == [True], "a second try")
    stack.lms.script = lambda _request: None
    stack.settle()
    assert f"{user}@example.org" in {one.recipient for one in stack.mail.mails}
