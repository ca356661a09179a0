"""Does the workload with edx-proctoring. This module can only be imported after `django.setup()`."""

import random
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from django.contrib.auth import get_user_model
from django.db import transaction
from edx_django_utils.cache import RequestCache
from edx_proctoring import api
from edx_proctoring.exceptions import ProctoredExamNotFoundException
from edx_proctoring.models import ProctoredExamStudentAttempt

from benchmarks import workload
from benchmarks.peer import services

TIME_LIMIT_MINS = 90


def ensure_exams() -> dict[str, int]:
    """Return the ids of the workload's exams by name. Missing exams are created."""
    return {exam: _ensure_exam(course, exam) for course, exams in workload.EXAMS.items() for exam in exams}


def _ensure_exam(course: str, exam: str) -> int:
    course_id = f"course-v1:Example+{course}+2026"
    content_id = f"block-v1:Example+{course}+2026+type@sequential+block@{exam}"
    try:
        exam_id: int = api.get_exam_by_content_id(course_id, content_id)["id"]
    except ProctoredExamNotFoundException:
        exam_id = api.create_exam(course_id, content_id, exam_name=exam, time_limit_mins=TIME_LIMIT_MINS)
    return exam_id


def run(
    exams: dict[str, int], numbers: Iterable[int], pause_s: Sequence[float] | None = None
) -> dict[str, object]:
    """Do the work of new learners, and return what it took, without the creation of users and the final count.

    Parameters:
        exams: the ids of the exams, from `ensure_exams`.
        numbers: the numbers of the learners.
        pause_s: the range of a random pause in seconds before each call. Pauses are not measured.

    Raises:
        IntegrityError: the database contains one of the learners already.
    """
    learners = _Learners(exams, _create_users(numbers), pause_s or (0, 0))
    services.calls.clear()
    cpu_start = time.process_time()
    learners.go(workload.FIRST_WAVE)
    learners.go(workload.SECOND_WAVE)
    cpu_seconds = time.process_time() - cpu_start
    transitions = learners.transitions()
    assert transitions == workload.TRANSITIONS_PER_LEARNER * len(learners.users), transitions
    return {
        "seconds": sum(map(sum, learners.steps_ms.values())) / 1000,
        "cpu_seconds": cpu_seconds,
        "transitions": transitions,
        "credits": services.calls[services.CREDIT],
        "mails": services.calls[services.MAIL],
        "service_calls": services.calls,
        "steps_ms": learners.steps_ms,
    }


def _create_users(numbers: Iterable[int]) -> dict[int, int]:
    """Create the users, and return their ids by the number of the learner."""
    user = get_user_model()
    users = {
        number: user(username=f"learner-{number}", email=f"learner-{number}@example.com")
        for number in numbers
    }
    user.objects.bulk_create(users.values())
    return {number: row.id for number, row in users.items()}


@dataclass
class _Learners:
    exams: dict[str, int]
    users: dict[int, int]
    pause_s: Sequence[float]
    attempts: dict[tuple[int, str], int] = field(default_factory=dict)
    steps_ms: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def go(self, wave: tuple[tuple[str, str | None], ...]) -> None:
        """Make the calls of a wave one after the other, and time each until its commit."""
        for step in workload.steps(self.users, wave):
            time.sleep(random.uniform(*self.pause_s))  # noqa: S311 - no secret
            start = time.perf_counter()
            self._take(step)
            self.steps_ms[step.to_status or "create"].append((time.perf_counter() - start) * 1000)

    def _take(self, step: workload.Step) -> None:
        # This imitates a request of edx-platform. It is one transaction; autocommit costs 5 % more CPU and 8 % more
        # time. At its end the request's cache is emptied, which costs nothing measurable.
        with transaction.atomic():
            if step.to_status is None:
                self.attempts[step.learner, step.exam] = api.create_exam_attempt(
                    self.exams[step.exam], self.users[step.learner], taking_as_proctored=True
                )
            else:
                api.update_attempt_status(self.attempts[step.learner, step.exam], step.to_status)
        RequestCache.clear_all_namespaces()

    def transitions(self) -> int:
        """Count the transitions of the attempts in edx-proctoring's own history."""
        history = ProctoredExamStudentAttempt.history.filter(user_id__in=self.users.values())
        # edx-proctoring saves the declined attempt twice, so only distinct statuses count.
        count: int = history.values("id", "status").distinct().count()
        return count
