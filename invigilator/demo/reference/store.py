"""The memory of the reference LMS, and how it uses the two headers of a call. It does no network I/O."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

Target = tuple[str, str, str, str]  # user, course, namespace, name

SET = "/credit/set-requirement-status"
REMOVE = "/credit/remove-requirement-status"
DELETE = "/instructor/delete-student-attempt"

_REQUIREMENT = frozenset({"user_id", "course_id", "req_namespace", "req_name"})
FIELDS: Mapping[str, frozenset[str]] = {
    SET: _REQUIREMENT | {"status"},
    REMOVE: _REQUIREMENT,
    DELETE: frozenset({"username", "course_id", "content_id", "requested_by"}),
}
NULLABLE = frozenset({"requested_by"})


class Result(StrEnum):
    """The result of a call."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"  # the idempotency key was seen before; the answer is the same as the first time
    LATE = "late"  # a call with a higher sequence number came before for this target; the answer is a success
    ASKED = "asked"  # a GET
    REFUSED = "refused"  # the call does not follow the contract
    FAILED = "failed"  # answered 503 on purpose, before anything changed


@dataclass(frozen=True, slots=True)
class Call:
    """A POST that followed the contract, and its result."""

    path: str
    body: Mapping[str, str | None]
    effect_id: str
    sequence: int
    result: Result


class Store:
    """Holds credit by target, resets and course names. Many threads may use it at the same time."""

    def __init__(self) -> None:
        self.credit: dict[Target, str] = {}
        self.course_names: dict[str, str] = {}
        self.calls: list[Call] = []
        self.counts: Counter[Result] = Counter()
        self._keys: set[str] = set()
        self._newest: dict[Target, int] = {}
        self._lock = threading.Lock()

    @property
    def deletions(self) -> list[Mapping[str, str | None]]:
        """The bodies of the resets that were carried out, in order."""
        with self._lock:
            return [call.body for call in self.calls if call.path == DELETE and call.result is Result.APPLIED]

    def count(self, result: Result) -> None:
        """Count a call that does not change the store."""
        with self._lock:
            self.counts[result] += 1

    def write(self, path: str, body: Mapping[str, str | None], effect_id: str, sequence: int) -> None:
        """Apply a well-formed call, unless it is a duplicate or a newer call for its target came before.

        Parameters:
            path: one of `FIELDS`. `SET` and `REMOVE` change credit; every other call is only kept.
            body: the fields of the call.
            effect_id: the idempotency key.
            sequence: the call's number; a newer call for the same target has a higher one.
        """
        with self._lock:
            result = self._take(path, body, effect_id, sequence)
            self.counts[result] += 1
            self.calls.append(Call(path, body, effect_id, sequence, result))

    def _take(self, path: str, body: Mapping[str, str | None], effect_id: str, sequence: int) -> Result:
        if effect_id in self._keys:
            return Result.DUPLICATE
        result = self._set_credit(path, body, sequence) if path in (SET, REMOVE) else Result.APPLIED
        # A call that raises has not been seen: its retry must not be taken for a duplicate.
        self._keys.add(effect_id)
        return result

    def _set_credit(self, path: str, body: Mapping[str, str | None], sequence: int) -> Result:
        target = _target(body)
        if sequence < self._newest.get(target, sequence):
            return Result.LATE
        self._newest[target] = sequence
        if path == SET:
            self.credit[target] = str(body["status"])
        else:
            self.credit.pop(target, None)
        return Result.APPLIED


def is_well_formed(path: str, body: object) -> bool:
    """Return whether `body` has exactly the fields of the call `path`, and each has the right type."""
    if not isinstance(body, dict) or body.keys() != FIELDS[path]:
        return False
    return all(isinstance(value, str) or (value is None and name in NULLABLE) for name, value in body.items())


def _target(body: Mapping[str, str | None]) -> Target:
    user, course, namespace, name = (
        str(body[field]) for field in ("user_id", "course_id", "req_namespace", "req_name")
    )
    return user, course, namespace, name
