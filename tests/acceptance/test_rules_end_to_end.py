"""Every behaviour of the rules, from the message to what the LMS, the mail server and the instructor see."""

import email
import json
from collections import defaultdict
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import default
from itertools import count
from typing import Any

import pytest

from tests.acceptance.conftest import MakeStack
from tests.acceptance.harness import Stack
from tests.kinds import KINDS_OF_0_1_0

POLICIES = """
[default]
preset = "provider"

[providers.platform]
preset = "platform"

[providers.lenient]
allow_timed_out_state = true

[providers.strict]
allow_timed_out_state = false

[providers.guarded]
protect_verdicts = true

[providers.edx]
preset = "edx-proctoring-6"
"""

_numbers = count(1)


class Scene:
    """A course of its own with exams, and a learner of its own, so that tests can share a stack."""

    def __init__(self, stack: Stack, *exams: str, provider: str | None = None) -> None:
        self.stack = stack
        self.name = f"s{next(_numbers)}"
        self.course = f"course-{self.name}"
        self.user = f"user-{self.name}"
        stack.client.course(self.course, provider=provider, name="Known To Us Only")
        stack.client.learner(self.user)
        for exam in exams or ("A",):
            self.exam(exam)

    def exam(self, exam: str, **fields: Any) -> None:
        fields.setdefault("content_id", self.content(exam))
        self.stack.client.exam(self.id(exam), fields.pop("course_id", self.course), **fields)

    def id(self, exam: str) -> str:
        return f"{self.name}-{exam}"

    def content(self, exam: str) -> str:
        return f"content-{self.name}-{exam}"

    def create(self, exam: str = "A", **fields: Any) -> str:
        return self.stack.client.create(self.id(exam), self.user, **fields)

    def update(self, to_status: str | None, exam: str = "A", **fields: Any) -> str:
        return self.stack.client.update(self.id(exam), self.user, to_status, **fields)

    def remove(self, exam: str = "A", **fields: Any) -> str:
        return self.stack.client.remove(self.id(exam), self.user, **fields)

    def settled(self) -> "Scene":
        self.stack.settle()
        return self

    def outcome(self, command_id: str) -> tuple[str, str | None]:
        return self.stack.outcome(command_id)

    def attempt(self, exam: str = "A") -> Any:
        return self.stack.attempt(self.id(exam), self.user)

    def history(self, exam: str = "A") -> list[str]:
        return self.stack.history(self.id(exam), self.user)

    def credit(self, exam: str = "A") -> str | None:
        return self.stack.lms.credit(self.user, self.course, self.content(exam))

    def effects(self) -> list[tuple[str, str | None]]:
        return [(kind, status) for kind, status in self.stack.effects(self.user) if kind in KINDS_OF_0_1_0]

    def mails(self) -> list[EmailMessage]:
        mails = [one for one in self.stack.mail.mails if one.recipient == f"{self.user}@example.org"]
        return [email.message_from_bytes(one.raw, policy=default) for one in mails]


