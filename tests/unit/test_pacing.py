"""The pace of rounds: a few at once, and then with pauses that follow what a round takes."""

import time

import pytest

from worker.pacing import PAUSE, Pacer

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


def waits(pacer: Pacer, clock: list[float], lasting_s: float, number: int) -> list[float]:
    """How long each of so many rounds waits that last so long, and that somebody always waits for."""
    pauses = []
    for _ in range(number):
        pauses.append(pacer.pause_s())
        clock[0] += pauses[-1]
        pacer.begin()
        clock[0] += lasting_s
        pacer.end()
    return pauses


def test_a_few_begin_at_once_and_the_others_after_an_interval_each(clock: list[float]) -> None:
    assert paces(Pacer(INTERVAL_S, burst=3), 4) == [0, 0, 0, INTERVAL_S]


def test_a_round_that_begins_early_owes_nothing(clock: list[float]) -> None:
    assert paces(Pacer(INTERVAL_S, burst=3), 6) == [0, 0, 0, INTERVAL_S, INTERVAL_S, INTERVAL_S]


def test_without_tokens_a_pause_is_a_multiple_of_what_the_round_before_took(clock: list[float]) -> None:
    assert waits(Pacer(INTERVAL_S, burst=3), clock, 2.0, 6) == [0, 0, 0, 2 * PAUSE, 2 * PAUSE, 2 * PAUSE]


def test_a_pause_ends_with_the_next_token(clock: list[float]) -> None:
    lasting_s = 0.9 * INTERVAL_S
    assert waits(Pacer(INTERVAL_S, burst=1), clock, lasting_s, 3) == pytest.approx([0, 10, 10])


def test_short_rounds_leave_the_bucket_empty_and_a_rest_fills_it(clock: list[float]) -> None:
    pacer = Pacer(INTERVAL_S, burst=3)
    waits(pacer, clock, 2.0, 30)
    assert waits(pacer, clock, 2.0, 2) == [2 * PAUSE, 2 * PAUSE]
    clock[0] += 3 * INTERVAL_S
    assert waits(pacer, clock, 2.0, 4) == [0, 0, 0, 2 * PAUSE]


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
