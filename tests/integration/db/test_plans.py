"""The plans of every statement on the hot paths, in a database that is full: nothing reads a whole table.

`make plans` does the same with a million attempts and ten million finished effects, and prints what paths cost.
psycopg2 puts the parameters into the statement, so PostgreSQL plans for these very values. There are plans for any
values only where `consume`, the relay and the workers prepare their statements, and of the foreign keys' own
look-ups, which are by primary key.
"""

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, event, select, text
from sqlalchemy.orm import InstrumentedAttribute

from db import (
    acts,
    awaited,
    backlog,
    causes,
    deliveries,
    effect_filters,
    effect_preview,
    erasure,
    event_log,
    failures,
    lookups,
    operators,
    processes,
    prune,
    quarantine_filters,
    resharding,
    round_trips,
    search,
    shards,
    story,
    subscribers,
    timeline,
    waiting,
)
from db.connect import make_engine
from db.effect_filters import Filter
from db.ids import new_receipt
from db.models import Effect
from db.offers import Offer
from db.people import MailOwed, Sitting, addressees, exam_takers
from db.quarantine import Unreadable
from db.quarantine_filters import Fitting
from db.states import EffectState
from events.vocabulary import Outcome, OutcomeCode, QuarantineCode, Status
from invigilator.acts import effects as people
from invigilator.acts.actor import Action, Actor, Via
from tests import engines
from tests import sample_commands as c
from tests.fakes.receiver import SECRET
from tests.integration.db.filling import DAYS, TABLES, Filled, fill
from tests.integration.effects.conftest import Bench, run_together
from worker.commands.batches import Batches
from worker.commands.handler import Handler
from worker.commands.spans import Item
from worker.effects.relay import Relay
from worker.errors import Gone, Permanent, ServiceError, Transient, TryAgainError, TryFailedError
from worker.feeds.fanout import Fanout
from worker.kinds import EffectKind
from worker.policies import Policies
from worker.processes import session_settings
from worker.settings import Settings
from worker.subscribers import Webhook

