"""The audit of events finds what it looks for."""

import json
from pathlib import Path
from typing import cast

import pytest

from tests.acceptance.harness import Stack
from tests.chaos.listener import Arrival, Listener, write_subscriptions
from tests.chaos.told import EventAudit

LATE = "no event comes late, unless a wiped broker has lost it"
CHANGED = "a copy of an event is the same event"
AGAIN = "events come again only where an answer was lost, or a person asked for it"


def arrival(position: int, name: str = "", again: bool = False) -> Arrival:
    event = {"id": f"e{position}", "sequence": f"{position:020}", "name": name}
    return Arrival.read(json.dumps(event).encode(), again)


@pytest.fixture
def listener(tmp_path: Path) -> Listener:
    return Listener("redis://127.0.0.1:1", write_subscriptions(tmp_path))


def found(listener: Listener, invariant: str, faults: int = 0, overtaken: int = 0) -> list[object]:
    nothing = cast("Stack", None)  # these invariants do not look at the database
    audit = EventAudit(nothing, listener, {"relay kill": faults, "lms slow": 9}, 0, overtaken)
    return list(audit.checks()[invariant]())


def test_an_event_that_comes_late(listener: Listener) -> None:
    listener.arrivals = [arrival(1), arrival(3), late := arrival(2), arrival(1)]
    assert found(listener, LATE) == [late]
    # unless the broker was wiped, or says that it may have come before
    listener.wiped = [range(2, 3)]
    assert found(listener, LATE) == []
    listener.wiped, listener.arrivals[2] = [], arrival(2, again=True)
    assert found(listener, LATE) == []


def test_a_copy_that_says_something_else(listener: Listener) -> None:
    listener.arrivals = [arrival(1), arrival(1)]
    assert found(listener, CHANGED) == []
    listener.arrivals.append(arrival(1, "another"))
    assert found(listener, CHANGED) == [(listener.arrivals[2], listener.arrivals[0])]


def test_events_that_come_again_for_no_reason(listener: Listener) -> None:
    listener.arrivals = [arrival(1), arrival(2), arrival(1), arrival(2)]
    assert found(listener, AGAIN, faults=1) == []
    assert found(listener, AGAIN, overtaken=1) == []
    assert found(listener, AGAIN) == [(2, 1)]


def test_what_a_wipe_has_lost(listener: Listener) -> None:
    # Given a listener that has the first of three events, and a broker that is wiped
    listener.arrivals = [arrival(1)]
    assert not listener.misses
    with listener.wiping():
        pass
    # When a later one comes, then it is the second one that is asked for
    listener.arrivals.append(arrival(3))
    assert listener.misses
    assert listener.first_missing([(1, "e1"), (2, "e2"), (3, "e3")]) == 2
    listener.told_again(up_to=3)
    assert (listener.misses, listener.wiped) == (False, [range(2, 4)])
