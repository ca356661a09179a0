"""The real system on a real database, surrounded by models of the broker, the LMS and the mail server."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.exc import DBAPIError

from db import operators, shards, subscribers
from db.inbox import Key
from db.models import Base, EventLog
from db.shards import Fence
from events.commands import Command
from tests.stateful.broker import SHARDS, SOURCE, ModelBroker
from tests.stateful.faults import COMMITTED, CrashError, Fault, Faults
from tests.stateful.lms import UNHEARD, Answer, Call, HeldUpHandler, ModelLms, Worker, raised
from tests.stateful.strategies import POLICIES, SETTING, Act
from worker.commands.batches import Batches
from worker.commands.decoding import Received, decode
from worker.commands.handler import Handler, ShardLostError
from worker.commands.spans import Item
from worker.effects.action import Tools
from worker.effects.relay import Relay
from worker.effects.runner import Runner
from worker.effects.slots import Slots
from worker.errors import Transient, TryFailedError
from worker.kinds import EffectKind
from worker.lms.connect import Services
from worker.lms.webhooks import HttpWebhooks
from worker.rules.retry import RetryPolicy

LEASE_S = 600.0
CALL_TIMEOUT_S = 250.0
OFFER_TTL_S = 600.0
RETRY = RetryPolicy(3600, 3600, 604_800)
"""The delays are so long that nothing becomes due by itself during an example."""

PAST: Mapping[str, str] = {
    "due dates": "UPDATE effects SET due_at = now() - interval '1s' WHERE state = 'pending'",
    "offers": "UPDATE effects SET offered_until = now() - interval '1s' WHERE offered_until > now()",
    "leases": "UPDATE effects SET lease_until = now() - interval '1s' WHERE state = 'running'",
    "circuits": "UPDATE circuits SET open_until = now() - interval '1s' WHERE open_until IS NOT NULL",
    "patience": "UPDATE effects SET retrying_since = now() - interval '8 days'"
    " WHERE retrying_since IS NOT NULL AND state IN ('pending', 'running')",
}
"""By what may expire: the statement that makes its time pass."""

# Nothing else makes an effect that was never tried due later.
_HELD_BACK = (
    "SELECT FROM effects WHERE order_key IS NOT NULL AND state = 'pending' AND tries = 0 AND due_at > now()"
)

# TRUNCATE creates new files for every table and index, which takes longer than most examples.
# The row of the event log stays: it came with the schema.
EMPTY = "; ".join(
    f"DELETE FROM {table.name}"
    for table in reversed(Base.metadata.sorted_tables)
    if table is not EventLog.__table__
)
_EVERYTHING = "SELECT {}".format(
    " || ".join(
        f"coalesce((SELECT string_agg(t::text, ';' ORDER BY t::text) FROM {name} t), '')"
        for name in sorted(Base.metadata.tables)
        if name != "circuits"
    )
)

LogEntry = tuple[str, Any]
"""A pair: "batch" and the committed commands; or "done", "failed", "cancel" or "retry" and the id of a cascade."""


@dataclass
class World:
    """The system and the models of one example. Every rule of the state machine acts through it."""

    engine: Engine
    honours_sequence: bool
    reached: Counter[str]
    lms: ModelLms = field(init=False)
    broker: ModelBroker = field(default_factory=ModelBroker)
    fences: list[Fence] = field(default_factory=list)
    stale: list[Fence] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    """The workers that wait for an answer."""
    in_the_air: list[Call] = field(default_factory=list)
    """Calls whose workers have given up, and that may still be carried out."""
    commands: list[Command] = field(default_factory=list)
    """Everything that was published, apart from reused ids."""
    log: list[LogEntry] = field(default_factory=list)
    """The committed changes that determine the record, in order. `calm` replays them."""
    first: dict[Key, Received] = field(default_factory=dict)
    """The command that was committed first under each id."""
    quarantined: Counter[tuple[str, bytes]] = field(default_factory=Counter)
    excused: set[tuple[UUID, int]] = field(default_factory=set)
    """The tries whose answer or record was lost. Their calls may be repeated."""
    effects: dict[UUID, Row[Any]] = field(default_factory=dict)
    """The effects after the last step."""
    changed_by_hand: set[UUID] = field(default_factory=set)
    """The effects that an operator has changed in this step."""

    def __post_init__(self) -> None:
        self.execute(EMPTY)
        reader = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self.reading = reader.connect()  # kept: to take one from the pool costs as much as to ask
        self.faults = Faults(self.engine)
        self.lms = ModelLms(reader, self.honours_sequence)
        self.handler = Handler(POLICIES, instructor=True)
        self.batches = Batches(self.engine, self.handler, LEASE_S)
        tools = Tools(
            engine=self.engine,
            services=Services(
                credit=self.lms,
                instructor=self.lms,
                mailer=self.lms,
                webhooks=HttpWebhooks({}),  # nobody subscribes with one
                close=lambda: None,
            ),
            handler=HeldUpHandler.of(self.handler, self.lms),
            retry=RETRY,
            lease_s=LEASE_S,
            call_timeout_s=CALL_TIMEOUT_S,
            slots=Slots(8, 8),
        )
        self.runner = Runner(tools)
        self.relay = Relay(self.engine, self.broker, 2.0, OFFER_TTL_S)
        with self.engine.begin() as connection:
            shards.ensure_shards(connection, SHARDS)
        self.subscribe()
        self.fences = [self._take(shard) for shard in range(SHARDS)]
        for act in SETTING:
            self.publish(act)
        for shard in range(SHARDS):
            self.deliver(shard, len(self.broker.queues[shard]))

    def subscribe(self) -> None:
        """Let somebody listen, so that events are written."""
        with self.engine.begin() as connection:
            subscribers.store(connection, {"feed.audit": {}})

    def close(self) -> None:
        """End every worker that still waits, and close the models."""
        self.faults.close()
        for worker in self.workers:
            worker.answer(CrashError())
        self.broker.close()
        self.reading.close()

    # --- commands ----------------------------------------------------------------------------------------

    def publish(self, act: Act) -> None:
        """Publish a new command."""
        time = None if act.ago is None else datetime.now(UTC) - act.ago
        command = Command(SOURCE, f"c{len(self.commands)}", act.data, time)
        self.commands.append(command)
        self.broker.publish(command)

    def deliver(
        self, shard: int, limit: int, fault: Fault | None = None, *, acknowledged: int | None = None
    ) -> None:
        """Take a batch, commit it, and acknowledge all of it or only its first messages."""
        messages = self.broker.queues[shard][:limit]
        items = [decode(message) for message in messages]
        lost = self._struck(fault, 0, lambda: self.batches.commit(self.fences[shard], items))
        if not lost or fault in COMMITTED:
            self._committed(items)
        if lost:
            self.take_over(shard)
        else:
            self.broker.acknowledge(shard, len(messages) if acknowledged is None else acknowledged)

    def _committed(self, items: Sequence[Item]) -> None:
        received = [item for item in items if isinstance(item, Received)]
        self.log.append(("batch", received))
        for item in items:
            if not isinstance(item, Received):
                self.quarantined[item.code, item.body] += 1
                continue
            known = self.first.setdefault(item.key, item)
            if known is item:
                continue
            self.reached["a command came again"] += 1
            if _sent(known) != _sent(item):
                self.quarantined["id_reused", item.body] += 1
                self.reached["an id was reused"] += 1

    def take_over(self, shard: int) -> None:
        """Let a shard's lease expire and another owner take the shard."""
        self.execute("UPDATE shards SET lease_until = now() - interval '1s' WHERE shard = :n", n=shard)
        self.stale.append(self.fences[shard])
        self.fences[shard] = self._take(shard)

    def _take(self, shard: int) -> Fence:
        with self.engine.begin() as connection:
            fence = shards.take(connection, shard, f"owner-{len(self.stale)}", LEASE_S)
        assert fence is not None
        return fence

    def wake_stale_owner(self, limit: int) -> None:
        """Let the former owner of a shard try to commit a batch. The fence must refuse it."""
        fence = self.stale[-1]
        items = [decode(message) for message in self.broker.queues[fence.shard][:limit]]
        before = self.everything()
        try:
            self.batches.commit(fence, items)
        except ShardLostError:
            self.reached["a former owner was refused"] += 1
        else:
            raise AssertionError("a former owner has committed")
        assert self.everything() == before

    # --- effects -----------------------------------------------------------------------------------------

    def offer(self, fault: Fault | None = None, spared: int = 0, taken: int | None = None) -> None:
        """Let the relay offer due effects once."""
        self.broker.taken_before_away = taken
        try:
            self._struck(fault, spared, self.relay.offer_once)
        except Transient:
            self.reached["the broker was away for the relay"] += 1
        self.broker.taken_before_away = None
        self.reached["a mail was held back"] += len(self.rows(_HELD_BACK))

    def start(self, effect_id: UUID, fault: Fault | None = None) -> Worker | None:
        """Let a worker take a message about an effect. Return the worker if it has made a call."""
        before = self.row(effect_id)
        worker = Worker(lambda: self.runner.run(effect_id, EffectKind(before.kind)))
        with self.faults.armed(fault):
            call = worker.begin()
        if call is not None:
            self.workers.append(worker)
            return worker
        if before.state in ("pending", "running"):
            self._log_cascade(effect_id)
        given_up = isinstance(worker.error, TryFailedError) and self.row(effect_id).state == "failed"
        assert worker.error is None or self.faults.struck or given_up, worker.error
        if before.state == "pending" and self._is_blocked(before):
            self.reached["a worker waited for another one's target"] += 1
        if str(worker.result).startswith("waits for an older one"):
            self.reached["a mail waited for an older one"] += 1
        return None

    def _log_cascade(self, effect_id: UUID) -> None:
        row = self.row(effect_id)
        if row.kind == EffectKind.CASCADE_DECLINE and row.state in ("done", "failed"):
            self.log.append((row.state, effect_id))

    def _is_blocked(self, effect: Row[Any]) -> bool:
        return effect.target is not None and any(
            other.target == effect.target and other.state == "running" for other in self.effects.values()
        )

    def answer(self, worker: Worker, answer: Answer, fault: Fault | None = None) -> None:
        """Let a worker get the answer to its call and record the try."""
        self.workers.remove(worker)
        call = worker.call
        assert call is not None
        answer = _possible(call, answer)
        if answer is Answer.OK and not call.landed and call.kind is not EffectKind.CASCADE_DECLINE:
            self.lms.land(call)
        current = self.is_current(call)
        if answer in UNHEARD and not call.landed:
            self.in_the_air.append(call)
        call.heard = answer is Answer.OK
        if answer is not Answer.OK or not current or fault:
            self.excused.add((call.effect_id, call.number))
        before = None if current else self.everything()
        with self.faults.armed(fault):
            worker.answer(raised(answer))
        if before is not None:
            self.reached["a worker came back too late"] += 1
            assert self.everything() == before, "a try that is over has changed something"
        allowed: tuple[type[BaseException], ...] = (TryFailedError,) if answer is not Answer.OK else ()
        if self.faults.struck:
            self.reached["a record met: " + str(fault and fault.value)] += 1
            allowed += (CrashError, DBAPIError, TryFailedError)
        if answer is Answer.DIED:
            allowed += (CrashError,)
        assert worker.error is None or isinstance(worker.error, allowed), worker.error
        if current:
            self._log_cascade(call.effect_id)

    def is_current(self, call: Call) -> bool:
        """Return whether the try that made a call is still the effect's current try."""
        row = self.row(call.effect_id)
        return (row.state, row.tries) == ("running", call.number)

    def end(self, what: str) -> None:
        """Let the times of one kind of `PAST` expire."""
        if what == "leases":
            self.excused |= {(call.effect_id, call.number) for call in self.waiting_calls()}
        self.execute(PAST[what])

    def waiting_calls(self) -> list[Call]:
        """Return the calls whose workers wait for an answer."""
        return [worker.call for worker in self.workers if worker.call is not None]

    # --- operators ---------------------------------------------------------------------------------------

    def retry(self, effect_id: UUID, fault: Fault | None = None) -> None:
        """`invigilator effects retry`."""
        self._change("retry", operators.retry, effect_id, fault)

    def cancel(self, effect_id: UUID, fault: Fault | None = None) -> None:
        """`invigilator effects cancel`."""
        self._change("cancel", operators.cancel, effect_id, fault)

    def _change(
        self,
        what: str,
        change: Callable[[Connection, list[UUID]], operators.Changed],
        effect_id: UUID,
        fault: Fault | None,
    ) -> None:
        before = self.row(effect_id)
        refused: dict[UUID, str] = {}

        def changed() -> None:
            with self.engine.begin() as connection:
                refused.update(change(connection, [effect_id]).refused)

        lost = self._struck(fault, 0, changed)
        if refused:
            self._check_refusal(what, before, refused[effect_id])
        elif not lost or fault in COMMITTED:
            self.changed_by_hand.add(effect_id)
            if what == "retry":
                self.lms.retried.add(effect_id)
            self.reached[f"an operator's {what}"] += 1
            if before.kind == EffectKind.CASCADE_DECLINE:
                self.log.append((what, effect_id))

    def _check_refusal(self, what: str, effect: Row[Any], reason: str) -> None:
        if reason.startswith("overtaken"):
            self.reached["a retry was refused as overtaken"] += 1
            assert what == "retry"
            assert self.newer(effect, self.read_effects())
        else:
            able = ("failed", "cancelled", "pending") if what == "retry" else ("failed", "pending")
            assert effect.state not in able, reason

    @staticmethod
    def newer(effect: Row[Any], effects: Mapping[UUID, Row[Any]]) -> list[Row[Any]]:
        """Return the effects that supersede an effect on its target."""
        return [
            other
            for other in effects.values()
            if effect.target is not None
            and other.target == effect.target
            and other.sequence > effect.sequence
            and other.state != "cancelled"
        ]

    # --- the database ------------------------------------------------------------------------------------

    def execute(self, statement: str, **values: Any) -> None:
        """Run one statement and commit."""
        with self.engine.begin() as connection:
            connection.execute(text(statement), values)

    def rows(self, statement: str) -> Sequence[Row[Any]]:
        """Return the rows of a query."""
        return self.reading.execute(text(statement)).all()

    def row(self, effect_id: UUID) -> Row[Any]:
        """Read an effect."""
        return self.reading.execute(text("SELECT * FROM effects WHERE id = :id"), {"id": effect_id}).one()

    def read_effects(self) -> dict[UUID, Row[Any]]:
        """Read all effects, oldest first."""
        return {row.id: row for row in self.rows("SELECT * FROM effects ORDER BY sequence")}

    def everything(self) -> str:
        """Return the whole content of the database as one text, without the circuits."""
        return str(self.rows(_EVERYTHING)[0][0])

    def _struck(self, fault: Fault | None, spared: int, act: Callable[[], object]) -> bool:
        """Run an action while a fault is armed. Return whether the process died or its connection broke."""
        try:
            with self.faults.armed(fault, spared):
                act()
        except (CrashError, DBAPIError):
            if not self.faults.struck or fault is None:
                raise
            self.reached[fault.value] += 1
            return True
        return False


def _sent(item: Received) -> tuple[str, dict[str, Any]]:
    """What a command asks for, as it was sent: a default that was sent differs from one that was left out."""
    return item.command.type, item.command.data.model_dump(exclude_unset=True)


def _possible(call: Call, answer: Answer) -> Answer:
    if call.kind is EffectKind.CASCADE_DECLINE:
        return answer if answer in (Answer.OK, Answer.DIED) else Answer.OK
    if call.landed and answer in (Answer.UNAVAILABLE, Answer.REFUSED):
        return Answer.TIMED_OUT
    return answer