SCALE = int(os.environ.get("PLAN_SCALE", "1"))
MAX_ROWS = 15_000
"""So many rows may one statement look at: a full quarantine, a page, a batch. No table has as few at any scale."""
FEW_ROWS = 200
"""So many rows may a look for a few effects find, and for others on their targets."""
EXEMPT = {
    "shards": "has a row for each shard",
    "reshardings": "has a row for each change of the number of shards",
    "processes": "has a row for each process",
    "totals": "has some rows for each process",
    "pauses": "has a row for each time that a person pauses a kind",
    "circuits": "has a row for each service",
    "subscribers": "has a row for each subscriber",
    "event_log": "has one row",
    "pruned": "has a row for each table that is pruned",
    "causes": "has a row for each cause",
    "bulk_acts": "has a row for each act in bulk",
    "quarantine": "is bounded, and its big bodies are kept out of line",
    "pg_database": "has a row for each database",
}
SEARCHED = {"learners erase": "acts"}
"""What a path looks through because it must: any reason may name a learner."""
EVENTS = 60_000 * SCALE
MANY_EVENTS = """
INSERT INTO events (id, position, type, time, data)
SELECT gen_random_uuid(), number, 'exam.message.quarantined.v1', now() - interval '40 days', '{}'
FROM generate_series(1, :rows) AS number
"""
MANY_ACTS = """
INSERT INTO acts (
    sequence, act_id, step, closing, at, actor, is_claimed, via, action, user_id, filter, number, details, previous,
    hash
)
SELECT number, gen_random_uuid(), 1, true, now(), 'ada', false, 'api', 'retry', 'u' || number % 1000, '{}', 1, '{}',
    sha256(''), sha256('')
FROM generate_series(1, :rows) AS number
"""
MANY_TARGETS = """
INSERT INTO act_targets (act_sequence, effect_id, before, after)
SELECT number, gen_random_uuid(), 'failed', 'pending' FROM generate_series(1, :rows) AS number
"""
OUTAGE = 2 * MAX_ROWS
MANY_FAIL = """
INSERT INTO effects (
    id, kind, state, payload, source, command_id, tries, created_at, due_at, retrying_since, last_error, cause,
    failed_at, subscriber
)
SELECT gen_random_uuid(), 'deliver_event', 'pending', '{}', '/lms', 'a1-1', 1, moment, now() + interval '1 hour',
    moment, 'answered 503', 'down', moment, 'webhook.down'
FROM generate_series(1, :rows) AS number
CROSS JOIN LATERAL (SELECT now() - number * interval '1 second' AS moment) AS at
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """How PostgreSQL carried out a statement."""

    path: str
    statement: str
    milliseconds: float
    blocks: int
    nodes: list[dict[str, Any]]

    def whole_tables(self) -> list[str]:
        """The tables that are read from one end to the other."""
        return [node["Relation Name"] for node in self._scans() if node["Node Type"] == "Seq Scan"]

    def rows(self) -> float:
        """The most rows that one of its scans looked at, those that it passed over included."""
        return max((_rows(node) for node in self._scans()), default=0)

    def _scans(self) -> list[dict[str, Any]]:
        searched = SEARCHED.get(self.path)
        scans = [node for node in self.nodes if "Scan" in node["Node Type"]]
        return [node for node in scans if searched is None or node.get("Relation Name") != searched]


def _rows(node: dict[str, Any]) -> float:
    passed_over = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float((node["Actual Rows"] + passed_over) * node["Actual Loops"])


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


@dataclass
class Explained:
    """Explains every statement before it is executed, in its transaction, so that it finds what it will find."""

    engine: Engine
    plans: list[Plan] = field(default_factory=list)
    path: str = ""

    @contextmanager
    def on(self, path: str) -> Iterator[None]:
        """While in here, statements are explained, as parts of this path. None waits for the next one."""
        self.path = path
        event.listen(self.engine, "before_cursor_execute", self._explain)
        try:
            with mock.patch.object(round_trips, "later", Connection.exec_driver_sql):
                yield
        finally:
            event.remove(self.engine, "before_cursor_execute", self._explain)

    def _explain(
        self, connection: Connection, _cursor: Any, statement: str, parameters: Any, *_: Any
    ) -> None:
        if statement.split()[0] not in ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "EXECUTE"):
            return
        dbapi: Any = connection.connection
        begin, undo = ("BEGIN", "ROLLBACK") if dbapi.autocommit else ("SAVEPOINT s", "ROLLBACK TO s")
        with dbapi.cursor() as cursor:
            cursor.execute(begin)
            explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement
            cursor.execute(explain, parameters[0] if isinstance(parameters, list) else parameters)
            [plan] = cursor.fetchone()[0]
            cursor.execute(undo)
        nodes = list(_nodes(plan["Plan"]))
        blocks = nodes[0]["Shared Hit Blocks"] + nodes[0]["Shared Read Blocks"]
        self.plans.append(Plan(self.path, statement, plan["Execution Time"], blocks, nodes))


@dataclass
class Queues:
    """A broker that can be away."""

    away: bool = False

    def dispatch(self, offers: Sequence[Offer]) -> None:
        if self.away:
            raise Transient("the broker is away")

    def queue_length(self, queue: str) -> int:
        return 0


@dataclass
class Paths:
    """The hot paths, on a full database."""

    filled: Filled
    explained: Explained
    prepared: Explained
    """In sessions that prepare their statements, as `consume` and the relay have."""
    bench: Bench
    tried: Explained
    """In the sessions of `bench`."""

    @property
    def engine(self) -> Engine:
        return self.explained.engine

    def commands(self) -> None:
        """Batches of every type of command, and what a consumer does when it has nothing to do."""
        engine = self.prepared.engine
        with engine.begin() as connection:
            shards.ensure_shards(connection, 1)
        with self.prepared.on("shard taken"), engine.begin() as connection:
            fence = shards.take(connection, 0, "me", 60)
        assert fence is not None
        batches = Batches(engine, Handler(Policies(), instructor=True), 60)
        with self.prepared.on("shard renewed"):
            batches.renew(fence)
        for path, items in self.batches():
            with self.prepared.on(path):
                batches.commit(fence, items)
            assert batches.failures == 0

    def batches(self) -> Iterator[tuple[str, list[Item]]]:
        """Each with its path."""
        user, exam = self.filled.user, self.filled.exam
        busy = range(40, 240)  # learners
        yield "batch: one course", [c.received(c.course())]
        yield "batch: one exam", [c.received(c.exam("new"))]
        yield "batch: one learner", [c.received(c.learner("new"))]
        yield "batch: one attempt created", [c.received(c.create("new", "new"))]
        submitted = c.received(c.update("new", "submitted", "new"), "submitted")
        yield "batch: one status", [submitted]
        yield "batch: one duplicate", [submitted]
        yield "batch: one removal", [c.received(c.remove("new", "new"))]
        yield "batch: 100 learners", [c.received(c.learner(user(one))) for one in islice(busy, 100)]
        yield "batch: 100 removals", [c.received(c.remove(exam(one, 0), user(one))) for one in busy[:100]]
        yield (
            "batch: 100 attempts created",
            [c.received(c.create(exam(one, 0), user(one), taking_as_proctored=True)) for one in busy[:100]],
        )
        yield (
            "batch: 100 statuses",
            [
                c.received(c.update(exam(one, 0), status, user(one)), f"{status}-{one}")
                for one in busy[:50]
                for status in ("submitted", "rejected")
            ],
        )
        yield (
            "batch: 100 duplicates",
            [
                c.received(c.update(exam(one, 0), status, user(one)), f"{status}-{one}")
                for one in busy[:50]
                for status in ("submitted", "rejected")
            ],
        )
        # Attempt 8·i + 3 owes a cascade where i mod 4 is 2; its learner is 2·i.
        owing = [user(2 * i) for i in range(2, 400, 4)]
        yield (
            "batch: 100 owed cascades folded in",
            [
                c.received(c.update(exam(2 * i, 1), "started", user(2 * i)))
                for i in range(2, 2 + 4 * len(owing), 4)
            ],
        )
        unreadable: Item = Unreadable(QuarantineCode.NOT_JSON, "is no JSON", {}, b"?", new_receipt().at)
        yield "batch: 100 unreadable", [unreadable] * 100
        yield (
            "batch: 10 with other data",
            [c.received(c.update(exam(one, 0), "error", user(one)), f"submitted-{one}") for one in busy[:10]],
        )

    def relay(self) -> None:
        """Offers, taken and withdrawn. Of those that `effects` leaves, one waits for an older one."""
        queues = Queues()
        relay = Relay(self.prepared.engine, queues, poll_s=2, offer_ttl_s=60)
        with self.prepared.on("relay: offers"):
            relay.offer_once()
        with self.engine.begin() as connection:
            connection.execute(
                text("UPDATE effects SET offered_until = NULL WHERE state = 'pending' AND due_at < now()")
            )
        queues.away = True
        with self.prepared.on("relay: offers withdrawn"), pytest.raises(Transient):
            relay.offer_once()
        queues.away = False
        relay.offer_once()
        with self.prepared.on("relay: nothing to offer"):
            relay.offer_once()

    def some_effects(self) -> None:
        """Tries, which prepare what `effects` prepares, in a database that is nearly empty."""
        user, exam = self.filled.user(901), self.filled.exam(901, 0)
        self.bench.apply(c.course(), c.exam(exam), c.learner(user))
        self.in_order()
        for effect_id in self.bench.ids():
            self.run(effect_id)

    def effects(self) -> None:
        """Tries of every kind, and how they may end."""
        bench = self.bench
        due = {kind: self.due(kind) for kind in EffectKind}
        ends: Sequence[tuple[str, ServiceError | None]] = (
            ("done", None),
            ("tried again", Transient("503")),
            ("failed", Permanent("404")),
        )
        for end, error in ends:
            effect_id = next(due[EffectKind.SET_CREDIT_STATUS])
            if error:
                bench.credit.fail_with(error)
            with self.tried.on(f"effect: credit {end}"):
                self.run(effect_id)
        for name, kind in (
            ("mail", EffectKind.SEND_STATUS_EMAIL),
            ("cascade", EffectKind.CASCADE_DECLINE),
            ("reset", EffectKind.DELETE_STUDENT_ATTEMPT),
        ):
            with self.tried.on(f"effect: {name} done"):
                self.run(next(due[kind]))
        for name, kind in (
            ("credits", EffectKind.SET_CREDIT_STATUS),
            ("mails", EffectKind.SEND_STATUS_EMAIL),
            ("cascades", EffectKind.CASCADE_DECLINE),
        ):
            with self.tried.on(f"effects: several {name} at once"):
                run_together(bench.runner, [(one, kind) for one in islice(due[kind], 5)])
        older, newer, newest = self.on_one_target()
        with self.tried.on("effect: superseded"):
            self.run(older)
        assert bench.row(older).state == "superseded"
        assert bench.claim(newest) is not None
        with self.tried.on("effect: waits for its target"):
            self.run(newer)
        older, newer, _ = self.in_order()
        with self.tried.on("effect: waits for an older one"):
            self.run(newer)
        with self.tried.on("effect: frees the next"):
            self.run(older)
        assert bench.row(older).state == "done"

    def run(self, effect_id: Any) -> None:
        with suppress(TryFailedError):
            self.bench.run(effect_id)

    def due(self, kind: EffectKind) -> Iterator[Any]:
        """Effects that a worker would be offered now."""
        query = select(Effect.id).where(
            Effect.kind == kind, Effect.state == EffectState.PENDING, Effect.due_at < text("now()")
        )
        with self.engine.begin() as connection:
            return iter(connection.scalars(query.order_by(Effect.sequence.desc()).limit(10)).all())

    def on_one_target(self) -> Sequence[Any]:
        """Three pending effects on one target."""
        return self.owed(900, Effect.target)

    def in_order(self) -> Sequence[Any]:
        """Three pending effects with one order key."""
        return self.owed(901, Effect.order_key)

    def owed(self, learner: int, column: InstrumentedAttribute[str | None]) -> Sequence[Any]:
        """The last three effects that share what the column says."""
        user, exam = self.filled.user(learner), self.filled.exam(learner, 0)
        statuses = ("submitted", "rejected", "verified")
        self.bench.apply(
            c.remove(exam, user),
            c.create(exam, user, taking_as_proctored=True),
            *(c.update(exam, one, user) for one in statuses),
        )
        query = (
            select(Effect.id)
            .where(Effect.user_id == user, column.is_not(None), Effect.state == EffectState.PENDING)
            .order_by(Effect.sequence)
        )
        with self.engine.begin() as connection:
            return connection.scalars(query).all()[-3:]

    def status(self) -> None:
        """What `invigilator status` asks."""
        with self.engine.begin() as connection, self.explained.on("status: the rest"):
            shards.in_hand(connection)
            resharding.read(connection)
            lookups.count_quarantined(connection)
            lookups.count_discarded(connection)
            waiting.due(connection, list(EffectKind))
            waiting.open_circuits(connection)
            waiting.shard_rows(connection)
            processes.seen(connection)
            processes.forget(connection, 15.0)
        with self.engine.connect() as connection, self.explained.on("status: effects"):
            backlog.by_state(connection, backlog.by_kind(connection))

    def acts(self) -> None:
        """What people do, and what they look at of it."""
        with self.engine.begin() as connection:
            for statement in (MANY_ACTS, MANY_TARGETS):
                connection.execute(text(statement), {"rows": EVENTS})
            connection.execute(
                text(
                    "UPDATE effects SET state = 'failed', cause = 'x', failed_at = now(), dropped_at = NULL"
                    " WHERE state IN ('failed', 'cancelled')"
                )
            )
            connection.execute(
                text("INSERT INTO causes (id, kind, reason) VALUES ('x', 'set_credit_status', 'x')")
            )
            connection.execute(text("ANALYZE acts, act_targets, effects"))
        user, mail = self.filled.user(800), EffectKind.SEND_STATUS_EMAIL
        with self.explained.on("API: timeline"), self.engine.begin() as connection:
            first = timeline.read(connection, user, mail_kind=mail, after=None, limit=100)
            assert timeline.read(connection, user, mail_kind=mail, after=first[0].position, limit=100)
        with self.explained.on("learners show"), self.engine.begin() as connection:
            assert story.heading(connection, user).attempts
        with self.explained.on("learners erase"), self.engine.begin() as connection:
            assert erasure.erase(connection, user, mail_kind=mail, reason="request 7")
        with self.explained.on("effects causes"), self.engine.begin() as connection:
            failed = sum(one["count"] for one in causes.failing(connection) if one["cause"] == "x")
            assert failed > 50
        with self.explained.on("audit list"), self.engine.begin() as connection:
            assert len(list(acts.acts(connection, limit=100))) == 100
            assert len(list(acts.acts(connection, user_id="u7", limit=10))) == 10
            assert list(acts.acts(connection, act_id=uuid4())) == []
            assert list(acts.acts(connection, effect_id=uuid4())) == []
        actor = Actor("ada", is_claimed=False, via=Via.API, origin=None)
        with self.explained.on("effects cancel, in steps"):
            act = people.start(self.engine, actor, Action.CANCEL, Filter(cause="x"), None)
            assert people.run(act).number == failed
        with self.explained.on("console: an act in bulk"), self.engine.begin() as connection:
            assert acts.states_of(connection, act.progress.id, 10_000) == {EffectState.CANCELLED: failed}
            assert len(acts.effects_of(connection, act.progress.id, 1)) == min(failed, people.STEP_EFFECTS)

    def outage(self) -> None:
        """Pages of effects while many fail for one cause."""
        with self.engine.begin() as connection:
            connection.execute(text(MANY_FAIL), {"rows": OUTAGE})
            connection.execute(text("ANALYZE effects"))
        failing = tuple(effect_filters.FAILING)
        with self.explained.on("effects list, in an outage"), self.engine.begin() as connection:
            for wanted in (Filter(states=failing, cause="down"), Filter(subscriber="webhook.down")):
                first = effect_filters.page(connection, wanted, limit=100)
                assert first.effects
                effect_filters.page(connection, wanted, after=first.next, limit=100)

    def events(self) -> None:
        """The log: written, numbered, published and pruned."""
        with self.engine.begin() as connection:
            connection.execute(text(MANY_EVENTS), {"rows": EVENTS})
            connection.execute(
                text("UPDATE event_log SET position = :rows, server_run = NULL"), {"rows": EVENTS}
            )
            subscribers.store(connection, {"feed.lms": {}})
            connection.execute(text("ANALYZE events"))
        self.bench.apply(c.create(self.filled.exam(902, 1), self.filled.user(902)))
        with self.explained.on("status: unnumbered events"), self.engine.begin() as connection:
            assert waiting.has_unnumbered_events(connection)
        with self.explained.on("events: numbered"), self.engine.begin() as connection:
            event_log.number(connection)
        with self.explained.on("events: read"), self.engine.begin() as connection:
            event_log.read(connection, EVENTS // 2)
        with self.explained.on("status: feeds"), self.engine.begin() as connection:
            connection.execute(text("UPDATE subscribers SET position = 0"))
            [standing] = subscribers.standings(connection)
            assert standing.behind == subscribers.COUNTED_BEHIND
            connection.execute(text("UPDATE subscribers SET position = :rows"), {"rows": EVENTS})
        with self.explained.on("events: cursor moved"), self.engine.begin() as connection:
            taken = subscribers.take(connection, "feed.lms", "me", 60)
            assert taken is not None
            subscribers.move(connection, taken[0], taken[1], taken[1] + 1, 60)
        with self.explained.on("events: a page is pruned"), self.engine.begin() as connection:
            assert event_log.prune(connection, timedelta(days=1)) == event_log.PAGE_ROWS

    def webhooks(self) -> None:
        """A webhook: owed what is in the log, called, and switched off and on."""
        name, webhook = (
            "webhook.acme",
            Webhook.model_validate({"url": "https://acme.example/", "secrets": [SECRET]}),
        )
        with self.engine.begin() as connection:
            subscribers.store(connection, {"feed.lms": {}, name: {}})
            connection.execute(
                text("UPDATE subscribers SET position = :rows WHERE name = :name"),
                {"rows": EVENTS - 50, "name": name},
            )
        with self.explained.on("webhooks: fan-out"):
            assert not Fanout(self.engine, {name: webhook}, "/invigilator/main", 60).fan_out(
                name, threading.Event()
            )
        first, *others = self.bench.ids(EffectKind.DELIVER_EVENT)
        assert len(others) >= 49
        with self.explained.on("webhooks: delivered"):
            assert self.bench.run(first).endswith("done")
        self.bench.webhooks.fail_with(Gone("webhook.acme answered 410"))
        with self.explained.on("webhooks: gone"), suppress(TryAgainError):
            self.bench.run(others[0])
        with self.explained.on("webhooks: on"), self.engine.begin() as connection:
            assert deliveries.switch_on(connection, name)
        with self.explained.on("webhooks: listed"), self.engine.begin() as connection:
            assert len(deliveries.endpoints(connection)) == 1
        with self.engine.begin() as connection:
            subscribers.store(connection, {"feed.lms": {}})
        with self.explained.on("webhooks: taken out"), self.engine.begin() as connection:
            assert deliveries.cancel_orphans(connection) == len(others)

    def pruning(self) -> None:
        """The first page, one in the middle, and the last."""
        with self.engine.connect() as connection:
            before, moment, recently = (
                connection.execute(text(f"SELECT now() - {days} * interval '1 day'")).scalar_one()
                for days in (DAYS / 2, DAYS * 3 / 4, DAYS / 4)
            )
            newest = select(Effect.sequence).order_by(Effect.created_at.desc()).limit(1)
            middle = connection.scalars(newest.where(Effect.created_at < moment)).one()
            late = connection.scalars(newest.where(Effect.created_at < recently)).one()
            with self.explained.on("prune: 1,000 effects"):
                assert prune.remove_effects(connection, before, None).removed.effects > prune.PAGE_ROWS / 2
                assert prune.remove_effects(connection, before, middle).removed.effects > prune.PAGE_ROWS / 2
            with self.explained.on("prune: 1,000 commands"):
                assert prune.remove_commands(connection, before, None).removed.commands == prune.PAGE_ROWS
                assert prune.remove_commands(connection, before, moment).removed.commands == prune.PAGE_ROWS
            with self.explained.on("prune: the end"):
                assert prune.remove_effects(connection, before, late).end is None
                prune.remove_commands(connection, before, before)

    def people(self) -> None:
        """What a person looks at and does."""
        user, exam, course = self.filled.user(800), self.filled.exam(800, 1), self.filled.course(800)
        failed = EffectState.FAILED
        with self.engine.begin() as connection:
            with self.explained.on("attempts show"):
                lookups.attempt_history(connection, exam_id=exam, user_id=user)
            with self.explained.on("attempts list"):
                page(connection)
                page(connection, course_id=course)
                page(connection, exam_id=exam)
                page(connection, user_id=user)
                page(connection, status=Status.STARTED)
            with self.explained.on("API: attempts, the next page"):
                after = page(connection).next
                page(connection, after=after)
                page(connection, after=after, course_id=course)
                page(connection, after=after, course_id=course, status=Status.VERIFIED)
                page(connection, after=after, exam_id=exam, status=Status.STARTED, removed=None)
                page(connection, after=after, user_id=user, course_id=course, status=Status.VERIFIED)
                page(connection, after=after, status=Status.SUBMITTED)
            with self.explained.on("API: attempts that are rare"):
                lookups.attempts(connection, status=Status.REJECTED, limit=100)
                lookups.attempts(connection, status=Status.STARTED, removed=True, limit=100)
                lookups.attempts(connection, exam_id=exam, status=Status.REJECTED, limit=100)
                lookups.attempts(connection, course_id=course, status=Status.REJECTED, limit=100)
            with self.explained.on("API: awaited commands"):
                commands = [
                    c.received(c.update(exam, "submitted", user), f"a{number}-1").command
                    for number in range(200)
                ]
                assert len(awaited.look(connection, commands)) == 200
            with self.explained.on("search"):
                attempt_id, effect_id = (f"00000000-0007-0000-0000-0000000000{end}" for end in ("00", "10"))
                for named in (user, exam, course, attempt_id, effect_id, "a7-1", "17"):
                    assert search.find(connection, named)
                assert not search.find(connection, "nothing")
            with self.explained.on("console"):
                failures.by_answer(connection, timedelta(hours=6), timedelta(minutes=15))
                causes.find(connection, "abc")
                quarantine_filters.count(connection, Fitting(code="not_json"))
                quarantine_filters.page(connection, Fitting(), after=0, limit=50)
                quarantine_filters.ids(connection, Fitting(source="/lms"), after=0, last=99, limit=50)
            with self.explained.on("commands show"):
                lookups.command(connection, "/lms", "a7-1")
            with self.explained.on("commands list"):
                take(lookups.commands(connection, limit=100))
                take(lookups.commands(connection, outcome=Outcome.REJECTED, limit=100))
                take(lookups.commands(connection, outcome=Outcome.APPLIED, limit=100))
                take(lookups.commands(connection, code=OutcomeCode.ILLEGAL_TRANSITION, limit=100))
            with self.explained.on("effects list"):
                for wanted in (
                    Filter(),
                    Filter(states=(failed,)),
                    Filter(states=(EffectState.SUPERSEDED,)),
                    Filter(kinds=(EffectKind.SEND_STATUS_EMAIL,)),
                    Filter(states=(failed,), kinds=(EffectKind.SEND_STATUS_EMAIL,)),
                    Filter(user_id=user),
                    Filter(exam_id=exam),
                    Filter(course_id=course, states=(EffectState.DONE,)),
                    Filter(attempt="00000000-0007-0000-0000-000000000000"),
                    Filter(cause="abc"),
                    Filter(error="403"),
                    Filter(subscriber="webhook.acme", states=(failed,)),
                    Filter(subscriber="webhook.acme"),
                ):
                    effect_filters.count_up_to(connection, wanted, 1_000)
                    first = effect_filters.page(connection, wanted, limit=100)
                    if first.next is not None:
                        effect_filters.page(connection, wanted, after=first.next, limit=100)
            with self.explained.on("effects retry and cancel"):
                only_failed = Filter(states=(failed,))
                ids = effect_filters.ids(connection, only_failed, limit=500)
                assert effect_filters.ids(connection, only_failed, after=ids[0], limit=500) == ids[1:]
                assert effect_filters.count(connection, only_failed) == len(ids)
                fitting = effect_filters.conditions(only_failed)
                assert sum(one.count for one in effect_preview.groups(connection, fitting)) == len(ids)
                effect_preview.late(connection, fitting)
                operators.retry(connection, ids)
                operators.cancel(connection, ids)
            with self.explained.on("effects show"):
                assert lookups.effect(connection, ids[0]) is not None

    def mails(self) -> None:
        """To whom the mails of a worker's threads go, when all are due at once."""
        query = (
            select(Effect.id, Effect.user_id, Effect.payload)
            .where(Effect.kind == EffectKind.SEND_STATUS_EMAIL, Effect.state == EffectState.PENDING)
            .limit(100)
        )
        with self.engine.connect() as connection:
            mails = [
                MailOwed(row.id, row.user_id, row.payload["exam_id"], row.payload["course_id"])
                for row in connection.execute(query)
            ]
            with self.explained.on("mails: 100 addressees"):
                assert len(addressees(connection, mails, EffectKind.SET_CREDIT_STATUS.entry.queue)) == 100
            sittings = [Sitting(one.effect_id, one.user_id, one.exam_id, one.user_id) for one in mails]
            with self.explained.on("events: 100 exam takers"):
                assert len(exam_takers(connection, sittings)) == 100


