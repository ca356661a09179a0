"""The work that every contestant does for one learner. This module imports the standard library only.

In the course `VERIFIED` the learner's attempt is created, started, submitted and verified. In the course `DECLINED`
an attempt at the first of three exams is created and declined, and its cascade declines the two siblings.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

VERIFIED, DECLINED = "verified", "declined"
EXAMS = {VERIFIED: ("v1",), DECLINED: ("d1", "d2", "d3")}
"""The exams of each course. All are proctored and active, and none is a practice exam."""

TRANSITIONS_PER_LEARNER = 10
"""Four of the verified attempt, two of the declined one, and two of each of its two siblings."""
CREDITS_PER_LEARNER = 5
"""`submitted` and `satisfied` for the verified attempt; `failed` for the declined one and for each sibling."""
MAILS_PER_LEARNER = 2
"""One for `submitted` and one for `verified`."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command of one learner. If `to_status` is None, the command creates a proctored attempt."""

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
"""The second wave begins after every effect of the first has ended, so that no newer credit supersedes an older
one.

All contestants then deliver the same number of credits.
"""
COMMANDS_PER_LEARNER = len(FIRST_WAVE) + len(SECOND_WAVE)


def steps(learners: Iterable[int], wave: tuple[tuple[str, str | None], ...]) -> Iterator[Step]:
    """Yield the commands of these learners in a wave: the first step of every learner, then the second, etc."""
    learners = list(learners)
    for exam, to_status in wave:
        for learner in learners:
            yield Step(learner, exam, to_status)
