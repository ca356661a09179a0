import logging
from uuid import UUID

import pytest

from worker.lms.log import LogLms, LogMailer
from worker.lms.ports import CallKey, CreditRequirement, Deadline, Mail

KEY = CallKey(UUID(int=7), 1)
LATER = Deadline.after(3600)
REQUIREMENT = CreditRequirement("42", "course-1", "block-1")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="worker.lms")
    return caplog


def test_each_call_is_one_line_of_ids(log: pytest.LogCaptureFixture) -> None:
    lms = LogLms()

    lms.set_status(REQUIREMENT, "submitted", KEY, LATER)
    lms.remove(REQUIREMENT, KEY, LATER)
    lms.course_name("42", "course-1", None, LATER)

    effect = "effect 00000000-0000-0000-0000-000000000007"
    assert log.messages == [
        f"credit set to submitted: user '42', course 'course-1', proctored_exam 'block-1', {effect}",
        f"credit removed: user '42', course 'course-1', proctored_exam 'block-1', {effect}",
        "credit state asked: user '42', course 'course-1'",
    ]
    assert {record.name for record in log.records} == {"worker.lms"}


def test_names_addresses_and_subjects_are_not_logged(log: pytest.LogCaptureFixture) -> None:
    LogLms().delete_student_attempt("ada", "course-1", "block-1", "grace", KEY, LATER)
    LogMailer().send(Mail(KEY.effect_id, "ada@example.org", "Algebra", "Hello ada", "<p>Hello ada"), LATER)

    assert len(log.messages) == 2
    assert not any(word in log.text for word in ("ada", "grace", "@", "Algebra"))


def test_an_id_cannot_forge_a_line(log: pytest.LogCaptureFixture) -> None:
    LogLms().course_name("42\nERROR all is lost", "course-1", None, LATER)

    assert "\n" not in log.messages[0]
