"""The audit of webhooks finds what it looks for."""

from collections.abc import Collection
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from tests.acceptance.harness import Stack
from tests.chaos.delivered import DeliveryAudit

LOST = "the webhook has every event of the log, and no other"
CHANGED = "a copy of a delivery is the same event"
ORDER = "the events of a learner come to the webhook in order"
DOUBLED = "a delivery comes again only when an answer or its record was lost"


def event(position: int, learner: str | None = "42", **more: str) -> dict[str, Any]:
    return {"id": f"e{position}", "sequence": f"{position:020}", "partitionkey": learner, **more}


def delivery(position: int, unsure: int = 0, has_failed: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        id=f"d{position}", event_id=f"e{position}", state="done", unsure=unsure, has_failed=has_failed
    )


@dataclass
class Tables:
    """Stands for the stack's database."""

    log: list[int]
    deliveries: list[SimpleNamespace] = field(default_factory=list)

    def rows(self, query: str) -> list[SimpleNamespace]:
        if "FROM effects" in query:
            return self.deliveries or [delivery(position) for position in self.log]
        return [SimpleNamespace(id=f"e{position}") for position in self.log]


def found(invariant: str, tables: Tables, *arrivals: dict[str, Any], cancelled: Collection[str] = ()) -> Any:
    audit = DeliveryAudit(cast("Stack", tables), arrivals, cancelled)
    return list(audit.checks()[invariant]())


def test_an_event_that_never_came() -> None:
    assert found(LOST, Tables([1, 2]), event(1)) == ["e2"]
    assert found(LOST, Tables([1]), event(1), event(7)) == ["e7"]
    assert found(LOST, Tables([1, 2]), event(1), event(2), event(1)) == []


def test_a_copy_that_says_something_else() -> None:
    other = event(1, more="other")
    assert found(CHANGED, Tables([1]), event(1), other) == [(other, event(1))]
    assert found(CHANGED, Tables([1]), event(1), event(1)) == []


def test_an_event_that_comes_late() -> None:
    late = [event(2), event(1)]
    assert found(ORDER, Tables([1, 2]), *late) == [event(1)]
    # unless it is another learner's, or nobody's, or a copy
    assert found(ORDER, Tables([1, 2]), event(2), event(1, "43")) == []
    assert found(ORDER, Tables([1, 2]), event(2, None), event(1, None)) == []
    assert found(ORDER, Tables([1, 2]), event(1), event(2), event(1)) == []
    # or an operator has retried it
    assert found(ORDER, Tables([1, 2]), *late, cancelled={"d1"}) == []
    assert found(ORDER, Tables([1, 2], [delivery(1, has_failed=True), delivery(2)]), *late) == []


def test_a_delivery_that_comes_again_for_no_reason() -> None:
    assert found(DOUBLED, Tables([1]), event(1)) == []
    [(times, _)] = found(DOUBLED, Tables([1]), event(1), event(1))
    assert times == "came 2 times"
    assert found(DOUBLED, Tables([1], [delivery(1, unsure=1)]), event(1), event(1)) == []
