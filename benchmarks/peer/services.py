"""The services that edx-proctoring needs from its LMS. They count calls, and answer at once or after a delay."""

import time
from collections import Counter
from collections.abc import Sequence

from edx_proctoring.runtime import set_runtime_service

CREDIT = "set_credit_requirement_status"
MAIL = "get_proctoring_escalation_email"
"""edx-proctoring calls this once for each mail, so the count of calls is the count of mails."""

STATE: dict[str, object] = {
    "course_name": "Course",
    "enrollment_mode": "verified",
    "profile_fullname": "Learner",
    "student_email": "learner@example.com",
    "credit_requirement_status": [],
}
"""The credit state of every learner in every course."""

calls: Counter[str] = Counter()
"""The number of calls by name of the call."""

_delay_s = 0.0


def install(service_ms: float) -> None:
    """Install the services in edx-proctoring.

    Parameters:
        service_ms: milliseconds that it takes to set a credit status, and to send a mail with `SlowMail`. All other
            calls cost nothing, because our system does not make them, or an LMS answers them within its own
            process.
    """
    global _delay_s
    _delay_s = service_ms / 1000
    set_runtime_service("credit", Credit())
    set_runtime_service("instructor", Instructor())
    set_runtime_service("grades", Grades())
    set_runtime_service("certificates", Certificates())


def _wait() -> None:
    if _delay_s:
        time.sleep(_delay_s)


class Credit:
    """The credit service. Every change of status asks it for the learner's state, and some set a status."""

    def get_credit_state(
        self, user_id: int, course_key: str, return_course_info: bool = False
    ) -> dict[str, object]:
        """Return the same state for every learner."""
        del user_id, course_key, return_course_info
        calls["get_credit_state"] += 1
        return STATE

    def set_credit_requirement_status(
        self, user_id: int, course_key_or_id: str, req_namespace: str, req_name: str, status: str
    ) -> None:
        """Count the call and wait."""
        del user_id, course_key_or_id, req_namespace, req_name, status
        calls[CREDIT] += 1
        _wait()


class Instructor:
    """The instructor service. It is told of submitted exams, and asked for the contact address in mails."""

    def complete_student_attempt(self, user_identifier: str, content_id: str) -> None:
        """Count the call."""
        del user_identifier, content_id
        calls["complete_student_attempt"] += 1

    def get_proctoring_escalation_email(self, course_key: str) -> None:
        """Return None, so that the mail names the default address."""
        del course_key
        calls[MAIL] += 1


class Grades:
    """The grades service. It is asked about rejected attempts only, and the workload has none."""

    def should_override_grade_on_rejected_exam(self, course_key: str) -> bool:
        """Return False."""
        del course_key
        return False


class Certificates:
    """The certificates service. It is asked only when a grade was overridden."""


class SlowMail:
    """A mail backend of Django that drops each mail after the delay."""

    def __init__(self, fail_silently: bool = False) -> None:
        del fail_silently

    def send_messages(self, messages: Sequence[object]) -> int:
        """Return the number of mails, as if all were sent."""
        for _ in messages:
            _wait()
        return len(messages)
