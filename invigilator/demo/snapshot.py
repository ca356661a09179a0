"""Everything that can be compared: what a session must leave behind, or what it has left."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class AttemptView:
    """A live attempt, its times only as set or unset."""

    status: str
    taking_as_proctored: bool
    external_id: str | None
    started: bool
    completed: bool


REMOVED = "removed"
"""Ends the history of a removed attempt."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is there, on both sides. Built twice: from the rules alone, and from what the system did."""

    credit: Mapping[tuple[str, str], str]
    """The LMS's credit status by (learner, content)."""
    mails: Mapping[tuple[str, str], int]
    """How many different mails each (address, subject) has."""
    deletions: Mapping[tuple[str, str, str | None], int]
    """How often the instructor service reset (username, content, requested by)."""
    attempts: Mapping[tuple[str, str], AttemptView]
    """Live attempts by (learner, exam)."""
    histories: Mapping[tuple[str, str], tuple[tuple[str, ...], ...]]
    """The statuses of each attempt at (learner, exam), one after the other."""
    outcomes: Mapping[str, str]
    """What became of each command, by its id: `applied`, `rejected illegal_transition` …"""
    quarantine: Mapping[str, int]
    """How many messages each code has."""
    effects: Mapping[str, int]
    """How many effects of each kind were owed."""
    unfinished: Mapping[str, int]
    """How many effects of each `kind state` are neither done nor superseded."""


def outcome_text(outcome: str | None, code: str | None) -> str:
    """An outcome and its code as one text."""
    return " ".join(str(word) for word in (outcome or "no outcome", code) if word is not None)


def differences(expected: Snapshot, found: Snapshot) -> list[str]:
    """One line for each thing that is not as expected; ids only."""
    lines = []
    for field in fields(Snapshot):
        must, does = getattr(expected, field.name), getattr(found, field.name)
        lines += [
            f"{field.name}, {_text(key)}: expected {_text(must.get(key))}, found {_text(does.get(key))}"
            for key in sorted(must.keys() | does.keys(), key=str)
            if must.get(key) != does.get(key)
        ]
    return lines


def _text(value: Any) -> str:
    if value is None:
        return "nothing"
    return " · ".join(map(_text, value)) if isinstance(value, tuple) else str(value)
