"""A database that cannot be used as it is: every process ends at its start, with one line that says what to do."""

import os
import shlex
import subprocess
from pathlib import Path

from invigilator.local.procfile import read_procfile
from tests import engines, standby
from tests.forkserver import run_to_end

PROCESSES = ("commands", "relay", "effects", "web")
OF_ONE_SCHEMA = ("commands", "relay", "web")
WRITING = (
    "invigilator migrate",
    "invigilator effects retry --state failed",
    "invigilator effects cancel 00000000-0000-0000-0000-000000000000",
    "invigilator quarantine discard 1",
    "invigilator prune --older-than 90d",
)
PATIENCE_S = 120


def run(command: str, url: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    environment = {
        "PATH": os.defpath,
        "INVIGILATOR_DATABASE_URL": url,
        "INVIGILATOR_BROKER_URL": "redis://127.0.0.1:1/0",  # nobody gets that far
    }
    return run_to_end(shlex.split(command), environment, folder, PATIENCE_S)


def complaint(command: str, url: str, folder: Path) -> str:
    """The one line on standard error that an unfit database gets (before it there may be lines of the log)."""
    ended = run(command, url, folder)
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    [line] = [line for line in ended.stderr.splitlines() if line.startswith("invigilator: ")]
    return line


def test_nobody_starts_or_writes_where_names_would_get_lost(postgres_url: str, tmp_path: Path) -> None:
    with engines.fresh_database(postgres_url, template="template0", encoding="SQL_ASCII") as url:
        for command in (*(read_procfile()[name] for name in PROCESSES), *WRITING):
            line = complaint(command, url, tmp_path)
            assert "ENCODING 'UTF8' TEMPLATE template0" in line


def test_nobody_consumes_offers_or_serves_in_a_newer_schema(database_url: str, tmp_path: Path) -> None:
    standby.execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    for command in (*(read_procfile()[name] for name in OF_ONE_SCHEMA), "invigilator migrate"):
        line = complaint(command, database_url, tmp_path)
        assert "newer release" in line
        assert "run `invigilator migrate`" not in line


def test_nobody_consumes_offers_or_serves_in_an_older_schema(empty_database_url: str, tmp_path: Path) -> None:
    for name in OF_ONE_SCHEMA:
        line = complaint(read_procfile()[name], empty_database_url, tmp_path)
        assert "run `invigilator migrate`" in line


def test_nobody_waits_for_an_address_that_cannot_work(tmp_path: Path) -> None:
    url = "postgresql://u:secret@127.0.0.1:1/none?sslmod=require"
    for command in (*(read_procfile()[name] for name in PROCESSES), "invigilator migrate"):
        line = complaint(command, url, tmp_path)
        assert line.startswith("invigilator: INVIGILATOR_DATABASE_URL has a parameter 'sslmod'")
        assert "secret" not in line
