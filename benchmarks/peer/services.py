"""What edx-proctoring asks of the LMS around it: answered at no cost, or after a fixed delay, and counted."""

import time
from collections import Counter
from collections.abc import Sequence

from edx_proctoring.runtime import set_runtime_service

CREDIT = "set_credit_requirement_status"
MAIL = "get_proctoring_escalation_email"
"""Called once for each mail that is written, which spares the dummy mail backend a counter."""

STATE: dict[str, object] = {
    "course_name": "Course",
    "enrollment_mode": "verified",
    "profile_fullname": "Learner",
    "student_email": "learner@example.com",
    "credit_requirement_status": [],
}
"""Of every learner in every course."""

calls: Counter[str] = Counter()
"""How often each call of a service was made."""

_delay_s = 0.0


def install(service_ms: float) -> None:
    """Give edx-proctoring its services.

    Parameters:
        service_ms: what it takes to set a credit status; with `SlowMail` as the mail backend also each mail. All
            other calls cost nothing: ours makes none of them, or the LMS answers them within its own process.
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
    """The learner's state in the course is asked for at every change of status; not every one is written."""

    def get_credit_state(
        self, user_id: int, course_key: str, return_course_info: bool = False
    ) -> dict[str, object]:
        """Always the same."""
        del user_id, course_key, return_course_info
        calls["get_credit_state"] += 1
        return STATE

    def set_credit_requirement_status(
        self, user_id: int, course_key_or_id: str, req_namespace: str, req_name: str, status: str
    ) -> None:
        """Forgotten."""
        del user_id, course_key_or_id, req_namespace, req_name, status
        calls[CREDIT] += 1
        _wait()


class Instructor:
    """Told when an exam is submitted; asked for the address that a mail names for questions."""

    def complete_student_attempt(self, user_identifier: str, content_id: str) -> None:
        """Forgotten."""
        del user_identifier, content_id
        calls["complete_student_attempt"] += 1

    def get_proctoring_escalation_email(self, course_key: str) -> None:
        """None: the mail then names the default."""
        del course_key
        calls[MAIL] += 1


class Grades:
    """Asked only about a rejected attempt, which the workload has not."""

    def should_override_grade_on_rejected_exam(self, course_key: str) -> bool:
        """Never."""
        del course_key
        return False


class Certificates:
    """Asked only when a grade was overridden."""


class SlowMail:
    """A mail backend of Django: each mail takes the delay and is dropped."""

    def __init__(self, fail_silently: bool = False) -> None:
        del fail_silently

    def send_messages(self, messages: Sequence[object]) -> int:
        """How many were sent: all."""
        for _ in messages:
            _wait()
        return len(messages)
