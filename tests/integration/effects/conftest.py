"""An effect worker without Celery: real database, fakes for the other side."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, select, text

from db import effects
from db.connect import make_engine
from db.effects import Claim, RecordedTry, TryEnd, Wanted
from db.ids import new_receipt
from db.models import Effect, Try
from db.prepared import SESSION_SETTINGS
from db.states import TryResult
from events.commands import CommandData
from tests import sample_commands as c
from tests.fakes.lms import FakeCredit, FakeInstructor, FakeMailer, FakeWebhooks
from tests.gathering import gathering
from worker.commands.handler import Handler
from worker.effects.action import Tools
from worker.effects.runner import Runner
from worker.effects.slots import Slots
from worker.kinds import QUEUES, EffectKind
from worker.lms.connect import Services
from worker.lms.mail_templates import MailTemplates
from worker.policies import Policies
from worker.rules.retry import RetryPolicy

LEASE_S = 60.0
PATIENCE_S = 150
POLL_S = 0.005


@dataclass
class Bench:
    """A record, an effect worker and the other side."""

    engine: Engine
    credit: FakeCredit = field(default_factory=FakeCredit)
    instructor: FakeInstructor = field(default_factory=FakeInstructor)
    mailer: FakeMailer = field(default_factory=FakeMailer)
    webhooks: FakeWebhooks = field(default_factory=FakeWebhooks)
    handler: Handler = field(default_factory=lambda: Handler(Policies(), instructor=True))
    retry: RetryPolicy = field(default_factory=lambda: RetryPolicy(2, 3600, 604_800))
    max_calls: int = 8
    mail_templates: MailTemplates = field(default_factory=MailTemplates)

    @property
    def runner(self) -> Runner:
        services = Services(
            credit=self.credit,
            instructor=self.instructor,
            mailer=self.mailer,
            webhooks=self.webhooks,
            close=lambda: None,
        )
        slots = Slots(self.max_calls, self.max_calls)
        return Runner(
            Tools(self.engine, services, self.handler, self.retry, LEASE_S, 10, slots, self.mail_templates)
        )

    def run(self, effect_id: UUID) -> str:
        """As the task of the effect's kind does it. Returns what was done, or why nothing was to do."""
        return self.runner.run(effect_id, EffectKind(self.row(effect_id).kind)).text

    def claim(self, effect_id: UUID) -> Claim | None:
        """As a worker that is never heard of again."""
        with self.engine.begin() as connection:
            return claim(connection, effect_id, EffectKind(self.row(effect_id).kind))

    def apply(self, *data: CommandData, traceparent: str | None = None) -> None:
        commands = [(c.command(one, traceparent=traceparent), new_receipt()) for one in data]
        with self.engine.begin() as connection:
            c.apply(self.handler, connection, commands)

    def ids(self, kind: EffectKind | None = None) -> list[UUID]:
        """Effects, oldest first."""
        query = select(Effect.id).order_by(Effect.sequence)
        with self.engine.begin() as connection:
            return list(connection.scalars(query.where(Effect.kind == kind) if kind else query))

    def row(self, effect_id: UUID) -> Any:
        with self.engine.begin() as connection:
            return connection.execute(select(Effect.__table__).where(Effect.id == effect_id)).one()

    def states(self) -> list[tuple[str, str]]:
        with self.engine.begin() as connection:
            rows = connection.execute(select(Effect.kind, Effect.state).order_by(Effect.sequence))
            return [(row.kind, row.state) for row in rows]

    def tries(self, effect_id: UUID) -> list[tuple[int, str | None, str | None]]:
        with self.engine.begin() as connection:
            rows = connection.execute(
                select(Try.number, Try.result, Try.error)
                .where(Try.effect_id == effect_id)
                .order_by(Try.number)
            )
            return [(row.number, row.result, row.error) for row in rows]

    def execute(self, statement: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement), values)

    def make_due(self) -> None:
        """As if the waiting were over."""
        self.execute("UPDATE effects SET due_at = now() WHERE state = 'pending'")

    def expire_leases(self) -> None:
        """As if every worker had died long ago."""
        self.execute("UPDATE effects SET lease_until = now() - interval '1s' WHERE state = 'running'")


def wanted(effect_id: UUID, kind: EffectKind = EffectKind.SET_CREDIT_STATUS) -> Wanted:
    """As the task of a kind asks for an effect."""
    return Wanted(effect_id, kind, QUEUES[kind])


def claim(connection: Connection, effect_id: UUID, kind: EffectKind) -> Claim | None:
    """The claim alone."""
    return effects.claim(connection, [wanted(effect_id, kind)], LEASE_S).get(effect_id)


def ending(
    claim: Claim,
    result: TryResult = TryResult.DONE,
    error: str | None = None,
    delay_s: float | None = None,
) -> TryEnd:
    """How the try of a claim has ended."""
    return TryEnd(claim.id, claim.number, result, error, delay_s)


def end(connection: Connection, claim: Claim, *how: Any) -> RecordedTry | None:
    """Record the end of one try alone; None when it came too late."""
    one = ending(claim, *how)
    return effects.end_tries(connection, [one]).get(one.key)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(POLL_S)


def run_together(runner: Runner, effects: Sequence[tuple[UUID, EffectKind]]) -> list[str]:
    """Run effects, each in a thread of its own; whatever can be done for all of them together is.

    All of them must be claimed. Raises what one of them raised. `runner` must be new.
    """
    kinds = Counter(kind for _, kind in effects)
    cascades, mails = kinds[EffectKind.CASCADE_DECLINE], kinds[EffectKind.SEND_STATUS_EMAIL]
    actions: Any = runner.actions
    steps = (
        (runner.claims, len(effects)),
        (actions[EffectKind.CASCADE_DECLINE], cascades),
        (actions[EffectKind.SEND_STATUS_EMAIL].addressee, mails),
        (runner.results, len(effects) - cascades),
    )
    with ExitStack() as stack:
        serves = [(stack.enter_context(gathering(grouped)), number) for grouped, number in steps]
        pool = stack.enter_context(ThreadPoolExecutor(len(effects)))
        answers = [pool.submit(runner.run, *one) for one in effects]
        for serve, number in serves:
            serve(number)
        return [answer.result().text for answer in answers]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """As workers have it that own their sessions."""
    engine = make_engine(
        database_url, application_name="tests", session_settings=SESSION_SETTINGS, pre_ping=False
    )
    yield engine
    engine.dispose()


@pytest.fixture
def bench(engine: Engine) -> Bench:
    """A bench with a course, three exams and a learner."""
    bench = Bench(engine)
    bench.apply(c.course(), c.exam("A"), c.exam("B"), c.exam("C"), c.learner())
    return bench
