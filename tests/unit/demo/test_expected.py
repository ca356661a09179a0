"""The oracle, compared with results that were worked out by hand from docs/rules.md."""

import pytest

from events.commands import AttemptRemove, CommandData
from events.vocabulary import QuarantineCode
from invigilator.demo.expected import expect
from invigilator.demo.malformed import Malformed
from invigilator.demo.session import Message
from invigilator.demo.snapshot import AttemptView, Snapshot
from invigilator.demo.stories import STORIES, ExamRole
from tests.unit.demo.sessions import COURSE, FINAL, MIDTERM, TIMED, WHO, command, session
from worker.policies import Policies
from worker.rules.policy import PRESETS

MID, FIN, PRACTICE, TIM = map(WHO.at, (ExamRole.MIDTERM, ExamRole.FINAL, ExamRole.PRACTICE, ExamRole.TIMED))
MID_AGAIN = WHO.at(ExamRole.MIDTERM, again=True)
FIN_AGAIN = WHO.at(ExamRole.FINAL, again=True)


def expected(
    *asked: CommandData | Message, policies: Policies | None = None, instructor: bool = True
) -> Snapshot:
    return expect(session(*asked), policies or Policies(), instructor=instructor)


def test_a_verified_exam_earns_credit_and_two_mails() -> None:
    snapshot = expected(*MID.sit("verified"))
    assert snapshot.credit == {("ada", "midterm"): "satisfied"}
    assert snapshot.mails == {
        ("ada@r1.example.org", "Your proctored exam was submitted: Midterm"): 1,
        ("ada@r1.example.org", "Your proctored exam was verified: Midterm"): 1,
    }
    assert snapshot.effects == {"set_credit_status": 2, "send_status_email": 2}
    assert snapshot.histories == {
        ("ada", MIDTERM): (
            ("created", "ready_to_start", "started", "ready_to_submit", "submitted", "verified"),
        )
    }
    assert snapshot.attempts == {
        ("ada", MIDTERM): AttemptView(
            "ada-midterm-1", "verified", True, "vendor-ada-midterm-1", started=True, completed=True
        )
    }
    assert set(snapshot.outcomes.values()) == {"applied"}


def test_a_practice_exam_earns_credit_and_no_mail() -> None:
    snapshot = expected(*PRACTICE.sit())
    assert snapshot.credit == {("ada", "practice"): "submitted"}
    assert snapshot.mails == {}


def test_a_decline_declines_the_other_proctored_exam_before_the_next_command() -> None:
    snapshot = expected(MID.create(), MID.move("declined"), FIN.create(), FIN.move("started"))
    assert snapshot.credit == {("ada", "midterm"): "failed", ("ada", "final"): "failed"}
    assert snapshot.outcomes["c3"] == "rejected attempt_exists"
    assert snapshot.outcomes["c4"] == "rejected stale_attempt"  # the cascade's attempt is not the named one
    assert snapshot.attempts == {
        ("ada", MIDTERM): AttemptView(
            "ada-midterm-1", "declined", False, None, started=False, completed=False
        ),
        ("ada", FINAL): AttemptView(None, "declined", False, None, started=False, completed=False),
    }
    assert snapshot.effects == {"set_credit_status": 2, "cascade_decline": 1}
    assert snapshot.mails == {}


def test_a_cascade_leaves_what_is_completed_and_what_its_own_exam_is() -> None:
    snapshot = expected(*MID.sit(), FIN.create(), TIM.create(), TIM.move("declined"))
    assert snapshot.histories["ada", MIDTERM][0][-1] == "submitted"
    assert snapshot.histories["ada", FINAL] == (("created", "declined"),)
    assert snapshot.attempts["ada", FINAL].taking_as_proctored  # a cascade does not clear it
    assert ("ada", f"{COURSE}-practice") not in snapshot.attempts
    assert snapshot.histories["ada", TIMED] == (("created", "declined"),)


def test_a_rejection_cascades_without_clearing() -> None:
    snapshot = expected(*MID.sit("rejected"))
    assert snapshot.attempts["ada", MIDTERM].external_id is not None
    assert snapshot.histories["ada", FINAL] == (("created", "declined"),)


