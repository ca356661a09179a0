"""`invigilator doctor`: each problem is named, with what to do."""

import uuid
from collections.abc import Iterator

import pytest
import redis
from sqlalchemy.engine import make_url

from db import rights, shards
from tests.commandline import CommandLine, Ran
from tests.integration.cli.conftest import Record
from worker.commands.sources import brokers

GRANTS = """
GRANT USAGE ON SCHEMA public TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
"""
KEPT_APART = "REVOKE UPDATE, DELETE ON acts FROM {role}; GRANT UPDATE (reason, salt) ON acts TO {role}"


@pytest.fixture
def role(record: Record) -> Iterator[str]:
    """A role that may log in, and nothing else."""
    name = f"invigilator_{uuid.uuid4().hex}"
    record.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    yield name
    record.execute(f"DROP OWNED BY {name}")
    record.execute(f"DROP ROLE {name}")


def verdicts(ran: Ran) -> dict[str, str]:
    return {one["check"]: one["verdict"] for one in ran.lines}


def detail(ran: Ran, check: str) -> str:
    return str(next(one["detail"] for one in ran.lines if one["check"] == check))


@pytest.fixture
def as_role(
    record: Record, role: str, cli: CommandLine, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    """The system is a role that may read and write every table."""
    record.execute(GRANTS.format(role=role))
    url = make_url(database_url).set(username=role, password="x")
    monkeypatch.setenv("INVIGILATOR_DATABASE_URL", url.render_as_string(hide_password=False))


def test_a_new_system(cli: CommandLine, record: Record, with_valkey: str) -> None:
    ran = cli("doctor", "--json")
    assert ran.status == 0, ran.out
    assert verdicts(ran) == {
        "versions": "ok",
        "configuration": "ok",
        "LMS_URL": "note",
        "SMTP_URL": "note",
        "database": "ok",
        "connections": "ok",
        "pooler": "ok",
        "clock": "ok",
        "schema": "ok",
        "rights": "ok",
        "audit": "note",  # the tests' role is a superuser
        "shards": "ok",
        "broker": "ok",
    }
    assert detail(ran, "database").startswith("PostgreSQL ")
    assert "is a superuser" in detail(ran, "audit")
    assert detail(ran, "broker").startswith("Valkey ")
    assert "INVIGILATOR_LMS_URL is log:" in detail(ran, "LMS_URL")
    # And a person can read it
    assert "schema" in cli("doctor").out


def test_rabbitmq(
    cli: CommandLine, record: Record, rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", rabbitmq_url)
    ran = cli("doctor", "--json")
    assert detail(ran, "broker").startswith("RabbitMQ ")
    assert verdicts(ran)["broker"] == "ok"
    # Of a cluster, the type of the effects' queues is looked at
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", f"{rabbitmq_url};{rabbitmq_url}")
    assert verdicts(cli("doctor", "--json"))["broker"] == "note"
    monkeypatch.setenv("INVIGILATOR_EFFECT_QUEUES", "quorum")
    assert verdicts(cli("doctor", "--json"))["broker"] == "ok"


def test_a_user_of_redis_who_may_not_ask_for_its_configuration(valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as client:
        client.acl_setuser(
            "small", enabled=True, passwords="+pw", keys="*", channels="*", commands=["+@all", "-info"]
        )
        about = brokers.about(f"redis://small:pw@{valkey_url.rpartition('@')[2]}")
        client.acl_deluser("small")
    assert about.notes == ["our user may not ask INFO, so its configuration is not known"]


def test_a_wrong_setting_and_a_wrong_file(
    cli: CommandLine, record: Record, with_valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVIGILATOR_POLICIES_FILE", "/nowhere.toml")
    ran = cli("doctor", "--json")
    assert ran.status == 1
    assert detail(ran, "configuration").startswith("policies file /nowhere.toml: cannot be read")
    assert verdicts(ran)["broker"] == "ok"
    monkeypatch.setenv("INVIGILATOR_POLL_S", "soon")
    ran = cli("doctor", "--json")
    assert (ran.status, verdicts(ran)) == (1, {"configuration": "problem"})
    assert "INVIGILATOR_POLL_S" in detail(ran, "configuration")


def test_engines_that_are_away(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVIGILATOR_DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/x")
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", "redis://me:secret@127.0.0.1:1")
    ran = cli("doctor", "--json")
    assert ran.status == 1
    assert (verdicts(ran)["database"], verdicts(ran)["broker"]) == ("problem", "problem")
    assert "secret" not in ran.out + ran.err


def test_another_number_of_shards_and_an_old_schema(
    cli: CommandLine, record: Record, with_valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with record.engine.begin() as connection:
        shards.ensure_shards(connection, 3)
    for table in ("invigilator_schema", "alembic_version"):
        record.execute(f"UPDATE {table} SET version_num = '0001'")
    ran = cli("doctor", "--json")
    assert detail(ran, "shards").startswith("the database has 3, which counts: set ")
    assert verdicts(ran)["shards"] == "note"
    assert "run `invigilator migrate`" in detail(ran, "schema")


def test_rights_that_are_missing(
    cli: CommandLine,
    record: Record,
    role: str,
    with_valkey: str,
    as_role: None,
) -> None:
    record.execute(f"REVOKE DELETE ON processes, tries FROM {role}")
    ran = cli("doctor", "--json")
    assert (ran.status, verdicts(ran)["rights"]) == (1, "problem")
    assert detail(ran, "rights").startswith("grant DELETE on processes, DELETE on tries (")


def test_whether_the_audit_is_out_of_the_applications_reach(
    cli: CommandLine,
    record: Record,
    role: str,
    with_valkey: str,
    as_role: None,
) -> None:
    # Given a role that may do with all tables what it likes
    ran = cli("doctor", "--json")
    assert verdicts(ran)["audit"] == "note"
    assert "REVOKE DELETE, UPDATE ON acts" in detail(ran, "audit")
    # When it may only add to the audit, and take away what erasure does, then that is right
    record.execute(KEPT_APART.format(role=role))
    found = verdicts(cli("doctor", "--json"))
    assert (found["audit"], found["rights"]) == ("ok", "ok")
    # And an owner may give itself every right
    record.execute(f"ALTER TABLE acts OWNER TO {role}")
    assert f"owns the table {rights.AUDIT}" in detail(cli("doctor", "--json"), "audit")
    record.execute("ALTER TABLE acts OWNER TO current_user")


def test_a_broker_that_may_lose_what_waits(cli: CommandLine, record: Record, with_valkey: str) -> None:
    with redis.Redis.from_url(with_valkey) as client:
        before = client.config_get("maxmemory-policy")["maxmemory-policy"]
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            ran = cli("doctor", "--json")
        finally:
            client.config_set("maxmemory-policy", before)
    assert ran.status == 1
    assert any("maxmemory-policy is allkeys-lru" in one["detail"] for one in ran.lines)
