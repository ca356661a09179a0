"""Readiness: what a call would lack, without anything personal or secret."""

import pytest
from sqlalchemy import Engine, text

from db.connect import make_engine
from invigilator.web.health import Readiness
from tests import engines

AWAY = "redis://me:secret@127.0.0.1:1"


def test_it_is_ready(engine: Engine, valkey_url: str) -> None:
    assert Readiness(engine, valkey_url).reasons() == []


def test_engines_that_are_away() -> None:
    engine = make_engine("postgresql://me:secret@127.0.0.1:1/x", application_name="tests")
    reasons = Readiness(engine, AWAY).reasons()
    assert reasons == ["the database does not answer", "the broker does not answer"]


def test_a_schema_that_cannot_be_used(engine: Engine, valkey_url: str) -> None:
    with engine.begin() as connection:
        for table in ("invigilator_schema", "alembic_version"):
            connection.execute(text(f"UPDATE {table} SET version_num = '0001'"))
    [reason] = Readiness(engine, valkey_url).reasons()
    assert "run `invigilator migrate`" in reason


def test_a_database_in_which_names_would_get_lost(postgres_url: str, valkey_url: str) -> None:
    with (
        engines.fresh_database(postgres_url, template="template0", encoding="SQL_ASCII") as url,
        engines.disposed(url) as engine,
    ):
        [reason] = Readiness(engine, valkey_url).reasons()
        assert "has the encoding SQL_ASCII" in reason


def test_whoever_asks_often_keeps_no_engine_busy(
    engine: Engine, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    readiness = Readiness(engine, valkey_url)
    assert readiness.reasons() == []
    monkeypatch.setattr("invigilator.web.health.compare", lambda _: pytest.fail("it has looked again"))
    assert readiness.reasons() == []
