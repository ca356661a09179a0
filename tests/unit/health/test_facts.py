"""How often the database is asked what consumers have in hand."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, cast

import pytest
from sqlalchemy import Engine

from worker.health import facts

ENGINE = cast(Engine, None)


class Looks:
    """What each look finds. The last one is found for ever."""

    def __init__(self, *found: Mapping[int, int]) -> None:
        self._found = list(found)
        self.number = 0

    def __call__(self, _connection: Any) -> Mapping[int, int]:
        self.number += 1
        return self._found[min(self.number, len(self._found)) - 1]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between the looks, which take no time here."""
    taken: list[float] = []
    monkeypatch.setattr(facts, "reading", nullcontext)
    monkeypatch.setattr("worker.health.facts.time.sleep", taken.append)
    return taken


def look(monkeypatch: pytest.MonkeyPatch, looks: Looks, *consumed: int) -> dict[int, int]:
    monkeypatch.setattr("worker.health.facts.shards.in_hand", looks)
    return facts.in_hand(ENGINE, set(consumed))


def test_where_nobody_consumes_nobody_has_anything(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    looks = Looks({0: 5})
    assert look(monkeypatch, looks) == {}
    assert (looks.number, pauses) == (0, [])


def test_it_looks_until_every_consumer_was_seen(monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> None:
    looks = Looks({}, {0: 5}, {1: 3}, {0: 7})
    assert look(monkeypatch, looks, 0, 1) == {0: 5, 1: 3}
    assert looks.number == 3


def test_it_takes_the_most_that_was_seen(monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> None:
    assert look(monkeypatch, Looks({0: 2}, {0: 7}, {0: 1}), 0, 1) == {0: 7}


def test_a_consumer_that_has_nothing_is_looked_at_for_a_few_batches(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    looks = Looks({})
    assert look(monkeypatch, looks, 0) == {}
    assert looks.number == facts.LOOKS
    # Longer than what lies between two batches, and short beside the 300 ms that `status` may take.
    assert 0.05 <= sum(pauses) <= 0.1
