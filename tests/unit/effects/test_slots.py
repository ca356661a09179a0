"""The limit of concurrent calls to a service, which a crowded service lowers for a while."""

import threading
import time
from contextlib import ExitStack
from queue import Queue

import pytest

from worker.effects import slots as module
from worker.effects.slots import GROW_S, Slots
from worker.kinds import EffectKind

MAIL = EffectKind.SEND_STATUS_EMAIL
CREDIT = EffectKind.SET_CREDIT_STATUS
ACME = "webhook.acme"
CALLS = 16
CONNECTIONS = 4


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATIENCE_S", "LINE_S", "SOON_S"):
        monkeypatch.setattr(module, name, 0)


def free(slots: Slots, kind: EffectKind = MAIL, webhook: str | None = None) -> int:
    """Count the free slots."""
    with ExitStack() as stack:
        held = [stack.enter_context(slots.taken(kind, webhook)) for _ in range(CALLS + 1)]
        return sum(slot is not None for slot in held)


def waiters(slots: Slots, number: int) -> tuple[list[threading.Thread], Queue[bool]]:
    """Threads that each want a slot for a mail, and where they tell whether they got it."""
    found: Queue[bool] = Queue()

    def send() -> None:
        with slots.taken(MAIL) as slot:
            found.put(slot is not None)

    return [threading.Thread(target=send) for _ in range(number)], found


def test_mails_have_as_many_as_connections_and_others_as_many_as_calls() -> None:
    slots = Slots(CALLS, CONNECTIONS)
    assert (free(slots), free(slots, CREDIT)) == (CONNECTIONS, CALLS)
    assert free(Slots(2, CONNECTIONS)) == 2


def test_who_calls_nobody_always_has_one() -> None:
    assert free(Slots(1, 1), EffectKind.CASCADE_DECLINE) == CALLS + 1


def test_a_slot_is_given_back_once_and_before_its_thread_is_done() -> None:
    slots = Slots(CALLS, CONNECTIONS)
    with slots.taken(MAIL) as slot:
        assert slot is not None
        assert free(slots) == CONNECTIONS - 1
        for _ in range(2):
            slot.give_back()
            assert free(slots) == CONNECTIONS
    assert free(slots) == CONNECTIONS


def test_a_service_that_takes_no_more_has_fewer_for_a_while(clock: Clock) -> None:
    # Given a mail server that has shown how many it takes
    slots = Slots(CALLS, CONNECTIONS)
    slots.shrink(MAIL, 2)
    # Then it gets no more, and others are not concerned
    assert (free(slots), free(slots, CREDIT)) == (2, CALLS)
    # until some time has passed: then one more, and so on, up to what is configured
    clock.now += GROW_S - 1
    assert free(slots) == 2
    for number in (3, 4, 4):
        clock.now += GROW_S
        assert free(slots) == number


def test_it_shrinks_to_the_fewest_that_it_has_shown(clock: Clock) -> None:
    slots = Slots(CALLS, CONNECTIONS)
    for number in (3, 1, 2):
        slots.shrink(MAIL, number)
    assert free(slots) == 1
    # and each time is the beginning of a new while
    clock.now += GROW_S / 2
    slots.shrink(MAIL, 3)
    clock.now += GROW_S / 2
    assert free(slots) == 1


def test_what_is_taken_while_it_shrinks_is_given_back_before_another_is_taken(clock: Clock) -> None:
    slots = Slots(CALLS, CONNECTIONS)
    with slots.taken(MAIL), slots.taken(MAIL):
        with slots.taken(MAIL):
            slots.shrink(MAIL, 2)
            assert free(slots) == 0
        assert free(slots) == 0
    assert free(slots) == 2


@pytest.mark.parametrize(("threads", "places"), [(3, 0), (4, 1), (16, 4), (32, 8)])
def test_a_few_threads_go_on_waiting_and_take_each_slot_at_once(
    monkeypatch: pytest.MonkeyPatch, threads: int, places: int
) -> None:
    # Given a mail server whose slots are all taken
    monkeypatch.setattr(module, "LINE_S", 3600)
    slots = Slots(CALLS, CONNECTIONS, threads)
    senders, found = waiters(slots, places + 1)
    with ExitStack() as held:
        for _ in range(CONNECTIONS):
            held.enter_context(slots.taken(MAIL))
        # When one thread more wants a slot than may go on waiting
        for sender in senders:
            sender.start()
        # Then one of them does not wait
        assert found.get(timeout=60) is False
    # and the others have the slots that are given back
    assert [found.get(timeout=60) for _ in range(places)] == [True] * places
    for sender in senders:
        sender.join()