def take(rows: Iterable[Any]) -> None:
    assert list(rows)


def page(connection: Connection, **wanted: Any) -> lookups.AttemptPage:
    found = lookups.attempts(connection, **wanted, limit=100)
    assert found.attempts
    return found


@pytest.fixture(scope="module")
def plans(postgres_url: str) -> Iterator[list[Plan]]:
    with empty_database(postgres_url) as (engine, preparing):
        yield explain_all(engine, preparing, fill(engine, SCALE))


@contextmanager
def empty_database(server_url: str) -> Iterator[tuple[Engine, Engine]]:
    """Two engines on it: an ordinary one, and the commands process's.

    Autovacuum leaves the tables alone. Otherwise chance would say whether a plan may read an index only.
    """
    with engines.fresh_database(server_url) as url, engines.disposed(url) as engine:
        with engine.begin() as connection:
            for table in TABLES:
                connection.execute(text(f"ALTER TABLE {table} SET (autovacuum_enabled = off)"))
        settings = session_settings(Settings())
        preparing = make_engine(url, application_name="plans", session_settings=settings)
        try:
            yield engine, preparing
        finally:
            preparing.dispose()


def explain_all(engine: Engine, preparing: Engine, filled: Filled) -> list[Plan]:
    plans: list[Plan] = []
    explained, prepared = Explained(engine, plans), Explained(preparing, plans)
    paths = Paths(filled, explained, prepared, Bench(preparing), tried=prepared)
    for run in (
        paths.status,
        paths.people,
        paths.effects,
        paths.relay,
        paths.commands,
        paths.events,
        paths.webhooks,
        paths.pruning,
        paths.mails,
        paths.acts,
        paths.outage,
    ):
        run()
    return plans


