"""PostgreSQL over TLS: libpq checks what the URL says, and the URL must come through as it was written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from db.connect import make_engine
from db.migrate import upgrade
from tests import engines
from tests.tls import Authority, verified
from worker.settings import Settings

ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def as_set(url: str) -> str:
    """What becomes of the URL in our settings."""
    secret = Settings(database_url=SecretStr(url)).database_url
    assert secret is not None
    return secret.get_secret_value()


def invigilator(folder: Path, url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(Path(sys.executable).with_name("invigilator")), *arguments],
        env={"PATH": os.defpath, "INVIGILATOR_DATABASE_URL": url},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_engine_encrypts(tls_database_url: str, authority: Authority) -> None:
    engine = make_engine(as_set(verified(tls_database_url, authority)), application_name="test")
    with engine.connect() as connection:
        assert connection.scalar(text(ENCRYPTED)) is True
    engine.dispose()


def test_without_tls_the_probe_says_so(tls_database_url: str) -> None:
    with engines.disposed(f"{tls_database_url}?sslmode=disable") as engine, engine.connect() as connection:
        assert connection.scalar(text(ENCRYPTED)) is False


def test_the_authority_may_come_from_the_system(
    tls_database_url: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", authority.ca)
    url = verified(tls_database_url, authority).replace(authority.ca.replace("/", "%2F"), "system")
    assert "sslrootcert=system" in url

    engine = make_engine(as_set(url), application_name="test")
    with engine.connect() as connection:
        assert connection.scalar(text(ENCRYPTED)) is True
    engine.dispose()


def test_migrate_encrypts(tls_postgres_url: str, authority: Authority, tmp_path: Path) -> None:
    with engines.fresh_database(tls_postgres_url, template="template0") as empty:
        with engines.disposed(empty) as engine, engine.begin() as connection:
            # A database that only encrypted sessions can do anything in.
            connection.execute(text(REFUSE_PLAIN))
        with pytest.raises(Exception, match="in clear"):
            upgrade(f"{empty}?sslmode=disable")
        ended = invigilator(tmp_path, verified(empty, authority), "migrate")
    assert (ended.returncode, ended.stderr) == (0, "")


# PostgreSQL asks a trigger at each DDL statement.
REFUSE_PLAIN = """
CREATE FUNCTION refuse_plain() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) THEN
        RAISE EXCEPTION 'in clear';
    END IF;
END $$;
CREATE EVENT TRIGGER refuse_plain ON ddl_command_start EXECUTE FUNCTION refuse_plain();
"""


def test_another_authority_and_another_host_are_refused_in_one_line(
    tls_database_url: str, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    for url, reason in (
        (verified(tls_database_url, stranger), "certificate verify failed"),
        (verified(tls_database_url, authority, "127.0.0.1"), 'does not match host name "127.0.0.1"'),
    ):
        ended = invigilator(tmp_path, url, "migrate")
        assert ended.returncode == 1
        [line] = ended.stderr.splitlines()
        assert reason in line
