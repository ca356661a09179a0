"""Random interleavings of deliveries, crashes, retries and operators: nothing is lost, doubled or out of order.

Publisher, handler, relay and effect workers are the real ones, on a real PostgreSQL. The broker, the LMS and
the mail server are models. By default the same few examples run each time. `STATEFUL_EXAMPLES=2000` runs that
many new examples, and `--hypothesis-seed=N` chooses them.
"""

import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine

from events.commands import Command, CommandData
from tests import engines
from tests.stateful import strategies
from tests.stateful.audit import check_end, check_step, settle
from tests.stateful.broker import SHARDS, SOURCE
from tests.stateful.calm import check_calm
from tests.stateful.faults import Fault
from tests.stateful.lms import Answer
from tests.stateful.strategies import Act
from tests.stateful.world import PAST, World
from worker.kinds import EffectKind

EXAMPLES = 20
STEPS = 40
MAX_WORKERS = 3  # the number of workers that may wait for an answer at the same time

Item = TypeVar("Item")

PICK = st.integers(0, 999)
PICKS = st.lists(PICK, min_size=1, max_size=3)
BATCH = strategies.batches
SHARD = st.integers(0, SHARDS - 1)
FEW = st.integers(1, 6)
FAULT = st.sampled_from([None, None, None, *Fault])
ANSWER = st.sampled_from([Answer.OK, Answer.OK, *Answer])

REACHED = {
    "a command came again",
    "a former owner was refused",
    "superseded",
    "an operator's retry",
    "a mail was held back",
    "a description was overtaken",
    "stale_attempt",
    "precondition_failed",
}
"""Events that the examples must have reached. Without them the test would prove little."""


