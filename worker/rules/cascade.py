"""Which sibling exams does a cascade decline? (docs/rules.md, "Cascade")."""

from collections.abc import Iterable, Mapping

from events.vocabulary import COMPLETED
from worker.rules.attempts import Attempt, Exam


def siblings_to_decline(
    course_id: str, content_id: str, exams: Iterable[Exam], attempts: Mapping[str, Attempt]
) -> list[Exam]:
    """The exams whose attempt a cascade declines, by exam id; one without an attempt gets one first.

    Parameters:
        course_id: the course of the exam that started the cascade.
        content_id: its content; exams with the same content are no siblings.
        exams: exams to choose from.
        attempts: the same learner's live attempts, by exam id.
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
