"""Work that threads ask for at the same time is done together, and each of them gets what is its own."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress

import psycopg2
import pytest
from sqlalchemy.exc import DBAPIError

from tests.gathering import counted_waits, gathering
from worker import pacing
from worker.effects.coalescer import Coalescer, one_is_to_blame

Tenfold = Coalescer[int, int]
BAD = 13
THREADS = 16
CALLS = 100
PATIENCE_S = 30
FOR_EVER = 1e9


class BadError(Exception):
    """One item is to blame."""


class AwayError(Exception):
    """All are out of luck."""


class Work:
    """Multiplies by ten, all or nothing, and remembers what it was asked for together."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.asked: list[list[int]] = []
        self.by: list[threading.Thread] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.asked.append(list(items))
        self.by.append(threading.current_thread())
        if self.error is not None:
            raise self.error
        if BAD in items:
            raise BadError
        return [10 * item for item in items]


def always(_: BaseException) -> bool:
    return True


def never(_: BaseException) -> bool:
    return False


def together(grouped: Tenfold, items: Sequence[int]) -> list[Future[int]]:
    """What each of the items came to, which were asked for at the same time."""
    with gathering(grouped) as serve, ThreadPoolExecutor(len(items)) as pool:
        answers = [pool.submit(grouped, item) for item in items]
        serve(len(items))
    return answers


def test_who_comes_alone_is_served_at_once_in_its_own_thread() -> None:
    work = Work()
    grouped = Tenfold(work, always)
    assert [grouped(1), grouped(2)] == [10, 20]
    assert work.asked == [[1], [2]]
    assert set(work.by) == {threading.current_thread()}


def test_who_comes_meanwhile_is_served_together_with_the_others() -> None:
    # Given work that takes its time, for one who came alone
    begun, go_on = [threading.Event() for _ in range(2)], [threading.Event() for _ in range(2)]
    work = Work()
    turns = iter(range(2))

    def slow(items: Sequence[int]) -> list[int]:
        for turn in turns:
            begun[turn].set()
            go_on[turn].wait()
            break
        return work(items)

    grouped = Tenfold(slow, always)
    waits = counted_waits(grouped)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(grouped, 1)]
        begun[0].wait()
        # When three more come meanwhile, and others while these are served
        answers += [pool.submit(grouped, item) for item in (2, 3, 4)]
        for _ in range(3):
            waits.acquire()
        go_on[0].set()
        begun[1].wait()
        answers += [pool.submit(grouped, item) for item in (5, 6)]
        for _ in range(2):
            waits.acquire()
        go_on[1].set()
        # Then each has its own result
        assert [answer.result() for answer in answers] == [10, 20, 30, 40, 50, 60]
    # and each of them waited once: nobody was woken for the sake of others
    assert not waits.acquire(blocking=False)
    # and those who waited at the same time were served at the same time, by one of themselves
    assert [sorted(asked) for asked in work.asked] == [[1], [2, 3, 4], [5, 6]]
    assert work.by[1] is not work.by[0]


def test_a_crowd_does_not_wait_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given somebody who was served just now, so that the next would wait for others, as good as for ever
    monkeypatch.setattr(pacing, "PAUSE", FOR_EVER)
    work = Work()
    grouped = Tenfold(work, always, gather_s=2 * PATIENCE_S, crowd=3, burst=1)
    grouped(1)
    with ThreadPoolExecutor(3) as pool:
        for crowd in [(2, 3, 4), (5, 6, 7)]:
            # When one comes, then it waits; when so many have come that they are a crowd
            leads = threading.Event()
            grouped.on_lead = leads.set
            answers = [pool.submit(grouped, crowd[0])]
            assert leads.wait(PATIENCE_S)
            answers += [pool.submit(grouped, item) for item in crowd[1:]]
            # Then they are served together
            done, _ = wait(answers, timeout=PATIENCE_S)
            assert len(done) == 3
    # and whoever came next was no crowd
    assert [sorted(asked) for asked in work.asked] == [[1], [2, 3, 4], [5, 6, 7]]


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt()], ids=type)
def test_whoever_fails_before_it_serves_leaves_the_others_to_the_next(error: BaseException) -> None:
    work = Work()
    grouped = Tenfold(work, always)
    waits, lead = counted_waits(grouped), threading.Event()

    def fail() -> None:
        grouped.on_lead = lambda: None
        lead.wait()
        raise error

    grouped.on_lead = fail
    with ThreadPoolExecutor(3) as pool:
        # Given one who leads, and two who wait
        answers = [pool.submit(grouped, 1)]
        while grouped.on_lead is fail:
            time.sleep(0.001)
        answers += [pool.submit(grouped, item) for item in (2, 3)]
        for _ in range(2):
            waits.acquire()
        # When the one fails
        lead.set()
        # Then the others are served, and so is whoever comes next
        assert answers[0].exception(PATIENCE_S) is error
        assert [answer.result(PATIENCE_S) for answer in answers[1:]] == [20, 30]
        assert grouped(4) == 40


