"""Readiness: what a call would lack, without anything personal or secret."""

import asyncio
import threading

import pytest
from sqlalchemy import Engine, text

from db.connect import make_engine
from invigilator.web import health
from invigilator.web.health import Readiness
from tests import engines

AWAY = "redis://me:secret@127.0.0.1:1"


def test_it_is_ready(engine: Engine, valkey_url: str) -> None:
    assert asyncio.run(Readiness(engine, valkey_url).reasons()) == []


def test_engines_that_are_away() -> None:
    engine = make_engine("postgresql://me:secret@127.0.0.1:1/x", application_name="tests")
    reasons = asyncio.run(Readiness(engine, AWAY).reasons())
    assert reasons == ["the database does not answer", "the broker does not answer"]


def test_a_schema_that_cannot_be_used(engine: Engine, valkey_url: str) -> None:
    with engine.begin() as connection:
        for table in ("invigilator_schema", "alembic_version"):
            connection.execute(text(f"UPDATE {table} SET version_num = '0001'"))
    [reason] = asyncio.run(Readiness(engine, valkey_url).reasons())
    assert "run `invigilator migrate`" in reason


def test_a_database_in_which_names_would_get_lost(postgres_url: str, valkey_url: str) -> None:
    with (
        engines.fresh_database(postgres_url, template="template0", encoding="SQL_ASCII") as url,
        engines.disposed(url) as engine,
    ):
        [reason] = asyncio.run(Readiness(engine, valkey_url).reasons())
        assert "has the encoding SQL_ASCII" in reason


def test_whoever_asks_often_keeps_no_engine_busy(
    engine: Engine, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    readiness = Readiness(engine, valkey_url)
    assert asyncio.run(readiness.reasons()) == []
    monkeypatch.setattr("invigilator.web.health.compare", lambda _: pytest.fail("it has looked again"))
    assert asyncio.run(readiness.reasons()) == []


@pytest.mark.parametrize(
    ("question", "silent"),
    [("compare", "the database does not answer"), ("depths", "the broker does not answer")],
)
def test_an_engine_that_is_frozen_is_named_to_each_who_asks(
    question: str, silent: str, engine: Engine, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    readiness, thaws = Readiness(engine, valkey_url), threading.Event()
    monkeypatch.setattr(health, "KEPT_S", 0.0)
    assert asyncio.run(readiness.reasons()) == []
    monkeypatch.setattr(health, "ANSWER_S", 0.0)
    monkeypatch.setattr(health, question, lambda *_: thaws.wait(60))

    async def asked_twice() -> list[list[str]]:
        return [*await asyncio.gather(readiness.reasons(), readiness.reasons())]

    try:
        # The thread may still be on its way to the engine that is frozen.
        while (answers := asyncio.run(asked_twice())) != [[silent], [silent]]:
            assert all(answers), "it says that it is ready"
    finally:
        thaws.set()