def test_services_share_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a process of four threads, of which one waits for a mail server
    monkeypatch.setattr(module, "LINE_S", 3600)
    slots = Slots(1, 1, 4)
    senders, found = waiters(slots, 2)
    with slots.taken(MAIL), slots.taken(CREDIT):
        for sender in senders:
            sender.start()
        assert found.get(timeout=60) is False
        # When another one wants a slot of the LMS, then it does not wait
        assert free(slots, CREDIT) == 0
    for sender in senders:
        sender.join()


def test_when_the_limit_grows_two_that_wait_have_a_slot(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a service that takes one call at once, and two threads that wait for it
    monkeypatch.setattr(module, "PATIENCE_S", 3600)
    slots = Slots(CALLS, CONNECTIONS)
    slots.shrink(MAIL, 1)
    waiting, both = threading.Barrier(3), threading.Barrier(2)

    def send() -> None:
        waiting.wait(60)
        with slots.taken(MAIL):
            both.wait(60)  # each holds its slot until the other one has one, too

    senders = [threading.Thread(target=send, daemon=True) for _ in range(2)]
    with slots.taken(MAIL):
        for sender in senders:
            sender.start()
        waiting.wait(60)
        time.sleep(0.2)  # most likely both wait by now; where one does not, it finds its slot by itself
        # When it takes one more
        clock.now += GROW_S
    # Then both have one
    for sender in senders:
        sender.join(60)
        assert not sender.is_alive()


@pytest.mark.parametrize(("threads", "each"), [(None, CALLS), (64, CALLS), (16, 8), (3, 1), (1, 1)])
def test_a_webhook_has_at_most_half_of_the_threads(threads: int | None, each: int) -> None:
    slots = Slots(CALLS, CONNECTIONS, threads)
    assert free(slots, EffectKind.DELIVER_EVENT, "webhook.acme") == each


def test_each_webhook_has_slots_of_its_own() -> None:
    slots = Slots(2, CONNECTIONS)
    with slots.taken(EffectKind.DELIVER_EVENT, "webhook.acme"):
        assert free(slots, EffectKind.DELIVER_EVENT, "webhook.acme") == 1
        assert free(slots, EffectKind.DELIVER_EVENT, "webhook.other") == 2


def test_a_thread_waits_for_a_slot_of_a_webhook_that_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a webhook whose only slot is taken
    monkeypatch.setattr(module, "SOON_S", 60)
    slots = Slots(1, CONNECTIONS)
    ended = threading.Event()
    found: list[bool] = []

    def other() -> None:
        with slots.taken(EffectKind.DELIVER_EVENT, ACME) as slot:
            found.append(slot is not None)
        ended.set()

    # When another thread wants it, and it is given back
    with slots.taken(EffectKind.DELIVER_EVENT, ACME):
        thread = threading.Thread(target=other)
        thread.start()
        assert not ended.wait(0.05)
    thread.join()
    # Then the other one has got it
    assert found == [True]


@pytest.mark.parametrize("is_back", [True, False])
def test_nobody_waits_for_a_slot_of_a_webhook_that_holds_one_for_long(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, is_back: bool
) -> None:
    # Given a webhook that has held one call for long, or still does, and answers others at once
    slots = Slots(2, CONNECTIONS)
    monkeypatch.setattr(module, "SOON_S", 3600)
    with ExitStack() as held:
        held.enter_context(slots.taken(EffectKind.DELIVER_EVENT, ACME))
        clock.now += 3601
        with slots.taken(EffectKind.DELIVER_EVENT, ACME):
            pass
        if is_back:
            held.close()
        # Then nobody waits for a slot of it
        assert free(slots, EffectKind.DELIVER_EVENT, ACME) == 1 + is_back


def test_after_a_thread_has_waited_in_vain_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = Slots(1, CONNECTIONS)
    with slots.taken(EffectKind.DELIVER_EVENT, ACME):
        assert free(slots, EffectKind.DELIVER_EVENT, ACME) == 0
        monkeypatch.setattr(module, "SOON_S", 3600)
        assert free(slots, EffectKind.DELIVER_EVENT, ACME) == 0
