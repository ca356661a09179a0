"""Selects the exams that a cascade declines (docs/rules.md, "Cascade")."""

from collections.abc import Iterable, Mapping

from events.vocabulary import COMPLETED
from worker.rules.values import Attempt, Exam


def siblings_to_decline(
    course_id: str, content_id: str, exams: Iterable[Exam], attempts: Mapping[str, Attempt]
) -> list[Exam]:
    """Return the exams whose attempts a cascade declines, sorted by exam id (docs/rules.md, "Cascade").

    A sibling is another active, proctored exam of the course that is no practice exam and has other content.
    Siblings with a completed attempt are left alone. A sibling without an attempt is returned as well: the caller
    creates an attempt there before it declines it.

    Parameters:
        course_id: the course of the exam that started the cascade.
        content_id: the content id of that exam.
        exams: the exams to choose from.
        attempts: the learner's live attempts, by exam id.
    """
    siblings = (
        exam
        for exam in exams
        if exam.course_id == course_id
        and exam.content_id != content_id
        and exam.is_active
        and exam.is_proctored
        and not exam.is_practice_exam
    )
    return sorted(
        (exam for exam in siblings if not _is_completed(attempts.get(exam.exam_id))),
        key=lambda exam: exam.exam_id,
    )


def _is_completed(attempt: Attempt | None) -> bool:
    return attempt is not None and attempt.status in COMPLETED
