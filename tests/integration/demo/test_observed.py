"""The two pictures meet: a session handled and its effects run in this process; then the truth is bent."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest
from sqlalchemy import Connection, Engine, select, text

from db import shards
from db.models import Effect
from db.quarantine import Unreadable
from events.commands import Command
from events.envelope import render
from invigilator.demo.expected import expect
from invigilator.demo.observed import observe
from invigilator.demo.reference import MailSink, ReferenceLms
from invigilator.demo.session import Session, generate
from invigilator.demo.session_queries import OPEN, SessionQueries
from invigilator.demo.snapshot import Snapshot, differences
from tests import engines
from tests import sample_commands as c
from tests.unit.demo.sessions import START
from worker.commands.decoding import Received, decode
from worker.commands.handler import Handler
from worker.commands.sources import Message
from worker.effects.action import Tools
from worker.effects.runner import Runner
from worker.effects.slots import Slots
from worker.errors import TryFailedError
from worker.kinds import EffectKind
from worker.lms.connect import connect
from worker.policies import Policies
from worker.rules.retry import RetryPolicy
from worker.settings import Settings

BATCH = 40


@dataclass(frozen=True)
class Played:
    """A session that was played to its end, and where it was."""

    session: Session
    expected: Snapshot
    engine: Engine
    lms: ReferenceLms
    sink: MailSink

    def queries(self, connection: Connection) -> SessionQueries:
        return SessionQueries(connection, self.session.source, self.session.run, self.session.exam_ids)

    def found(self, connection: Connection) -> Snapshot:
        queries = self.queries(connection)
        return observe(self.session, queries, self.lms.credit, self.lms.deletions, self.sink.mails)


@pytest.fixture(scope="module")
def played(postgres_url: str) -> Iterator[Played]:
    """Two sessions, one after the other on the same database; the second one is looked at."""
    with ExitStack() as stack:
        url = stack.enter_context(engines.fresh_database(postgres_url))
        engine = stack.enter_context(engines.disposed(url))
        lms = stack.enter_context(ReferenceLms(fail_fraction=0.1))
        sink = stack.enter_context(MailSink())
        settings = Settings.model_validate({"lms_url": lms.url, "smtp_url": sink.url})
        services = connect(settings)
        stack.callback(services.close)
        handler = Handler(Policies(), instructor=True)
        tools = Tools(engine, services, handler, RetryPolicy(0.001, 0.002, 60), 60, 10, Slots(8, 8))
        for run in ("r0", "r1"):
            session = generate(run, seed=7, start=START, learners=30)
            handle(engine, handler, session)
            run_effects(engine, Runner(tools))
        yield Played(session, expect(session, Policies(), instructor=True), engine, lms, sink)


def handle(engine: Engine, handler: Handler, session: Session) -> None:
    with engine.begin() as connection:
        shards.ensure_shards(connection, 1)
    for start in range(0, len(session.messages), BATCH):
        messages = session.messages[start : start + BATCH]
        bodies = [render(one) if isinstance(one, Command) else one.body for one in messages]
        items = [decode(Message(body, token=None)) for body in bodies]
        received = [item for item in items if isinstance(item, Received)]
        unreadable = [item for item in items if isinstance(item, Unreadable)]
        with engine.begin() as connection:
            c.handle(handler, connection, received, unreadable)


def run_effects(engine: Engine, runner: Runner) -> None:
    while True:
        with engine.begin() as connection:
            effects = connection.execute(select(Effect.id, Effect.kind).where(Effect.state.in_(OPEN))).all()
        if not effects:
            return
        for effect_id, kind in effects:
            try:
                runner.run(effect_id, EffectKind(kind))
            except TryFailedError:
                continue


def test_what_was_done_is_what_had_to_be_done(played: Played) -> None:
    with played.engine.connect() as connection:
        found = played.found(connection)
    assert differences(played.expected, found) == []
    assert found.credit
    assert found.mails
    assert found.deletions


def test_counts(played: Played) -> None:
    with played.engine.connect() as connection:
        queries = played.queries(connection)
        assert queries.committed() == len(played.expected.outcomes)
        assert queries.quarantined() == sum(played.expected.quarantine.values())
        assert sum(queries.effects().values()) == sum(played.expected.effects.values())
        assert sum(queries.statuses().values()) == sum(map(len, played.expected.histories.values()))
        assert queries.tries()["retry"] > 0


@pytest.mark.parametrize(
    ("statement", "part"),
    [
        ("UPDATE attempts SET status = 'error' WHERE id = {attempt}", "attempts"),
        (
            "UPDATE attempts SET taking_as_proctored = NOT taking_as_proctored WHERE id = {attempt}",
            "attempts",
        ),
        (
            "UPDATE transitions SET to_status = 'error' WHERE attempt_id = {attempt} AND version = 1",
            "histories",
        ),
        ("UPDATE attempts SET removed_at = now() WHERE id = {attempt}", "histories"),
        ("DELETE FROM outcomes WHERE inbox_id = {inbox}", "outcomes"),
        ("UPDATE outcomes SET outcome = 'unchanged', code = NULL WHERE inbox_id = {inbox}", "outcomes"),
        ("DELETE FROM quarantine WHERE code = 'too_large'", "quarantine"),
        ("UPDATE quarantine SET code = 'failed' WHERE code = 'too_large'", "quarantine"),
        ("UPDATE effects SET state = 'pending', done_at = NULL WHERE id = {effect}", "unfinished"),
        ("UPDATE effects SET state = 'failed', done_at = NULL WHERE id = {effect}", "unfinished"),
        ("DELETE FROM effects WHERE id = {effect}", "effects"),
    ],
)
def test_what_is_bent_in_the_record_is_found(played: Played, statement: str, part: str) -> None:
    mine = {
        "attempt": "(SELECT id FROM attempts WHERE user_id LIKE 'r1-%' AND status = 'verified' "
        "AND removed_at IS NULL LIMIT 1)",
        "inbox": "(SELECT i.id FROM inbox i JOIN outcomes ON inbox_id = i.id "
        "WHERE source = '/demo/r1' AND outcome = 'applied' LIMIT 1)",
        "effect": "(SELECT id FROM effects WHERE source = '/demo/r1' AND kind = 'send_status_email' LIMIT 1)",
    }
    with played.engine.connect() as connection:
        connection.execute(text(statement.format(**mine)))
        found = differences(played.expected, played.found(connection))
        connection.rollback()
    assert any(line.startswith(f"{part}, ") for line in found)


def test_what_is_bent_on_the_other_side_is_found(played: Played) -> None:
    credit, mails, deletions = dict(played.lms.credit), played.sink.mails, played.lms.deletions
    target = next(key for key in credit if key[1] == played.session.course_id)
    mine = next(mail for mail in mails if mail.recipient.endswith("@r1.example.org"))
    with played.engine.connect() as connection:
        queries = played.queries(connection)

        def wrong(**bent: object) -> list[str]:
            arrived = {"credit": credit, "deletions": deletions, "mails": mails, **bent}
            found = observe(played.session, queries, **arrived)  # type: ignore[arg-type]
            return [line.partition(",")[0] for line in differences(played.expected, found)]

        assert wrong() == []
        assert wrong(credit={**credit, target: "bent"}) == ["credit"]
        assert wrong(credit={key: value for key, value in credit.items() if key != target}) == ["credit"]
        assert wrong(mails=[mail for mail in mails if mail != mine]) == ["mails"]
        assert wrong(mails=[*mails, replace(mine, message_id="<other>")]) == ["mails"]
        assert wrong(mails=[*mails, mine]) == []  # at least once: a copy is counted, and no fault
        assert wrong(deletions=deletions[:-1]) == ["deletions"]
        assert wrong(deletions=[*deletions, deletions[-1]]) == ["deletions"]
