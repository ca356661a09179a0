"""The oracle, against what the rules' text says, written out by hand."""

import pytest

from events.commands import AttemptRemove, CommandData
from events.vocabulary import QuarantineCode
from invigilator.demo.expected import expect
from invigilator.demo.malformed import Malformed
from invigilator.demo.picture import AttemptView, Picture
from invigilator.demo.session import Message
from invigilator.demo.stories import ExamRole
from tests.unit.demo.sessions import COURSE, FINAL, MIDTERM, TIMED, WHO, command, session
from worker.policies import Policies
from worker.rules.policy import PRESETS

MID, FIN, PRACTICE, TIM = ExamRole.MIDTERM, ExamRole.FINAL, ExamRole.PRACTICE, ExamRole.TIMED


def expected(
    *asked: CommandData | Message, policies: Policies | None = None, instructor: bool = True
) -> Picture:
    return expect(session(*asked), policies or Policies(), instructor=instructor)


def test_a_verified_exam_earns_credit_and_two_mails() -> None:
    picture = expected(*WHO.sit(MID, "verified"))
    assert picture.credit == {("ada", "midterm"): "satisfied"}
    assert picture.mails == {
        ("ada@r1.example.org", "Your proctored exam was submitted: Midterm"): 1,
        ("ada@r1.example.org", "Your proctored exam was verified: Midterm"): 1,
    }
    assert picture.effects == {"set_credit_status": 2, "send_status_email": 2}
    assert picture.histories == {
        ("ada", MIDTERM): (
            ("created", "ready_to_start", "started", "ready_to_submit", "submitted", "verified"),
        )
    }
    assert picture.attempts == {
        ("ada", MIDTERM): AttemptView("verified", True, f"vendor-ada-{MID}", started=True, completed=True)
    }
    assert set(picture.outcomes.values()) == {"applied"}


def test_a_practice_exam_earns_credit_and_no_mail() -> None:
    picture = expected(*WHO.sit(PRACTICE))
    assert picture.credit == {("ada", "practice"): "submitted"}
    assert picture.mails == {}


def test_a_decline_declines_the_other_proctored_exam_before_the_next_command() -> None:
    picture = expected(WHO.create(MID), WHO.move(MID, "declined"), WHO.create(FIN), WHO.move(FIN, "started"))
    assert picture.credit == {("ada", "midterm"): "failed", ("ada", "final"): "failed"}
    assert picture.outcomes["c3"] == "rejected attempt_exists"
    assert picture.outcomes["c4"] == "rejected illegal_transition"
    assert picture.attempts == {
        ("ada", MIDTERM): AttemptView("declined", False, None, started=False, completed=False),
        ("ada", FINAL): AttemptView("declined", False, None, started=False, completed=False),
    }
    assert picture.effects == {"set_credit_status": 2, "cascade_decline": 1}
    assert picture.mails == {}


def test_a_cascade_leaves_what_is_completed_and_what_its_own_exam_is() -> None:
    picture = expected(
        *WHO.sit(MID), WHO.create(FIN), WHO.create(TIM, proctored=False), WHO.move(TIM, "declined")
    )
    assert picture.histories["ada", MIDTERM][0][-1] == "submitted"
    assert picture.histories["ada", FINAL] == (("created", "declined"),)
    assert picture.attempts["ada", FINAL].taking_as_proctored  # a cascade does not clear it
    assert ("ada", f"{COURSE}-practice") not in picture.attempts
    assert picture.histories["ada", TIMED] == (("created", "declined"),)


def test_a_rejection_cascades_without_clearing() -> None:
    picture = expected(*WHO.sit(MID, "rejected"))
    assert picture.attempts["ada", MIDTERM].external_id is not None
    assert picture.histories["ada", FINAL] == (("created", "declined"),)


def test_a_removal_takes_the_credit_back_and_resets_the_work() -> None:
    picture = expected(*WHO.sit(MID), WHO.remove(MID), WHO.remove(MID))
    assert picture.credit == {}
    assert picture.deletions == {("ada", "midterm", "demo-staff"): 1}
    assert picture.attempts == {}
    assert picture.histories["ada", MIDTERM][0][-2:] == ("submitted", "removed")
    assert picture.effects["remove_credit_status"] == picture.effects["delete_student_attempt"] == 1
    assert picture.outcomes["c7"] == "rejected attempt_not_found"


def test_a_second_attempt_has_a_history_of_its_own() -> None:
    picture = expected(WHO.create(FIN), WHO.remove(FIN), WHO.create(FIN), WHO.move(FIN, "timed_out"))
    assert picture.histories["ada", FINAL] == (("created", "removed"), ("created", "timed_out"))
    assert "remove_credit_status" not in picture.effects


def test_without_an_instructor_service_nothing_is_reset() -> None:
    picture = expected(*WHO.sit(MID), WHO.remove(MID), instructor=False)
    assert picture.deletions == {}
    assert "delete_student_attempt" not in picture.effects


@pytest.mark.parametrize(
    ("preset", "outcome", "mails"), [("provider", "unchanged", 1), ("platform", "applied", 2)]
)
def test_the_policy_counts(preset: str, outcome: str, mails: int) -> None:
    picture = expected(*WHO.sit(MID, "submitted"), policies=Policies(PRESETS[preset]))
    assert picture.outcomes["c6"] == outcome
    assert sum(picture.mails.values()) == picture.effects["send_status_email"] == mails


def test_a_second_copy_changes_nothing() -> None:
    once = session(*WHO.sit(MID, "verified"))
    twice = session(*WHO.sit(MID, "verified"), *once.messages)
    assert expect(twice, Policies(), instructor=True) == expect(once, Policies(), instructor=True)


def test_a_reused_id_and_a_malformed_message_go_to_quarantine() -> None:
    other = command("c1", AttemptRemove(exam_id=MIDTERM, user_id="ada"))
    picture = expected(WHO.create(MID), other, Malformed(b"{", QuarantineCode.NOT_JSON))
    assert picture.quarantine == {"id_reused": 1, "not_json": 1}
    assert picture.histories["ada", MIDTERM] == (("created",),)
