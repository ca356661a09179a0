"""The oracle, compared with results that were worked out by hand from docs/rules.md."""

import pytest

from events.commands import AttemptRemove, CommandData
from events.vocabulary import QuarantineCode
from invigilator.demo.expected import expect
from invigilator.demo.malformed import Malformed
from invigilator.demo.session import Message
from invigilator.demo.snapshot import AttemptView, Snapshot
from invigilator.demo.stories import ExamRole
from tests.unit.demo.sessions import COURSE, FINAL, MIDTERM, TIMED, WHO, command, session
from worker.policies import Policies
from worker.rules.policy import PRESETS

MID, FIN, PRACTICE, TIM = ExamRole.MIDTERM, ExamRole.FINAL, ExamRole.PRACTICE, ExamRole.TIMED


def expected(
    *asked: CommandData | Message, policies: Policies | None = None, instructor: bool = True
) -> Snapshot:
    return expect(session(*asked), policies or Policies(), instructor=instructor)


def test_a_verified_exam_earns_credit_and_two_mails() -> None:
    snapshot = expected(*WHO.sit(MID, "verified"))
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
        ("ada", MIDTERM): AttemptView("verified", True, f"vendor-ada-{MID}", started=True, completed=True)
    }
    assert set(snapshot.outcomes.values()) == {"applied"}


def test_a_practice_exam_earns_credit_and_no_mail() -> None:
    snapshot = expected(*WHO.sit(PRACTICE))
    assert snapshot.credit == {("ada", "practice"): "submitted"}
    assert snapshot.mails == {}


def test_a_decline_declines_the_other_proctored_exam_before_the_next_command() -> None:
    snapshot = expected(WHO.create(MID), WHO.move(MID, "declined"), WHO.create(FIN), WHO.move(FIN, "started"))
    assert snapshot.credit == {("ada", "midterm"): "failed", ("ada", "final"): "failed"}
    assert snapshot.outcomes["c3"] == "rejected attempt_exists"
    assert snapshot.outcomes["c4"] == "rejected illegal_transition"
    assert snapshot.attempts == {
        ("ada", MIDTERM): AttemptView("declined", False, None, started=False, completed=False),
        ("ada", FINAL): AttemptView("declined", False, None, started=False, completed=False),
    }
    assert snapshot.effects == {"set_credit_status": 2, "cascade_decline": 1}
    assert snapshot.mails == {}


def test_a_cascade_leaves_what_is_completed_and_what_its_own_exam_is() -> None:
    snapshot = expected(
        *WHO.sit(MID), WHO.create(FIN), WHO.create(TIM, proctored=False), WHO.move(TIM, "declined")
    )
    assert snapshot.histories["ada", MIDTERM][0][-1] == "submitted"
    assert snapshot.histories["ada", FINAL] == (("created", "declined"),)
    assert snapshot.attempts["ada", FINAL].taking_as_proctored  # a cascade does not clear it
    assert ("ada", f"{COURSE}-practice") not in snapshot.attempts
    assert snapshot.histories["ada", TIMED] == (("created", "declined"),)


def test_a_rejection_cascades_without_clearing() -> None:
    snapshot = expected(*WHO.sit(MID, "rejected"))
    assert snapshot.attempts["ada", MIDTERM].external_id is not None
    assert snapshot.histories["ada", FINAL] == (("created", "declined"),)


def test_a_removal_takes_the_credit_back_and_resets_the_work() -> None:
    snapshot = expected(*WHO.sit(MID), WHO.remove(MID), WHO.remove(MID))
    assert snapshot.credit == {}
    assert snapshot.deletions == {("ada", "midterm", "demo-staff"): 1}
    assert snapshot.attempts == {}
    assert snapshot.histories["ada", MIDTERM][0][-2:] == ("submitted", "removed")
    assert snapshot.effects["remove_credit_status"] == snapshot.effects["delete_student_attempt"] == 1
    assert snapshot.outcomes["c7"] == "rejected attempt_not_found"


def test_a_second_attempt_has_a_history_of_its_own() -> None:
    snapshot = expected(WHO.create(FIN), WHO.remove(FIN), WHO.create(FIN), WHO.move(FIN, "timed_out"))
    assert snapshot.histories["ada", FINAL] == (("created", "removed"), ("created", "timed_out"))
    assert "remove_credit_status" not in snapshot.effects


def test_without_an_instructor_service_nothing_is_reset() -> None:
    snapshot = expected(*WHO.sit(MID), WHO.remove(MID), instructor=False)
    assert snapshot.deletions == {}
    assert "delete_student_attempt" not in snapshot.effects


def test_credit_of_the_platform_is_not_expected() -> None:
    snapshot = expected(*WHO.sit(MID, "verified"), WHO.remove(MID), policies=Policies().without_credit())
    assert snapshot.credit == {}
    assert not snapshot.effects.keys() & {"set_credit_status", "remove_credit_status"}


@pytest.mark.parametrize(
    ("preset", "outcome", "mails"), [("provider", "unchanged", 1), ("platform", "applied", 2)]
)
def test_the_policy_counts(preset: str, outcome: str, mails: int) -> None:
    snapshot = expected(*WHO.sit(MID, "submitted"), policies=Policies(PRESETS[preset]))
    assert snapshot.outcomes["c6"] == outcome
    assert sum(snapshot.mails.values()) == snapshot.effects["send_status_email"] == mails


def test_a_second_copy_changes_nothing() -> None:
    once = session(*WHO.sit(MID, "verified"))
    twice = session(*WHO.sit(MID, "verified"), *once.messages)
    assert expect(twice, Policies(), instructor=True) == expect(once, Policies(), instructor=True)


def test_a_reused_id_and_a_malformed_message_go_to_quarantine() -> None:
    other = command("c1", AttemptRemove(exam_id=MIDTERM, user_id="ada"))
    snapshot = expected(WHO.create(MID), other, Malformed(b"{", QuarantineCode.NOT_JSON))
    assert snapshot.quarantine == {"id_reused": 1, "not_json": 1}
    assert snapshot.histories["ada", MIDTERM] == (("created",),)