def test_an_error_of_one_is_only_its_own() -> None:
    work = Work()
    answers = together(Tenfold(work, always), [1, BAD, 3])
    assert [answer.exception() or answer.result() for answer in (answers[0], answers[2])] == [10, 30]
    assert isinstance(answers[1].exception(), BadError)
    # tried together, then isolate, each once
    assert [len(asked) for asked in work.asked] == [3, 1, 1, 1]
    assert sorted(item for asked in work.asked[1:] for item in asked) == [1, 3, BAD]


def test_when_all_turn_out_of_luck_one_by_one_the_rest_is_not_tried() -> None:
    # Given a group that is taken isolate, and an error for all at the second of them
    errors = iter([BadError(), None, AwayError()])

    def work(items: Sequence[int]) -> list[int]:
        if (error := next(errors)) is not None:
            raise error
        return [10 * item for item in items]

    answers = together(Tenfold(work, lambda error: isinstance(error, BadError)), [1, 2, 3, 4])
    assert sorted(type(answer.exception()).__name__ for answer in answers) == ["AwayError"] * 3 + ["NoneType"]


def test_who_is_served_alone_goes_on_before_the_others_are() -> None:
    # Given a group that is taken isolate, and whose last one is served when another one's thread has gone on
    one_goes_on, work = threading.Event(), Work()

    def slow(items: Sequence[int]) -> list[int]:
        if len(work.asked) == 3:
            one_goes_on.wait()
        return work(items)

    grouped = Tenfold(slow, always)

    def ask(item: int) -> None:
        with suppress(BadError):
            grouped(item)
        one_goes_on.set()

    with gathering(grouped) as serve, ThreadPoolExecutor(3) as pool:
        # Who does the work is the last to go on; one of the first two is somebody else.
        answers = [pool.submit(ask, item) for item in (BAD, 2, 3)]
        serve(3)
        for answer in answers:
            answer.result()


def test_who_is_alone_is_not_tried_twice() -> None:
    work = Work()
    grouped = Tenfold(work, always)
    with pytest.raises(BadError):
        grouped(BAD)
    assert work.asked == [[BAD]]


def test_an_error_of_all_reaches_all_after_one_attempt() -> None:
    work = Work(AwayError())
    answers = together(Tenfold(work, never), [1, 2, 3])
    assert [type(answer.exception()) for answer in answers] == [AwayError] * 3
    assert [sorted(asked) for asked in work.asked] == [[1, 2, 3]]


@pytest.mark.parametrize(("isolate", "attempts"), [(never, 1), (always, 4)])
@pytest.mark.parametrize("error", [SystemExit(), KeyboardInterrupt(), GeneratorExit()], ids=type)
def test_what_is_no_exception_leaves_nobody_waiting(
    error: BaseException, isolate: Callable[[BaseException], bool], attempts: int
) -> None:
    work = Work(error)
    grouped = Tenfold(work, isolate)
    answers = together(grouped, [1, 2, 3])
    assert [answer.exception() for answer in answers] == [error] * 3
    assert len(work.asked) == attempts
    # and who comes next is served
    work.error = None
    assert grouped(4) == 40


class Flaky:
    """All or nothing; fails for one of many, and now and then for all of them. Remembers what it has done."""

    def __init__(self) -> None:
        self.chance = random.Random(4)
        self.alone = threading.Lock()
        self.done: Counter[int] = Counter()

    def __call__(self, items: Sequence[int]) -> list[int]:
        assert self.alone.acquire(blocking=False), "two are at work at once"
        try:
            if self.chance.random() < 0.1:
                raise AwayError
            if any(is_bad(item) for item in items):
                raise BadError
            self.done.update(items)
            return [10 * item for item in items]
        finally:
            self.alone.release()


def is_bad(item: int) -> bool:
    return item % 17 == 5


def persist(grouped: Tenfold, item: int) -> int | None:
    """Asks again when all have failed. None when this one is to blame."""
    while True:
        with suppress(AwayError):
            try:
                return grouped(item)
            except BadError:
                return None


def test_many_threads_get_their_own_results_each_once() -> None:
    work = Flaky()
    grouped = Tenfold(work, lambda error: isinstance(error, BadError))
    items = range(THREADS * CALLS)
    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(lambda item: persist(grouped, item), items))
    assert answers == [None if is_bad(item) else 10 * item for item in items]
    assert work.done == Counter(item for item in items if not is_bad(item))


def failed(state: str) -> DBAPIError:
    """As psycopg2 and SQLAlchemy report an SQLSTATE."""
    error = type("Error", (psycopg2.Error,), {"pgcode": state})()
    return DBAPIError("", None, error)


@pytest.mark.parametrize(
    ("error", "one"),
    [
        (ValueError("a NUL in a text"), True),
        (failed("23505"), True),
        (failed("40P01"), True),
        (failed("57P01"), False),
        (failed("08006"), False),
    ],
    ids=["NUL", "unique violation", "deadlock", "shutdown", "connection lost"],
)
def test_only_a_database_that_is_away_is_nobodys_fault(error: BaseException, one: bool) -> None:
    assert one_is_to_blame(error) is one