@pytest.fixture(scope="module")
def stack(make_module_stack: MakeStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One whole system with every policy."""
    policies = tmp_path_factory.mktemp("policies") / "policies.toml"
    policies.write_text(POLICIES)
    stack = make_module_stack(POLICIES_FILE=policies)
    stack.start_all()
    yield stack
    assert stack.lms.refused == 0, "every call is as the contract says, with both headers"


# --- the way of an attempt ---------------------------------------------------------------------------


def test_an_attempt_goes_from_created_to_verified(stack: Stack) -> None:
    scene = Scene(stack)
    commands = [scene.create(taking_as_proctored=True, external_id="ext-1")]
    commands += [scene.update(status) for status in ("started", "submitted", "verified")]
    scene.settled()
    assert [scene.outcome(one) for one in commands] == [("applied", None)] * 4
    assert scene.history() == ["created", "started", "submitted", "verified"]
    attempt = scene.attempt()
    assert (attempt.version, attempt.external_id, attempt.is_sample_attempt) == (4, "ext-1", False)
    assert attempt.started_at is not None
    assert attempt.completed_at is not None
    assert scene.credit() == "satisfied"
    assert scene.effects() == [
        ("set_credit_status", "submitted"),
        ("send_status_email", "submitted"),
        ("set_credit_status", "satisfied"),
        ("send_status_email", "verified"),
    ]


def test_a_mail_names_the_course_as_the_lms_does(stack: Stack) -> None:
    scene = Scene(stack)
    stack.lms.reference.name_course(scene.course, "Botany 101")
    scene.create(taking_as_proctored=True)
    scene.update("submitted")
    [mail] = scene.settled().mails()
    [effect] = stack.rows(
        "SELECT id FROM effects WHERE user_id = :user AND kind = 'send_status_email'", user=scene.user
    )
    assert mail["Message-ID"].startswith(f"<{effect.id}@")
    assert mail["To"] == f"{scene.user}@example.org"
    assert mail["From"] == "exams@localhost"
    assert sorted(part.get_content_type() for part in mail.iter_parts()) == ["text/html", "text/plain"]
    for kind in ("plain", "html"):
        body = mail.get_body((kind,))
        assert body is not None
        assert "Botany 101" in body.get_content()
        assert f"Exam {scene.id('A')}" in body.get_content()


@pytest.mark.parametrize(
    ("told", "expected"), [("Known To Us Only", "Known To Us Only"), (None, "your course")]
)
def test_without_a_credit_state_a_mail_names_the_course_as_we_were_told(
    stack: Stack, told: str | None, expected: str
) -> None:
    scene = Scene(stack)
    stack.client.course(scene.course, name=told)
    scene.create(taking_as_proctored=True)
    scene.update("rejected", cascade_effects=False)
    [mail] = scene.settled().mails()
    body = mail.get_body(("plain",))
    assert body is not None
    assert f"Course: {expected}" in body.get_content()


@pytest.mark.parametrize("case", ["not proctored", "a sample attempt", "no status for mails"])
def test_who_gets_no_mail(stack: Stack, case: str) -> None:
    scene = Scene(stack)
    scene.exam("practice", is_practice_exam=True)
    exam = "practice" if case == "a sample attempt" else "A"
    scene.create(exam, taking_as_proctored=case != "not proctored")
    scene.update("second_review_required" if case == "no status for mails" else "submitted", exam)
    scene.settled()
    assert scene.mails() == []
    assert "send_status_email" not in dict(scene.effects())
    assert scene.attempt(exam).is_sample_attempt is (exam == "practice")


@pytest.mark.parametrize(
    ("status", "credit"),
    [
        ("verified", "satisfied"),
        ("submitted", "submitted"),
        ("declined", "failed"),
        ("rejected", "failed"),
        ("error", "failed"),
        ("not_reviewed", "failed"),
        ("second_review_required", None),
        ("timed_out", None),  # kept, because the attempt is still `created`
        ("ready_to_submit", None),
    ],
)
def test_what_each_status_is_worth(stack: Stack, status: str, credit: str | None) -> None:
    scene = Scene(stack)
    scene.create()
    scene.update(status)
    scene.settled()
    assert scene.history() == ["created", status]
    assert scene.credit() == credit


def test_times_are_kept(stack: Stack) -> None:
    scene = Scene(stack)
    scene.create()
    for status in ("started", "ready_to_submit", "started", "submitted"):
        scene.update(status)
    first = scene.settled().attempt()
    scene.update("verified")
    scene.update("submitted")
    second = scene.settled().attempt()
    started = stack.rows(
        "SELECT min(at) AS at FROM transitions WHERE attempt_id = :id AND to_status = 'started'", id=first.id
    )
    assert first.started_at == second.started_at == started[0].at
    assert second.completed_at > first.completed_at


# --- refusals ------------------------------------------------------------------------------------------


def test_what_is_refused_says_why_and_changes_nothing(stack: Stack) -> None:
    scene = Scene(stack)
    missing = scene.update("started")
    gone = scene.remove()
    scene.create()
    again = scene.create()
    scene.update("submitted")
    back = scene.update("started")
    error = scene.update("error")
    words = [scene.update(word) for word in ("verifed", "", None, "Verified")]
    no_exam = [scene.create("none"), scene.update("started", "none"), scene.remove("none")]
    ignored = scene.update("started", "none", if_missing="ignore")
    stranger = stack.client.create(scene.id("A"), "stranger")
    order = scene.update("nonsense", "none")
    scene.settled()
    rejected = {one: scene.outcome(one) for one in (missing, gone, again, back, error, stranger)}
    assert rejected == {
        missing: ("rejected", "attempt_not_found"),
        gone: ("rejected", "attempt_not_found"),
        again: ("rejected", "attempt_exists"),
        back: ("rejected", "illegal_transition"),
        error: ("rejected", "illegal_transition"),
        stranger: ("rejected", "learner_not_found"),
    }
    assert {scene.outcome(word) for word in words} == {("rejected", "unknown_status")}
    assert {scene.outcome(one) for one in [*no_exam, ignored, order]} == {("rejected", "exam_not_found")}
    assert scene.history() == ["created", "submitted"]
    assert scene.effects() == [("set_credit_status", "submitted")]


def test_error_stays_error(stack: Stack) -> None:
    scene = Scene(stack)
    scene.create()
    commands = [scene.update("error"), scene.update("error"), scene.update("started")]
    scene.settled()
    assert [scene.outcome(one) for one in commands] == [
        ("applied", None),
        ("rejected", "illegal_transition"),
        ("rejected", "illegal_transition"),
    ]


def test_a_missing_attempt_may_be_ignored(stack: Stack) -> None:
    scene = Scene(stack)
    command = scene.update("submitted", if_missing="ignore")
    scene.settled()
    assert scene.outcome(command) == ("ignored", "attempt_not_found")
    assert scene.effects() == []


# --- policies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "before", "after"),
    [
        (None, "created", "timed_out"),
        (None, "started", "submitted"),
        ("unheard of", "created", "timed_out"),
        ("strict", "created", "submitted"),
        ("platform", "created", "submitted"),
        ("lenient", "started", "timed_out"),
    ],
)
def test_a_time_out_may_count_as_submitted(
    stack: Stack, provider: str | None, before: str, after: str
) -> None:
    scene = Scene(stack, provider=provider)
    scene.create()
    if before != "created":
        scene.update(before)
    scene.update("timed_out")
    scene.settled()
    assert scene.attempt().status == after
    assert scene.credit() == ("submitted" if after == "submitted" else None)


def test_a_repeated_status_is_unchanged_by_default(stack: Stack) -> None:
    scene = Scene(stack)
    scene.create(taking_as_proctored=True)
    scene.update("submitted")
    again = scene.update("submitted")
    scene.settled()
    assert scene.outcome(again) == ("unchanged", None)
    assert scene.history() == ["created", "submitted"]
    assert len(scene.mails()) == 1


def test_a_repeated_status_is_applied_again_on_the_platform(stack: Stack) -> None:
    scene = Scene(stack, provider="platform")
    scene.create(taking_as_proctored=True)
    commands = [scene.update("submitted"), scene.update("submitted"), scene.update("timed_out")]
    scene.settled()
    assert [scene.outcome(one) for one in commands] == [("applied", None)] * 3
    assert scene.history() == ["created", "submitted", "submitted", "submitted"]
    assert scene.effects() == [("set_credit_status", "submitted"), ("send_status_email", "submitted")] * 3
    assert len({mail["Message-ID"] for mail in scene.mails()}) == 3


def test_verdicts_may_be_protected(stack: Stack) -> None:
    guarded, other = Scene(stack, provider="guarded"), Scene(stack)
    for scene in (guarded, other):
        scene.create()
        scene.update("verified")
    late, taken = guarded.update("timed_out"), other.update("timed_out")
    asked, reviewed_again = guarded.update("submitted"), guarded.update("rejected")
    stack.settle()
    assert stack.outcome(late) == ("ignored", "late_timeout")
    assert stack.outcome(taken) == ("applied", None)
    assert stack.outcome(asked) == ("ignored", "verdict_protected")
    assert stack.outcome(reviewed_again) == ("applied", None)
    assert guarded.history() == ["created", "verified", "rejected"]
    assert guarded.credit() == "failed"
    assert other.credit() == "submitted"


def test_a_provider_may_decide_as_edx_proctoring_6(stack: Stack) -> None:
    scene = Scene(stack, "A", "B", provider="edx")
    scene.create("A", taking_as_proctored=True)
    scene.update("submitted", "A")
    failed = scene.update("error", "A")
    declined = scene.update("declined", "A")
    stack.settle()
    assert [stack.outcome(one) for one in (failed, declined)] == [("applied", None)] * 2
    assert scene.history("A") == ["created", "submitted", "error", "declined"]
    assert (scene.credit("A"), scene.credit("B")) == ("declined", "declined")


# --- cascade -------------------------------------------------------------------------------------------


def _course_of_every_kind(stack: Stack) -> Scene:
    scene = Scene(stack, "A", "missing", "open", "done")
    scene.exam("practice", is_practice_exam=True)
    scene.exam("unproctored", is_proctored=False)
    scene.exam("inactive", is_active=False)
    scene.exam("same", content_id=scene.content("A"))
    scene.exam("elsewhere", course_id=f"{scene.course}-2")
    scene.create("A", taking_as_proctored=True, external_id="ext-A")
    scene.create("open", taking_as_proctored=True, external_id="ext-open")
    scene.update("started", "open")
    scene.create("done")
    scene.update("verified", "done")
    for exam in ("practice", "unproctored", "inactive", "same", "elsewhere"):
        scene.create(exam)
    return scene


UNTOUCHED = ("practice", "unproctored", "inactive", "same", "elsewhere")


def test_a_decline_declines_the_siblings(stack: Stack) -> None:
    scene = _course_of_every_kind(stack)
    decline = scene.update("declined")
    scene.settled()
    assert scene.outcome(decline) == ("applied", None)
    started_it, opened, missing = scene.attempt("A"), scene.attempt("open"), scene.attempt("missing")
    assert (started_it.status, started_it.taking_as_proctored, started_it.external_id) == (
        "declined",
        False,
        None,
    )
    assert (opened.status, opened.taking_as_proctored, opened.external_id) == ("declined", True, "ext-open")
    assert (missing.status, missing.taking_as_proctored, missing.is_sample_attempt) == (
        "declined",
        False,
        False,
    )
    assert scene.history("missing") == ["created", "declined"]
    assert scene.history("done") == ["created", "verified"]
    assert [scene.history(exam) for exam in UNTOUCHED] == [["created"]] * 5
    assert {exam: scene.credit(exam) for exam in ("A", "open", "missing", "done")} == {
        "A": "failed",
        "open": "failed",
        "missing": "failed",
        "done": "satisfied",
    }
    assert scene.mails() == []
    assert dict(scene.effects()).keys() == {"set_credit_status", "cascade_decline"}
    assert [kind for kind, _ in scene.effects()].count("cascade_decline") == 1


def test_a_rejection_cascades_without_clearing(stack: Stack) -> None:
    scene = Scene(stack, "A", "B")
    scene.create(taking_as_proctored=True, external_id="ext")
    scene.update("rejected")
    scene.settled()
    attempt = scene.attempt()
    assert (attempt.status, attempt.taking_as_proctored, attempt.external_id) == ("rejected", True, "ext")
    assert scene.attempt("B").status == "declined"
    assert [mail["Subject"] for mail in scene.mails()] == [
        f"Your proctored exam was not accepted: Exam {scene.id('A')}"
    ]


def test_the_sender_may_spare_the_siblings(stack: Stack) -> None:
    scene = Scene(stack, "A", "B")
    scene.create(taking_as_proctored=True, external_id="ext")
    scene.update("declined", cascade_effects=False)
    scene.settled()
    attempt = scene.attempt()
    assert (attempt.taking_as_proctored, attempt.external_id) == (True, "ext")
    assert scene.history("B") == []


def test_any_kind_of_exam_may_start_a_cascade(stack: Stack) -> None:
    scene = Scene(stack, "B")
    scene.exam("practice", is_practice_exam=True, is_proctored=False)
    scene.create("practice")
    scene.update("declined", "practice")
    scene.settled()
    assert scene.attempt("B").status == "declined"
    assert scene.credit("practice") == "failed"


def test_a_cascade_comes_before_the_next_command_of_the_learner(stack: Stack) -> None:
    scene = Scene(stack, "A", "B", "C")
    scene.create("A")
    scene.create("B")
    scene.update("declined", "A")
    start, create = scene.update("started", "B"), scene.create("C")
    scene.settled()
    assert scene.outcome(start) == ("rejected", "illegal_transition")
    assert scene.outcome(create) == ("rejected", "attempt_exists")
    assert scene.history("B") == ["created", "declined"]
    assert [kind for kind, _ in scene.effects()].count("cascade_decline") == 1


def test_another_learner_is_never_touched(stack: Stack) -> None:
    scene = Scene(stack, "A", "B")
    stack.client.learner(f"{scene.user}-2")
    stack.client.create(scene.id("B"), f"{scene.user}-2")
    scene.create()
    scene.update("declined")
    scene.settled()
    assert stack.history(scene.id("B"), f"{scene.user}-2") == ["created"]


# --- removal -------------------------------------------------------------------------------------------


def test_a_removal_resets_everything_and_a_new_attempt_may_begin(stack: Stack) -> None:
    scene = Scene(stack)
    scene.create(taking_as_proctored=True)
    scene.update("submitted")
    scene.settled()
    remove = scene.remove(requested_by="staff-1")
    scene.settled()
    assert scene.outcome(remove) == ("applied", None)
    assert scene.credit() is None
    assert [one for one in stack.lms.reference.deletions if one["username"] == f"name-{scene.user}"] == [
        {
            "username": f"name-{scene.user}",
            "course_id": scene.course,
            "content_id": scene.content("A"),
            "requested_by": "staff-1",
        }
    ]
    create = scene.create()
    scene.update("verified")
    scene.settled()
    assert scene.outcome(create) == ("applied", None)
    assert scene.history() == ["created", "submitted", "created", "verified"]
    assert scene.credit() == "satisfied"


def test_a_removal_takes_back_credit_that_was_ever_owed(stack: Stack) -> None:
    scene = Scene(stack)
    scene.create()
    scene.update("submitted")
    scene.update("second_review_required")  # owes none itself
    scene.remove()
    scene.settled()
    assert scene.credit() is None
    assert "remove_credit_status" in dict(scene.effects())


def test_a_removal_before_any_credit_takes_none_back(stack: Stack) -> None:
    scene = Scene(stack)
    scene.create()
    scene.remove()
    scene.settled()
    assert scene.effects() == [("delete_student_attempt", None)]


def test_remove_create_remove_in_one_breath(stack: Stack) -> None:
    scene = Scene(stack)
    commands = []
    for _ in range(3):
        commands += [scene.create(), scene.update("submitted"), scene.remove()]
    commands += [scene.create(), scene.update("verified")]
    scene.settled()
    assert {scene.outcome(one) for one in commands} == {("applied", None)}
    assert scene.credit() == "satisfied"
    assert scene.history() == ["created", "submitted"] * 3 + ["created", "verified"]


def test_a_verdict_for_a_removed_attempt_does_not_touch_its_successor(stack: Stack) -> None:
    scene = Scene(stack)
    first, second = f"{scene.name}-1", f"{scene.name}-2"
    scene.create(taking_as_proctored=True, attempt_code=first, external_id="vendor-1")
    scene.update("submitted", attempt_code=first)
    scene.remove(attempt_code=first, from_statuses=["submitted"])
    scene.create(taking_as_proctored=True, attempt_code=second, external_id="vendor-2")
    late = [scene.update("verified", external_id="vendor-1"), scene.update("verified", attempt_code=first)]
    early = scene.update("verified", attempt_code=second, from_statuses=["submitted"])
    scene.settled()
    assert {scene.outcome(one) for one in late} == {("rejected", "stale_attempt")}
    assert scene.outcome(early) == ("ignored", "precondition_failed")
    assert scene.credit() is None
    assert [mail["Subject"] for mail in scene.mails()] == [
        f"Your proctored exam was submitted: Exam {scene.id('A')}"
    ]
    found = json.loads(stack.cli("attempts", "show", "--code", second, "--json").stdout)
    assert (found["attempt"]["status"], found["attempt"]["external_id"]) == ("created", "vendor-2")
    removed = json.loads(stack.cli("attempts", "show", "--code", first, "--json").stdout)
    assert removed["attempt"]["removed_at"] is not None
    stale = stack.cli("commands", "list", "--user", scene.user, "--code", "stale_attempt", "--json").stdout
    assert {json.loads(line)["id"] for line in stale.splitlines()} == set(late)


def test_without_an_instructor_service_nothing_is_owed_to_it(
    make_module_stack: MakeStack, stack: Stack
) -> None:
    stack.settle()
    other = make_module_stack(broker_url=stack.broker_url.removesuffix("/0") + "/7", INSTRUCTOR="off")
    other.start("commands")
    scene = Scene(other)
    scene.create()
    scene.update("submitted")
    scene.remove()
    other.settle_commands()
    assert scene.effects() == [("set_credit_status", "submitted"), ("remove_credit_status", None)]


# --- what comes with each call -----------------------------------------------------------------------


def test_the_sequence_grows_for_each_target(stack: Stack) -> None:
    scene = Scene(stack)
    scene.create()
    for status in ("submitted", "verified", "rejected", "not_reviewed", "submitted"):
        scene.update(status, cascade_effects=False)
        scene.settled()
    calls = [call for call in stack.lms.calls if call.body.get("user_id") == scene.user]
    assert [call.body["status"] for call in calls] == [
        "submitted",
        "satisfied",
        "failed",
        "failed",
        "submitted",
    ]
    sequences = [call.sequence for call in calls]
    assert sequences == sorted(set(sequences))
    rows = stack.rows("SELECT id FROM effects WHERE user_id = :user ORDER BY sequence", user=scene.user)
    assert [call.effect_id for call in calls] == [str(row.id) for row in rows]


def test_the_lms_saw_one_effect_at_a_time_and_in_order(stack: Stack) -> None:
    stack.settle()
    by_target = defaultdict(list)
    for call in stack.lms.calls:
        if "req_name" in call.body:
            by_target[call.body["user_id"], call.body["course_id"], call.body["req_name"]].append(call)
    assert by_target
    for calls in by_target.values():
        assert [call.sequence for call in calls] == sorted({call.sequence for call in calls})


# --- what a person sees ------------------------------------------------------------------------------


def test_the_command_line_tells_the_whole_story(stack: Stack) -> None:
    scene = Scene(stack)
    scene.create(taking_as_proctored=True)
    submit = scene.update("submitted")
    scene.settled()
    shown = stack.cli("attempts", "show", "--exam", scene.id("A"), "--user", scene.user, "--json")
    story = json.loads(shown.stdout)
    assert story["attempt"]["status"] == "submitted"
    assert [one["to_status"] for one in story["transitions"]] == ["created", "submitted"]
    assert story["transitions"][1]["command_id"] == submit
    assert {(one["kind"], one["state"]) for one in story["effects"]} == {
        ("set_credit_status", "done"),
        ("send_status_email", "done"),
    }
    counts = json.loads(stack.cli("status", "--json").stdout)
    assert counts["commands"] == {"queued": 0, "quarantined": 0}
    assert (counts["effects"]["pending"], counts["effects"]["running"]) == (0, 0)
    command = json.loads(
        stack.cli("commands", "show", "--source", "/acceptance", "--id", submit, "--json").stdout
    )
    assert (command["type"], command["outcome"]) == ("exam.attempt.update-status.v1", "applied")