def test_a_removal_takes_the_credit_back_and_resets_the_work() -> None:
    snapshot = expected(*MID.sit(), MID.remove(), MID.remove())
    assert snapshot.credit == {}
    assert snapshot.deletions == {("ada", "midterm", "demo-staff"): 1}
    assert snapshot.attempts == {}
    assert snapshot.histories["ada", MIDTERM][0][-2:] == ("submitted", "removed")
    assert snapshot.effects["remove_credit_status"] == snapshot.effects["delete_student_attempt"] == 1
    assert snapshot.outcomes["c7"] == "rejected stale_attempt"


def test_a_second_attempt_has_a_history_of_its_own() -> None:
    snapshot = expected(FIN.create(), FIN.remove(), FIN_AGAIN.create(), FIN_AGAIN.move("timed_out"))
    assert snapshot.histories["ada", FINAL] == (("created", "removed"), ("created", "timed_out"))
    assert "remove_credit_status" not in snapshot.effects


def test_a_verdict_for_a_removed_attempt_does_not_touch_its_successor() -> None:
    asked = STORIES["verdict_for_a_removed_attempt"](WHO)
    snapshot = expected(*asked)
    assert [snapshot.outcomes[f"c{number}"] for number in range(len(asked) - 4, len(asked) + 1)] == [
        "rejected attempt_code_taken",
        "applied",
        "rejected stale_attempt",
        "rejected stale_attempt",
        "applied",
    ]
    assert snapshot.attempts == {
        ("ada", MIDTERM): AttemptView(
            MID_AGAIN.attempt_code, "started", True, MID_AGAIN.external_id, started=True, completed=False
        )
    }
    assert snapshot.credit == {}


def test_a_removal_may_ask_for_a_status() -> None:
    snapshot = expected(*STORIES["removed_before_the_start"](WHO))
    assert snapshot.outcomes["c2"] == "ignored precondition_failed"
    assert snapshot.outcomes["c3"] == "applied"


def test_a_declined_attempt_is_known_by_the_external_id_that_it_had() -> None:
    snapshot = expected(*STORIES["declined_and_reviewed"](WHO))
    assert snapshot.attempts["ada", MIDTERM].external_id is None
    assert snapshot.outcomes["c3"] == "rejected illegal_transition"


def test_without_an_instructor_service_nothing_is_reset() -> None:
    snapshot = expected(*MID.sit(), MID.remove(), instructor=False)
    assert snapshot.deletions == {}
    assert "delete_student_attempt" not in snapshot.effects


def test_credit_of_the_platform_is_not_expected() -> None:
    snapshot = expected(*MID.sit("verified"), MID.remove(), policies=Policies().without_credit())
    assert snapshot.credit == {}
    assert not snapshot.effects.keys() & {"set_credit_status", "remove_credit_status"}


@pytest.mark.parametrize(
    ("preset", "outcome", "mails"), [("provider", "unchanged", 1), ("platform", "applied", 2)]
)
def test_the_policy_counts(preset: str, outcome: str, mails: int) -> None:
    snapshot = expected(*MID.sit("submitted"), policies=Policies(PRESETS[preset]))
    assert snapshot.outcomes["c6"] == outcome
    assert sum(snapshot.mails.values()) == snapshot.effects["send_status_email"] == mails


def test_a_second_copy_changes_nothing() -> None:
    once = session(*MID.sit("verified"))
    twice = session(*MID.sit("verified"), *once.messages)
    assert expect(twice, Policies(), instructor=True) == expect(once, Policies(), instructor=True)


def test_a_reused_id_and_a_malformed_message_go_to_quarantine() -> None:
    other = command("c1", AttemptRemove(exam_id=MIDTERM, user_id="ada"))
    snapshot = expected(MID.create(), other, Malformed(b"{", QuarantineCode.NOT_JSON))
    assert snapshot.quarantine == {"id_reused": 1, "not_json": 1}
    assert snapshot.histories["ada", MIDTERM] == (("created",),)
