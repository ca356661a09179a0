"""What must be true of events after a storm: of the log, and of what a listener has heard of it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from events.event_types import EVENT_TYPES
from tests.acceptance.harness import Stack
from tests.chaos.listener import Arrival, Listener

T = TypeVar("T")

CREATED, CHANGED, REMOVED, NOT_APPLIED, QUARANTINED, FAILED, _RECOVERED = EVENT_TYPES

_LOG = "SELECT id, position, type, subject, data FROM events ORDER BY position"
_CODE = "coalesce(attempt_code, attempts.id::text) AS code"
_HISTORY = f"SELECT {_CODE}, transitions.version FROM transitions JOIN attempts ON attempts.id = attempt_id"
_REMOVALS = f"SELECT {_CODE} FROM attempts WHERE removed_at IS NOT NULL"
_NOT_APPLIED = (
    "SELECT source, command_id FROM inbox JOIN outcomes ON inbox.id = inbox_id WHERE outcome <> 'applied'"
)
_FAILURES = "SELECT id FROM effects WHERE failure_told"

DISTURBING = ("relay ", "database ", "broker ")
"""Faults of these may lose an answer, and so have events told again."""
OVERTAKEN = "the feed starts over"
"""What a relay logs that was slower than its lease, as on a busy computer. Another one goes on from the cursor, and
publishes again what this one has published on RabbitMQ."""
RESTARTS = (
    "database kill",
    "database shut_down_immediately",
    "database fail_over",
    "database switch_over",
    "database wake_demoted",
)
"""Faults after which the server of the database starts again, or another one is the primary."""


@dataclass(frozen=True, slots=True)
class EventAudit:
    """The invariants of events.

    Parameters:
        faults: how many of each kind were struck.
        replays: how often a person has had the feed told again.
    """

    stack: Stack
    listener: Listener
    faults: Mapping[str, int]
    replays: int
    overtaken: int = 0
    """How often a relay was slower than its lease."""

    def checks(self) -> dict[str, Callable[[], Iterable[object]]]:
        """Return each invariant with what finds its offenders."""
        return {
            "every change, refusal and failure is told once, in order": self._history,
            "positions have gaps only where the database's server has started": self._gaps,
            "the feed has every event of the log, and no other": self._lost,
            "a copy of an event is the same event": self._changed,
            "no event comes late, unless a wiped broker has lost it": self._late,
            "events come again only where an answer was lost, or a person asked for it": self._again,
        }

    def _history(self) -> Iterable[object]:
        log = self.stack.rows(_LOG)
        versions = defaultdict(list)
        for row in log:
            if row.type in (CREATED, CHANGED):
                versions[row.subject].append(row.data["version"])
        yield from (one for one in versions.items() if one[1] != sorted(one[1]))
        told = Counter((code, version) for code, numbers in versions.items() for version in numbers)
        yield from _difference(told, Counter((row.code, row.version) for row in self.stack.rows(_HISTORY)))
        removed = Counter(row.subject for row in log if row.type == REMOVED)
        yield from _difference(removed, Counter(row.code for row in self.stack.rows(_REMOVALS)))
        refused = Counter((row.data["source"], row.data["id"]) for row in log if row.type == NOT_APPLIED)
        outcomes = Counter((row.source, row.command_id) for row in self.stack.rows(_NOT_APPLIED))
        yield from _difference(refused, outcomes)
        quarantined = Counter(
            {"quarantined": sum(row.data["count"] for row in log if row.type == QUARANTINED)}
        )
        kept = self.stack.number("SELECT count(*) FROM quarantine")
        yield from _difference(quarantined, Counter({"quarantined": kept}))
        failed = {row.data["effect_id"] for row in log if row.type == FAILED}
        yield from failed ^ {str(row.id) for row in self.stack.rows(_FAILURES)}

    def _gaps(self) -> Iterable[object]:
        positions = [row.position for row in self.stack.rows(_LOG)]
        gaps = [one for one in pairwise(positions) if one[1] != one[0] + 1]
        if len(gaps) > sum(self.faults.get(what, 0) for what in RESTARTS):
            yield from gaps

    def _lost(self) -> Iterable[object]:
        heard = {one.id for one in self.listener.arrivals}
        yield from heard ^ {str(row.id) for row in self.stack.rows(_LOG)}

    def _changed(self) -> Iterable[object]:
        first: dict[str, Arrival] = {}
        for one in self.listener.arrivals:
            if first.setdefault(one.id, one).event != one.event:
                yield one, first[one.id]

    def _late(self) -> Iterable[object]:
        newest, known = 0, set[str]()
        for one in self.listener.arrivals:
            is_excused = one.again or any(one.position in lost for lost in self.listener.wiped)
            if one.id not in known and one.position < newest and not is_excused:
                yield one
            known.add(one.id)
            newest = max(newest, one.position)

    def _again(self) -> Iterable[object]:
        """Offenders, if the feed went back more often than there is a reason for."""
        positions = [one.position for one in self.listener.arrivals if not one.again]
        steps_back = [one for one in pairwise(positions) if one[1] <= one[0]]
        reasons = sum(number for what, number in self.faults.items() if what.startswith(DISTURBING))
        if len(steps_back) > reasons + self.replays + self.overtaken:
            yield from steps_back


def _difference(told: Counter[T], recorded: Counter[T]) -> Iterable[object]:
    yield from (("never told", one) for one in (recorded - told).elements())
    yield from (("told too often", one) for one in (told - recorded).elements())
