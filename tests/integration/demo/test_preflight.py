"""The demo does not deliver what somebody else owes."""

import pytest
from sqlalchemy import Engine

from db import shards
from events.commands import Command, CommandData
from events.publisher import Publisher
from invigilator.demo.preflight import prepare, refuse_queued
from invigilator.demo.session import generate
from tests import sample_commands as c
from tests.unit.demo.sessions import START
from worker.commands.handler import Handler
from worker.errors import ConfigurationError
from worker.policies import Policies
from worker.settings import Settings


def owe(engine: Engine, source: str) -> None:
    """One effect, from a command of `source`."""
    data: list[CommandData] = [
        c.course(),
        c.exam("A"),
        c.learner(),
        c.create("A"),
        c.update("A", "submitted"),
    ]
    named = [(Command(source, one.id, one.data), receipt) for one, receipt in map(c.stamped, data)]
    with engine.begin() as connection:
        c.apply(Handler(Policies(), instructor=True), connection, named)


def test_an_empty_database_is_migrated_and_fine(empty_database_url: str) -> None:
    prepare(empty_database_url, patience_s=0)
    prepare(empty_database_url, patience_s=0)


def test_what_an_interrupted_demo_owes_is_fine(engine: Engine, database_url: str) -> None:
    owe(engine, generate("r0", seed=1, start=START, learners=30).source)
    prepare(database_url, patience_s=0)


def test_what_others_owe_is_refused(engine: Engine, database_url: str) -> None:
    owe(engine, "/lms/acme")
    with pytest.raises(ConfigurationError, match="still owes 1 effects"):
        prepare(database_url, patience_s=0)


def test_another_system_at_work_is_refused(engine: Engine, database_url: str) -> None:
    with engine.begin() as connection:
        shards.ensure_shards(connection, 1)
        shards.take(connection, 0, "somebody", lease_s=60)
    with pytest.raises(ConfigurationError, match="another system works on this database"):
        prepare(database_url, patience_s=0.3)


def test_a_lease_that_ends_soon_is_waited_for(engine: Engine, database_url: str) -> None:
    with engine.begin() as connection:
        shards.ensure_shards(connection, 1)
        shards.take(connection, 0, "killed", lease_s=0.5)
    prepare(database_url, patience_s=10)


def test_commands_that_wait_in_a_configured_broker_are_refused(valkey_url: str) -> None:
    settings = Settings.model_validate({"broker_url": valkey_url})
    refuse_queued(settings)
    refuse_queued(Settings(broker_url=None))
    with Publisher(valkey_url, source="/lms/acme") as publisher:
        publisher.upsert_course(course_id="c")
    with pytest.raises(ConfigurationError, match="1 commands wait"):
        refuse_queued(settings)
