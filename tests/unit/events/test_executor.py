"""The thread for work that may hang: its callers give up at their deadlines."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import count

import pytest

from events import executor
from events.executor import SerialExecutor

SOON_S = 0.05
LONG_S = 60.0


class Resources:
    """A resource, numbered in the order of creation."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self.discarded: list[int] = []
        self.has_discarded = threading.Event()

    def make(self) -> int:
        return next(self._numbers)

    def discard(self, resource: int) -> None:
        self.discarded.append(resource)
        self.has_discarded.set()


@pytest.fixture
def resources() -> Resources:
    return Resources()


@pytest.fixture
def serial(resources: Resources) -> Iterator[SerialExecutor[int]]:
    serial = SerialExecutor(resources.make, resources.discard)
    yield serial
    serial.rest()


class Stuck:
    """Work that continues until the test releases it."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.release = threading.Event()
        self.ended = threading.Event()

    def __call__(self, _resource: int, _deadline: float) -> None:
        self.began.set()
        self.release.wait(LONG_S)
        self.ended.set()


def test_work_is_done_in_order_by_one_thread(serial: SerialExecutor[int]) -> None:
    done: list[tuple[int, int, int]] = []

    def work(number: int) -> None:
        serial.run(lambda resource, _: done.append((number, resource, threading.get_ident())), LONG_S)

    for number in range(10):
        work(number)

    assert [number for number, _, _ in done] == list(range(10))
    assert {resource for _, resource, _ in done} == {1}
    assert len({thread for _, _, thread in done}) == 1


def test_what_it_raises_is_raised_where_it_is_waited_for(serial: SerialExecutor[int]) -> None:
    def work(_resource: int, _deadline: float) -> None:
        raise LookupError("no")

    for _ in range(2):
        with pytest.raises(LookupError, match="no"):
            serial.run(work, LONG_S)


def test_what_hangs_is_left_behind(serial: SerialExecutor[int], resources: Resources) -> None:
    # Given work that hangs
    stuck = Stuck()
    with pytest.raises(TimeoutError):
        serial.run(stuck, SOON_S)
    # When there is more to do, then it is done, with another resource
    used: list[int] = []
    serial.run(lambda resource, _: used.append(resource), LONG_S)
    assert used == [2]
    assert resources.discarded == []
    # And the other one is let go when it is free at last
    stuck.release.set()
    assert resources.has_discarded.wait(LONG_S)
    assert resources.discarded == [1]


def test_whoever_waits_behind_it_gives_up_in_time_too(serial: SerialExecutor[int]) -> None:
    # Given work that hangs, whose own deadline is far
    stuck = Stuck()
    first = threading.Thread(target=serial.run, args=(stuck, LONG_S))
    first.start()
    assert stuck.began.wait(LONG_S)
    # When somebody behind it has less time, then they give up, and their work is never done
    done: list[str] = []
    with pytest.raises(TimeoutError):
        serial.run(lambda *_: done.append("late"), SOON_S)
    # And what hangs may go on, and be done
    stuck.release.set()
    first.join()
    serial.run(lambda *_: done.append("next"), LONG_S)
    assert done == ["next"]


def test_who_has_time_left_is_served_by_the_next_thread(serial: SerialExecutor[int]) -> None:
    # Given work that hangs, and work behind it that has more time
    stuck = Stuck()
    used: list[int] = []

    def give_up() -> None:
        with suppress(TimeoutError):
            serial.run(stuck, SOON_S * 10)

    giving_up = threading.Thread(target=give_up)
    giving_up.start()
    assert stuck.began.wait(LONG_S)
    # When the first gives up, then the second is done
    serial.run(lambda resource, _: used.append(resource), LONG_S)
    giving_up.join()
    assert used == [2]
    stuck.release.set()


def test_nobody_is_left_behind_after_all(serial: SerialExecutor[int], resources: Resources) -> None:
    # Given work that is done while the loop is busy, and a loop that hears of the deadline first
    async def hear_late() -> None:
        call = asyncio.create_task(serial.run_async(lambda *_: None, 0))
        await asyncio.sleep(0)
        serial.run(lambda *_: None, LONG_S)
        with pytest.raises(TimeoutError):
            await call

    asyncio.run(hear_late())
    # Then its thread and its resource stay
    used: list[int] = []
    serial.run(lambda resource, _: used.append(resource), LONG_S)
    assert used == [1]
    assert resources.make() == 2  # no other was made


@pytest.mark.parametrize("idle_s", [0.01, LONG_S])
def test_the_thread_ends_when_there_is_nothing_to_do(
    serial: SerialExecutor[int], monkeypatch: pytest.MonkeyPatch, idle_s: float
) -> None:
    # Given a thread that has done something
    monkeypatch.setattr(executor, "IDLE_S", idle_s)
    threads: list[threading.Thread] = []

    def work(_resource: int, _deadline: float) -> None:
        threads.append(threading.current_thread())

    serial.run(work, LONG_S)
    # When it is idle for long, or told to rest, then it ends
    if idle_s == LONG_S:
        serial.rest()
    threads[0].join(LONG_S)
    assert not threads[0].is_alive()
    # And more work is done by another, on the same resource
    used: list[int] = []
    serial.run(lambda resource, _: used.append(resource), LONG_S)
    assert used == [1]


def test_rest_waits_for_what_there_is_to_do(serial: SerialExecutor[int]) -> None:
    stuck = Stuck()
    done = threading.Event()
    first = threading.Thread(target=serial.run, args=(stuck, LONG_S))
    first.start()
    assert stuck.began.wait(LONG_S)
    serial.rest()

    async def submit_and_release() -> None:
        last = asyncio.create_task(serial.run_async(lambda *_: done.set(), LONG_S))
        await asyncio.sleep(0)
        stuck.release.set()
        await last

    asyncio.run(submit_and_release())
    assert done.is_set()
    first.join()


def test_a_forked_process_begins_anew(serial: SerialExecutor[int]) -> None:
    # Given a thread that does something, which a forked process does not have
    stuck = Stuck()
    first = threading.Thread(target=serial.run, args=(stuck, LONG_S))
    first.start()
    assert stuck.began.wait(LONG_S)
    # When the process begins, as it does after the fork
    executor.begin_anew()
    # Then it waits for nobody, and has a resource of its own
    used: list[int] = []
    serial.run(lambda resource, _: used.append(resource), LONG_S)
    assert used == [2]
    stuck.release.set()
    first.join()


class TestAsync:
    """The same executor, awaited by asyncio tasks."""

    def test_the_loop_goes_on_meanwhile(self, serial: SerialExecutor[int]) -> None:
        # Given work that only the loop can release
        stuck = Stuck()

        async def release() -> None:
            while not stuck.began.is_set():
                await asyncio.sleep(0)
            stuck.release.set()

        async def both() -> None:
            await asyncio.gather(serial.run_async(stuck, LONG_S), release())

        # When a task waits for it, then the loop does
        asyncio.run(both())
        assert stuck.ended.is_set()

    def test_a_hundred_tasks_are_served_in_order_by_one_thread(self, serial: SerialExecutor[int]) -> None:
        done: list[int] = []
        threads: set[int] = set()

        def work(number: int) -> None:
            done.append(number)
            threads.add(threading.get_ident())

        async def all_at_once() -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(100):
                    group.create_task(serial.run_async(lambda *_, number=number: work(number), LONG_S))

        asyncio.run(all_at_once())
        assert done == list(range(100))
        assert len(threads) == 1

    def test_what_hangs_is_left_behind(self, serial: SerialExecutor[int], resources: Resources) -> None:
        stuck = Stuck()
        used: list[int] = []

        async def give_up_and_go_on() -> None:
            with pytest.raises(TimeoutError):
                await serial.run_async(stuck, SOON_S)
            await serial.run_async(lambda resource, _: used.append(resource), LONG_S)

        asyncio.run(give_up_and_go_on())
        assert used == [2]
        stuck.release.set()
        assert resources.has_discarded.wait(LONG_S)

    def test_what_is_cancelled_before_its_turn_is_never_done(self, serial: SerialExecutor[int]) -> None:
        # Given a task whose work hangs, and one behind it
        stuck = Stuck()
        done: list[str] = []

        async def cancel_both() -> None:
            first = asyncio.create_task(serial.run_async(stuck, LONG_S))
            second = asyncio.create_task(serial.run_async(lambda *_: done.append("second"), LONG_S))
            while not stuck.began.is_set():
                await asyncio.sleep(0)
            # When both are cancelled
            first.cancel()
            second.cancel()
            await asyncio.gather(first, second, return_exceptions=True)
            assert first.cancelled()
            assert second.cancelled()
            # Then what had begun goes on undisturbed
            assert not stuck.ended.is_set()
            stuck.release.set()
            await serial.run_async(lambda *_: done.append("third"), LONG_S)

        asyncio.run(cancel_both())
        assert stuck.ended.is_set()
        # And what had not is never done
        assert done == ["third"]
