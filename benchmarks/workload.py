"""The work that every contestant does: what one learner goes through. Imports the standard library only.

In the course `VERIFIED` the learner creates an attempt, starts, submits, and is verified. In the course `DECLINED`
the learner creates an attempt at the first of three exams and declines, and the two siblings are declined with it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

VERIFIED, DECLINED = "verified", "declined"
EXAMS = {VERIFIED: ("v1",), DECLINED: ("d1", "d2", "d3")}
"""The exams of each course: all proctored, active, no practice exams."""

TRANSITIONS_PER_LEARNER = 10
"""created, started, submitted, verified; created, declined; two siblings created and declined."""
CREDITS_PER_LEARNER = 5
"""submitted, satisfied; one for the declined exam and for each sibling."""
MAILS_PER_LEARNER = 2
"""submitted, verified."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command of one learner; `to_status` None creates the attempt, as proctored."""

    learner: int
    exam: str
    to_status: str | None = None


FIRST_WAVE = (
    ("v1", None),
    ("v1", "started"),
    ("v1", "submitted"),
    ("d1", None),
    ("d1", "declined"),
)
SECOND_WAVE = (("v1", "verified"),)
"""By itself, after every follow-up of the first: nobody may skip a credit because a newer one has overtaken it."""
COMMANDS_PER_LEARNER = len(FIRST_WAVE) + len(SECOND_WAVE)


def steps(learners: Iterable[int], wave: tuple[tuple[str, str | None], ...]) -> Iterator[Step]:
    """What these learners do in a wave, everybody's first step first."""
    learners = list(learners)
    for exam, to_status in wave:
        for learner in learners:
            yield Step(learner, exam, to_status)
