"""What must be true of a webhook after a storm. Its endpoint has kept every event that it has taken."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.acceptance.harness import Stack

_LOG = "SELECT id FROM events"
# A try whose end is not known for sure: nobody recorded it, or the answer did not come.
_DELIVERIES = """
SELECT effects.id, event_id, state, bool_or(result = 'failed') AS has_failed, count(*) FILTER (
    WHERE result = 'lost' OR (result = 'retry' AND (
        tries.error LIKE 'no answer from webhook%' OR tries.error LIKE 'webhook% took longer than%'
    ))) AS unsure
FROM effects LEFT JOIN tries ON effect_id = effects.id WHERE event_id IS NOT NULL
GROUP BY effects.id, event_id, state
"""


@dataclass(frozen=True, slots=True)
class DeliveryAudit:
    """The invariants of a webhook with `order = "learner"`.

    Parameters:
        arrivals: the events that the endpoint has taken, in the order in which they came.
        cancelled: the ids of the effects that an operator has cancelled, also if they were retried afterwards.
    """

    stack: Stack
    arrivals: Sequence[Mapping[str, Any]]
    cancelled: Collection[str]

    def checks(self) -> dict[str, Callable[[], Iterable[object]]]:
        """Return each invariant with what finds its offenders."""
        return {
            "the webhook has every event of the log, and no other": self._lost,
            "a copy of a delivery is the same event": self._changed,
            "the events of a learner come to the webhook in order": self._out_of_order,
            "a delivery comes again only when an answer or its record was lost": self._doubled,
        }

    def _lost(self) -> Iterable[object]:
        yield from set(self._copies()) ^ {str(row.id) for row in self.stack.rows(_LOG)}

    def _changed(self) -> Iterable[object]:
        first: dict[str, Mapping[str, Any]] = {}
        for event in self.arrivals:
            if first.setdefault(event["id"], event) != event:
                yield event, first[event["id"]]

    def _out_of_order(self) -> Iterable[object]:
        """Events that came for the first time after a newer one of their learner had come.

        One whose delivery had failed for good, or was cancelled, may come late: an operator has retried it.
        """
        late = {
            str(row.event_id)
            for row in self.stack.rows(_DELIVERIES)
            if row.has_failed or str(row.id) in self.cancelled
        }
        newest: dict[str, int] = {}
        known: set[str] = set()
        for event in self.arrivals:
            learner, position = event.get("partitionkey"), int(event["sequence"])
            if learner is None or event["id"] in known | late:
                continue
            known.add(event["id"])
            if position < newest.get(learner, 0):
                yield event
            newest[learner] = max(position, newest.get(learner, 0))

    def _doubled(self) -> Iterable[object]:
        copies = self._copies()
        for row in self.stack.rows(_DELIVERIES):
            if copies[str(row.event_id)] > (row.state == "done") + row.unsure:
                yield f"came {copies[str(row.event_id)]} times", row

    def _copies(self) -> Counter[str]:
        return Counter(event["id"] for event in self.arrivals)