class Machine(RuleBasedStateMachine):
    """The state machine: its rules are the events that may happen, in any order."""

    def __init__(self, engine: Engine, honours_sequence: bool, reached: Counter[str]) -> None:
        super().__init__()
        self.world = World(engine, honours_sequence, reached)
        self.broker = self.world.broker

    @initialize(honours_key=st.booleans())
    def choose_lms(self, honours_key: bool) -> None:
        self.world.lms.honours_key = honours_key

    # --- commands ----------------------------------------------------------------------------------------

    @rule(batch=BATCH)
    def publish(self, batch: list[Act]) -> None:
        for act in batch:
            self.world.publish(act)

    @rule(batch=BATCH)
    def publish_and_deliver(self, batch: list[Act]) -> None:
        self.publish(batch)
        self._deliver_all()

    @rule(batch=BATCH, picks=PICKS, answer=ANSWER)
    def publish_deliver_and_run(self, batch: list[Act], picks: list[int], answer: Answer) -> None:
        self.publish(batch)
        self._deliver_all()
        self._run(picks, answer, None)

    @rule(pick=PICK, data=st.none() | strategies.commands)
    def publish_again(self, pick: int, data: CommandData | None) -> None:
        """Publish a command a second time, or another command with the same id."""
        command = self._pick(self.world.commands, pick)
        self.broker.publish(command if data is None else Command(SOURCE, command.id, data))

    @rule(body=st.sampled_from(strategies.JUNK), shard=SHARD)
    def publish_junk(self, body: bytes, shard: int) -> None:
        self.broker.publish_raw(body, shard)

    @precondition(lambda self: any(self.broker.queues))
    @rule(pick=PICK, limit=FEW)
    def deliver(self, pick: int, limit: int) -> None:
        self.world.deliver(self._busy_shard(pick), limit)

    @precondition(lambda self: any(self.broker.queues))
    @rule(pick=PICK, limit=FEW, fault=st.sampled_from(Fault))
    def deliver_and_crash(self, pick: int, limit: int, fault: Fault) -> None:
        self.world.deliver(self._busy_shard(pick), limit, fault)

    @precondition(lambda self: any(self.broker.queues))
    @rule(pick=PICK, limit=FEW, acknowledged=st.integers(0, 2))
    def deliver_and_acknowledge_some(self, pick: int, limit: int, acknowledged: int) -> None:
        self.world.deliver(self._busy_shard(pick), limit, acknowledged=min(limit, acknowledged))

    @rule(shard=SHARD, count=FEW)
    def bring_back(self, shard: int, count: int) -> None:
        self.broker.bring_back(shard, count)

    @rule(shard=SHARD, limit=FEW)
    def take_over(self, shard: int, limit: int) -> None:
        """Let another process take the shard. The former owner then tries to commit a batch."""
        self.world.take_over(shard)
        self.world.wake_stale_owner(limit)

    # --- effects -----------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.effects)
    @rule(fault=FAULT, spared=st.integers(0, 3), taken=st.none() | st.none() | st.integers(0, 2))
    def offer(self, fault: Fault | None, spared: int, taken: int | None) -> None:
        self.world.offer(fault, spared, taken)

    @precondition(lambda self: self.world.effects and self._has_room())
    @rule(pick=PICK, again=st.booleans(), fault=FAULT)
    def start(self, pick: int, again: bool, fault: Fault | None) -> None:
        self._offer_if_none()
        if self.broker.offers:
            self.world.start(self.broker.take_offer(pick, again=again), fault)

    @precondition(lambda self: self.world.effects)
    @rule(picks=PICKS, answer=ANSWER, fault=FAULT)
    def run(self, picks: list[int], answer: Answer, fault: Fault | None) -> None:
        self._run(picks, answer, fault)

    @precondition(lambda self: self.world.effects and self._has_room())
    @rule(kind=st.sampled_from(EffectKind), pick=PICK)
    def start_unasked(self, kind: EffectKind, pick: int) -> None:
        """Deliver an old message for an effect, which may be pending or have ended."""
        chosen = [effect.id for effect in self.world.effects.values() if effect.kind == kind]
        if chosen:
            self.world.start(self._pick(chosen[-3:], pick))

    @precondition(lambda self: self.world.workers)
    @rule(pick=PICK, answer=ANSWER, fault=FAULT)
    def answer(self, pick: int, answer: Answer, fault: Fault | None) -> None:
        self.world.answer(self._pick(self.world.workers, pick), answer, fault)

    @precondition(lambda self: any(not call.landed for call in self.world.waiting_calls()))
    @rule(pick=PICK)
    def carry_out(self, pick: int) -> None:
        """Carry out a call whose worker still waits for the answer."""
        waiting = [call for call in self.world.waiting_calls() if not call.landed]
        self.world.lms.land(self._pick(waiting, pick))

    @precondition(lambda self: self.world.in_the_air)
    @rule(pick=PICK)
    def carry_out_late(self, pick: int) -> None:
        """Carry out a call whose worker has given up."""
        calls = self.world.in_the_air
        self.world.lms.land(calls.pop(pick % len(calls)))

    @precondition(lambda self: self.broker.offers)
    @rule()
    def wipe_broker(self) -> None:
        """Delete all offers. Commands survive, as the broker promises."""
        self.broker.offers.clear()

    @rule(what=st.sampled_from(["leases", "leases", "due dates", *PAST]))
    def end(self, what: str) -> None:
        self.world.end(what)

    # --- operators ---------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.effects)
    @rule(pick=PICK, fault=FAULT)
    def retry(self, pick: int, fault: Fault | None) -> None:
        self.world.retry(self._pick([*self.world.effects], pick), fault)

    @precondition(lambda self: self.world.effects)
    @rule(pick=PICK, fault=FAULT)
    def cancel(self, pick: int, fault: Fault | None) -> None:
        self.world.cancel(self._pick([*self.world.effects], pick), fault)

    # --- what must be true -------------------------------------------------------------------------------

    @invariant()
    def is_sound(self) -> None:
        check_step(self.world)

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:  # no rule has failed
                settle(self.world)
                check_end(self.world)
                check_calm(self.world)
        finally:
            self.world.close()

    # --- parts of rules ----------------------------------------------------------------------------------

    def _deliver_all(self) -> None:
        for shard in range(SHARDS):
            self.world.deliver(shard, len(self.broker.queues[shard]))

    def _run(self, picks: list[int], answer: Answer, fault: Fault | None) -> None:
        self._offer_if_none()
        for pick in picks[: len(self.broker.offers)]:
            worker = self.world.start(self.broker.take_offer(pick, again=False))
            if worker is not None:
                self.world.answer(worker, answer, fault)

    def _offer_if_none(self) -> None:
        if not self.broker.offers:
            self.world.offer()

    # --- choosing ----------------------------------------------------------------------------------------

    @staticmethod
    def _pick(items: list[Item], pick: int) -> Item:
        return items[pick % len(items)]

    def _busy_shard(self, pick: int) -> int:
        return self._pick([shard for shard in range(SHARDS) if self.broker.queues[shard]], pick)

    def _has_room(self) -> bool:
        return len(self.world.workers) < MAX_WORKERS


@pytest.fixture(scope="module")
def world_engine(postgres_url: str) -> Iterator[Engine]:
    """An engine on a database of its own. Every example empties it."""
    with engines.fresh_database(postgres_url) as url, engines.disposed(url) as engine:
        yield engine


@pytest.fixture(autouse=True)
def _quick_and_quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("worker.effects.runner.RECORD_PAUSE_S", 0)
    chance = SimpleNamespace(random=lambda: 0.5, uniform=lambda least, _most: least)
    monkeypatch.setattr("worker.effects.runner.random", chance)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def explore(machine: Callable[[], Machine], examples: int, steps: int, *, derandomize: bool = True) -> None:
    """Run a machine through so many examples of so many steps, however long they take."""
    run_state_machine_as_test(
        machine,  # type: ignore[arg-type]  # it is called
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=derandomize,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("honours_sequence", [True, False], ids=["honours the sequence", "ignores it"])
def test_nothing_is_lost_doubled_or_out_of_order(world_engine: Engine, honours_sequence: bool) -> None:
    reached: Counter[str] = Counter()
    more = os.environ.get("STATEFUL_EXAMPLES")
    explore(
        lambda: Machine(world_engine, honours_sequence, reached),
        int(more or EXAMPLES),
        STEPS,
        derandomize=not more,
    )
    assert REACHED - {what for what, times in reached.items() if times} == set()