def test_no_statement_reads_a_whole_table(plans: list[Plan]) -> None:
    report(plans)
    assert len({plan.path for plan in plans}) > 35
    read = {
        (plan.path, plan.statement, table)
        for plan in plans
        for table in plan.whole_tables()
        if table not in EXEMPT
    }
    assert read == set()


def test_no_statement_looks_at_many_rows(plans: list[Plan]) -> None:
    """A walk through a whole index is no better than one through the table."""
    many = {(plan.path, plan.statement, plan.rows()) for plan in plans if plan.rows() > MAX_ROWS}
    assert many == set()


def test_plans_of_an_empty_database_are_as_good_when_it_is_full(plans: list[Plan], postgres_url: str) -> None:
    # Given a session in which everything was prepared and run while the tables were empty
    with empty_database(postgres_url) as (engine, preparing):
        prepared = Explained(preparing)
        paths = Paths(Filled(0), Explained(engine), prepared, Bench(preparing), tried=prepared)
        paths.commands()
        paths.some_effects()
        empty(engine)
        # When the tables grow, and nobody analyses them
        paths.filled = fill(engine, SCALE, at_once=False)
        prepared.plans.clear()
        paths.effects()
        paths.commands()
    # Then the same plans as of a session that knows how big they are look at about as much
    looked, fresh = (blocks_by_path(some) for some in (prepared.plans, plans))
    assert {path: blocks for path, blocks in looked.items() if blocks > 2 * fresh[path] + 30} == {}


