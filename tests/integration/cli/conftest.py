"""The command line on a database of its own, with something in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, select, text

from db import quarantine
from db.models import Effect, QuarantinedMessage
from db.quarantine import Unreadable
from events.vocabulary import QuarantineCode
from tests import sample_commands as c
from tests.commandline import CommandLine
from worker.commands.decoding import Received
from worker.commands.handler import Handler
from worker.kinds import EffectKind
from worker.policies import Policies


@dataclass(frozen=True)
class Record:
    """What is in the database."""

    engine: Engine

    def handle(self, *received: Received) -> None:
        with self.engine.begin() as connection:
            c.handle(Handler(Policies(), instructor=True), connection, received)

    def quarantine(
        self,
        body: bytes,
        headers: dict[str, Any] | None = None,
        shard: int = 0,
        source: str | None = None,
        command_id: str | None = None,
        user_id: str | None = None,
    ) -> None:
        received_at = datetime(2026, 3, 1, 9, tzinfo=UTC)
        message = Unreadable(
            QuarantineCode.NOT_JSON,
            "is no JSON",
            headers or {},
            body,
            received_at,
            source,
            command_id,
            user_id,
        )
        with self.engine.begin() as connection:
            quarantine.write(connection, shard, [message])

    def quarantine_ids(self) -> Sequence[int]:
        """Oldest first."""
        with self.engine.begin() as connection:
            return connection.scalars(select(QuarantinedMessage.id).order_by(QuarantinedMessage.id)).all()

    def execute(self, statement: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement), values)

    def effect_ids(self, kind: EffectKind | None = None) -> Sequence[UUID]:
        """Oldest first."""
        query = select(Effect.id).order_by(Effect.sequence)
        with self.engine.begin() as connection:
            return connection.scalars(query.where(Effect.kind == kind) if kind else query).all()

    def set_state(self, effect_id: UUID, state: str) -> None:
        """As a worker would, with the columns that must agree."""
        self.execute(
            "UPDATE effects SET state = :state, retrying_since = now(), offered_until = now() + interval '1h',"
            " lease_until = CASE WHEN :state = 'running' THEN now() END,"
            " done_at = CASE WHEN :state = 'done' THEN now() END,"
            " due_at = now() + interval '1 h' WHERE id = :id",
            state=state,
            id=effect_id,
        )

    def effect(self, effect_id: UUID) -> Any:
        with self.engine.begin() as connection:
            return connection.execute(select(Effect.__table__).where(Effect.id == effect_id)).one()


@pytest.fixture
def record(engine: Engine) -> Record:
    """A course with two exams, and a learner."""
    record = Record(engine)
    record.handle(
        c.received(c.course(), "course"),
        c.received(c.exam("A"), "exam-A"),
        c.received(c.exam("B"), "exam-B"),
        c.received(c.learner(), "learner"),
    )
    return record


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    database_url: str,
) -> CommandLine:
    """The command line on the test's database, without a broker."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INVIGILATOR_DATABASE_URL", database_url)
    monkeypatch.delenv("INVIGILATOR_BROKER_URL", raising=False)
    return CommandLine(monkeypatch, capsys)


@pytest.fixture
def with_valkey(valkey_url: str, monkeypatch: pytest.MonkeyPatch, cli: CommandLine) -> str:
    """After `cli`, which takes the broker away."""
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", valkey_url)
    return valkey_url
