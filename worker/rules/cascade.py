"""Selects the exams that a cascade declines (docs/rules.md, "Cascade")."""

from collections.abc import Iterable, Mapping

from events.vocabulary import COMPLETED
from worker.rules.values import Attempt, Exam, Requirement


def siblings_to_decline(
    course_id: str, content_id: str, exams: Iterable[Exam], attempts: Mapping[str, Attempt]
) -> list[Exam]:
    """Return the exams whose attempts a cascade declines, sorted by exam id (docs/rules.md, "Cascade").

    A sibling is another active, proctored exam of the course that is no practice exam and has other content.
    A sibling is left alone if the learner has a completed attempt at the same content, at this exam or at another
    one, because a decline would take back the credit for that content. A sibling without an attempt is returned as
    well: the caller creates an attempt there before it declines it.

    Parameters:
        course_id: the course of the exam that started the cascade.
        content_id: the content id of that exam.
        exams: every exam of the course, also those that are not active.
        attempts: the learner's live attempts, by exam id.
    """
    exams = list(exams)
    completed = _completed_content(exams, attempts)
    siblings = (
        exam
        for exam in exams
        if exam.course_id == course_id
        and exam.content_id != content_id
        and exam.is_active
        and exam.is_proctored
        and not exam.is_practice_exam
        and (exam.course_id, exam.content_id) not in completed
    )
    return sorted(siblings, key=lambda exam: exam.exam_id)


def _completed_content(exams: Iterable[Exam], attempts: Mapping[str, Attempt]) -> set[Requirement]:
    """Return the contents with a completed attempt: those of the exams now, and those whose credit was told."""
    completed = {exam_id: attempt for exam_id, attempt in attempts.items() if attempt.status in COMPLETED}
    now = {(exam.course_id, exam.content_id) for exam in exams if exam.exam_id in completed}
    return now.union(*(attempt.credit_told for attempt in completed.values()))