def test_effects_are_found_by_their_ids_however_many_are_pending(postgres_url: str) -> None:
    with empty_database(postgres_url) as (engine, preparing):
        explained = Explained(engine)
        paths = Paths(fill(engine, SCALE), explained, Explained(preparing), Bench(engine), tried=explained)
        # Given tables that were analysed when nothing was pending: the next time is a million effects away
        forget_what_is_pending(engine)
        paths.effects()
    # Then no index of all pending effects is gone through for a few of them
    looked = {(plan.path, plan.statement, plan.rows()) for plan in explained.plans if plan.rows() > FEW_ROWS}
    assert looked == set()


def forget_what_is_pending(engine: Engine) -> None:
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        for statement in (
            "SET session_replication_role = replica",
            "CREATE TEMPORARY TABLE pending AS SELECT * FROM effects WHERE state = 'pending'",
            "DELETE FROM effects WHERE state = 'pending'",
            "VACUUM (ANALYZE) effects",
            "INSERT INTO effects OVERRIDING SYSTEM VALUE SELECT * FROM pending",
            "RESET session_replication_role",
        ):
            connection.execute(text(statement))


def empty(engine: Engine) -> None:
    """Delete all rows. After a TRUNCATE everything would be planned again."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for table in TABLES:
            connection.execute(text(f"DELETE FROM {table}"))


def blocks_by_path(plans: list[Plan]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for plan in plans:
        counted[plan.path] += plan.blocks
    return counted


def report(plans: list[Plan]) -> None:
    """What each path costs, as a table, for `make plans`."""
    lines = ["", "| path | statements | ms in all | slowest, ms | blocks in all |", "|---|---|---|---|---|"]
    for path in dict.fromkeys(plan.path for plan in plans):
        of_path = [plan for plan in plans if plan.path == path]
        times = [plan.milliseconds for plan in of_path]
        blocks = sum(plan.blocks for plan in of_path)
        lines.append(f"| {path} | {len(times)} | {sum(times):.1f} | {max(times):.1f} | {blocks} |")
    sys.stdout.write("\n".join([*lines, ""]))
