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
LAG = 20
"""In a stream, a learner's second wave follows after so many other learners have begun."""

RESULTS = {
    ("history", "v1"): "created started submitted verified",
    ("history", "d1"): "created declined",
    ("history", "d2"): "created declined",
    ("history", "d3"): "created declined",
    ("credit", "v1"): "submitted satisfied",
    ("credit", "d1"): "failed",
    ("credit", "d2"): "failed",
    ("credit", "d3"): "failed",
    ("mail", "v1"): "submitted verified",
}
"""What each learner has in the end, by exam: the statuses of the attempt, the credits and the mails, in order."""
CALLS = {"submitted": 2, "verified": 2, "declined": 3}
"""The credits and mails that follow from a command, its cascade included, by the status that it asks for."""


def steps(learners: Iterable[int], wave: tuple[tuple[str, str | None], ...]) -> Iterator[Step]:
    """Yield the commands of these learners in a wave: the first step of every learner, then the second, etc."""
    learners = list(learners)
    for exam, to_status in wave:
        for learner in learners:
            yield Step(learner, exam, to_status)


def ordered(learners: range, wave: str) -> Iterator[Step]:
    """Yield the commands of these learners: `first` or `second` is a wave, and `stream` is both of them.

    Raises:
        ValueError: there is no such wave.
    """
    match wave:
        case "first":
            yield from steps(learners, FIRST_WAVE)
        case "second":
            yield from steps(learners, SECOND_WAVE)
        case "stream":
            yield from _stream(learners)
        case _:
            raise ValueError(f"no such wave: {wave}")


def _stream(learners: range) -> Iterator[Step]:
    for number in range(len(learners) + LAG):
        yield from steps(learners[number : number + 1], FIRST_WAVE)
        if number >= LAG:
            yield from steps(learners[number - LAG : number - LAG + 1], SECOND_WAVE)
