"""Rooms: how many effects may be offered, and when the broker and the database are asked."""

import time
from typing import Any
from uuid import uuid4

import pytest

from db import offers
from db.offers import Offer
from worker.effects.rooms import ASK_EVERY_S, MAX_OUTSTANDING, Rooms
from worker.kinds import QUEUES, EffectKind

CREDIT, REMOVAL, MAIL = (
    EffectKind.SET_CREDIT_STATUS,
    EffectKind.REMOVE_CREDIT_STATUS,
    EffectKind.SEND_STATUS_EMAIL,
)
HALF = MAX_OUTSTANDING // 2
CONNECTION: Any = None  # the database answers by `unanswered`


class Engines:
    """What the database and the broker say, and which questions they were asked."""

    def __init__(self) -> None:
        self.unanswered: dict[str, int] = {}
        self.waiting: dict[str, int] = {}
        self.asked: list[str] = []

    def outstanding(self, _connection: Any, _kinds: object) -> dict[str, int]:
        self.asked.append("database")
        return self.unanswered

    def queue_length(self, queue: str) -> int:
        self.asked.append(queue)
        return self.waiting.get(queue, 0)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Engines:
    engines = Engines()
    monkeypatch.setattr(offers, "outstanding", engines.outstanding)
    return engines


@pytest.fixture
def rooms(engines: Engines) -> Rooms:
    return Rooms(engines.queue_length)


def made(number: int, kind: str = CREDIT) -> list[Offer]:
    return [Offer(uuid4(), kind, {}, 0)] * number


def test_there_is_room_for_what_neither_waits_nor_is_unanswered(engines: Engines, rooms: Rooms) -> None:
    engines.unanswered = {CREDIT: 30}
    engines.waiting = {QUEUES[MAIL]: 400}
    assert rooms.sizes(CONNECTION, [CREDIT, MAIL]) == {
        CREDIT: MAX_OUTSTANDING - 30,
        MAIL: MAX_OUTSTANDING - 400,
    }


def test_kinds_of_one_queue_share_its_room(rooms: Rooms) -> None:
    assert rooms.sizes(CONNECTION, [CREDIT, REMOVAL]) == {CREDIT: HALF, REMOVAL: HALF}


def test_few_offers_need_no_second_question(engines: Engines, rooms: Rooms) -> None:
    rooms.sizes(CONNECTION, [CREDIT])
    engines.asked.clear()
    # When as many are offered as may be without knowing more, then they take up room, and nobody is asked
    rooms.take(made(HALF))
    assert rooms.sizes(CONNECTION, [CREDIT]) == {CREDIT: MAX_OUTSTANDING - HALF}
    assert engines.asked == []
    # But the other queue was never asked about
    rooms.sizes(CONNECTION, [MAIL])
    assert engines.asked == ["database", QUEUES[MAIL]]


def test_many_offers_need_an_answer(engines: Engines, rooms: Rooms) -> None:
    rooms.sizes(CONNECTION, [CREDIT])
    # Given more offers than that, of which the workers have answered all but three
    rooms.take(made(HALF + 1))
    engines.unanswered, engines.waiting = {CREDIT: 3}, {QUEUES[CREDIT]: 2}
    assert rooms.sizes(CONNECTION, [CREDIT]) == {CREDIT: MAX_OUTSTANDING - 3}


def test_while_much_waits_each_round_asks(engines: Engines, rooms: Rooms) -> None:
    engines.waiting = {QUEUES[CREDIT]: MAX_OUTSTANDING}
    for _ in range(2):
        engines.asked.clear()
        assert rooms.sizes(CONNECTION, [CREDIT]) == {CREDIT: 0}
        assert engines.asked == ["database", QUEUES[CREDIT]]


def test_an_old_answer_and_one_from_before_an_error_are_forgotten(
    engines: Engines, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms.sizes(CONNECTION, [CREDIT])
    engines.waiting = {QUEUES[CREDIT]: 7}
    assert rooms.sizes(CONNECTION, [CREDIT]) == {CREDIT: MAX_OUTSTANDING}
    rooms.forget()
    assert rooms.sizes(CONNECTION, [CREDIT]) == {CREDIT: MAX_OUTSTANDING - 7}
    engines.waiting = {QUEUES[CREDIT]: 8}
    later = time.monotonic() + ASK_EVERY_S
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert rooms.sizes(CONNECTION, [CREDIT]) == {CREDIT: MAX_OUTSTANDING - 8}
