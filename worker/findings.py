"""What a check of something from outside has found."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What came of a check."""

    OK = "ok"
    NOTE = "note"  # works, and could be better
    PROBLEM = "problem"  # does not fit what is asked for


@dataclass(frozen=True, slots=True)
class Finding:
    """One check and its verdict. `detail` says what to do about it."""

    check: str
    verdict: Verdict
    detail: str = ""
