"""The comparable state after a session: built once as it must be, once as it is, and compared."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class AttemptView:
    """The compared fields of a live attempt. Of its times, only whether they are set is compared.

    `code` is the one that the LMS has chosen, or None.
    """

    code: str | None
    status: str
    taking_as_proctored: bool
    external_id: str | None
    started: bool
    completed: bool


REMOVED = "removed"
"""The last entry in the history of a removed attempt."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the system and of the LMS after a session.

    The demo builds two snapshots: one from the rules alone (`expected`) and one from what the system did
    (`observed`).
    """

    credit: Mapping[tuple[str, str], str]
    """The credit status in the LMS by (learner, content)."""
    mails: Mapping[tuple[str, str], int]
    """The number of different mails by (address, subject)."""
    deletions: Mapping[tuple[str, str, str | None], int]
    """The number of resets by the instructor service, by (username, content, requested by)."""
    attempts: Mapping[tuple[str, str], AttemptView]
    """The live attempts by (learner, exam)."""
    histories: Mapping[tuple[str, str], tuple[tuple[str, ...], ...]]
    """The statuses of each attempt in order, by (learner, exam)."""
    outcomes: Mapping[str, str]
    """The outcome of each command by its id, such as `applied` or `rejected illegal_transition`."""
    quarantine: Mapping[str, int]
    """The number of messages in quarantine by code."""
    effects: Mapping[str, int]
    """The number of owed effects by kind."""
    unfinished: Mapping[str, int]
    """The number of effects that are neither done nor superseded, by `kind state`."""


def outcome_text(outcome: str | None, code: str | None) -> str:
    """Join an outcome and its code to one text."""
    return " ".join(str(word) for word in (outcome or "no outcome", code) if word is not None)


def differences(expected: Snapshot, found: Snapshot) -> list[str]:
    """Return one line for each difference between two snapshots. The lines name ids only."""
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
