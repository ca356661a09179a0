from uuid import UUID

from structlog.typing import EventDict

from worker.lms.log import LogLms, LogMailer
from worker.lms.ports import CallKey, CreditRequirement, Deadline, Mail

KEY = CallKey(UUID(int=7), 1)
LATER = Deadline.after(3600)
REQUIREMENT = CreditRequirement("42", "course-1", "block-1")


def test_each_call_is_one_line_of_ids(logged: list[EventDict]) -> None:
    lms = LogLms()
    lms.set_status(REQUIREMENT, "submitted", KEY, LATER)
    lms.remove(REQUIREMENT, KEY, LATER)
    lms.course_name("42", "course-1", None, LATER)
    ids = {"log_level": "info", "user": "42", "course": "course-1"}
    assert logged == [
        {"event": "credit set", "status": "submitted", "content": "block-1", "effect": KEY.effect_id, **ids},
        {"event": "credit removed", "content": "block-1", "effect": KEY.effect_id, **ids},
        {"event": "credit state asked", **ids},
    ]


def test_names_addresses_and_subjects_are_not_logged(logged: list[EventDict]) -> None:
    LogLms().delete_student_attempt("ada", "course-1", "block-1", "grace", KEY, LATER)
    LogMailer().send(Mail(KEY.effect_id, "ada@example.org", "Algebra", "Hello ada", "<p>Hello ada"), LATER)
    assert len(logged) == 2
    assert not any(word in str(logged) for word in ("ada", "grace", "@", "Algebra"))
