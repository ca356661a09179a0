"""The pace of rounds: a few at once, and then one for each interval."""

import time

import pytest

from worker.pacing import Pacer

INTERVAL_S = 100.0
NOW = 1_000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test may change."""
    now = [NOW]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def paces(pacer: Pacer, number: int) -> list[float]:
    """How long each of so many rounds should have waited, which all begin now."""
    pauses = []
    for _ in range(number):
        pauses.append(pacer.pause_s())
        pacer.begin()
    return pauses


def test_a_few_begin_at_once_and_the_others_after_an_interval_each(clock: list[float]) -> None:
    assert paces(Pacer(INTERVAL_S, burst=3), 5) == [0, 0, 0, INTERVAL_S, 2 * INTERVAL_S]


def test_a_rest_of_an_interval_gives_one_more(clock: list[float]) -> None:
    pacer = Pacer(INTERVAL_S, burst=3)
    paces(pacer, 3)
    clock[0] += INTERVAL_S
    assert paces(pacer, 2) == [0, INTERVAL_S]


def test_a_long_rest_gives_no_more_than_the_burst(clock: list[float]) -> None:
    pacer = Pacer(INTERVAL_S, burst=3)
    paces(pacer, 5)
    clock[0] += 1_000 * INTERVAL_S
    assert paces(pacer, 4) == [0, 0, 0, INTERVAL_S]
