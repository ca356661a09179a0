"""A standby: a copy of a PostgreSQL server that follows it."""

import shutil
import subprocess
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from invigilator.local import postgres, unprivileged

PROMOTION_S = 60


def copy(primary_url: str, primary: Path, standby: Path) -> None:
    """Make a folder on which `invigilator.local.postgres.start` then starts a standby.

    Parameters:
        primary_url: of the running server;
        primary: its folder;
        standby: the folder, without `data`.
    """
    standby.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(primary / "password", standby / "password")
    (standby / "data").mkdir(mode=0o700)
    program = postgres.binary("pg_basebackup")
    url = make_url(primary_url).set(drivername="postgresql").render_as_string(hide_password=False)
    subprocess.run(
        [
            *unprivileged.command_prefix(program, standby / "data"),
            *(str(program), "--dbname", url, "--pgdata", str(standby / "data")),
            *("--write-recovery-conf", "--checkpoint=fast"),
        ],
        check=True,
        capture_output=True,
        cwd=standby,
    )


def execute(url: str, *statements: str) -> None:
    """Run statements, each in a transaction of its own or in none."""
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def follow_closely(primary_url: str) -> None:
    """From now on nothing is committed on the primary that is not on the standby."""
    execute(primary_url, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")


def follow_nobody(primary_url: str) -> None:
    """From now on the primary commits alone."""
    execute(primary_url, "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")


def number(url: str, query: str) -> int:
    """Ask a server for one number."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        answer = int(connection.execute(text(query)).scalar_one())
    engine.dispose()
    return answer


@retry(retry=retry_if_result(bool), wait=wait_fixed(0.05), stop=stop_after_delay(PROMOTION_S))
def _is_standby(url: str) -> int:
    return number(url, "SELECT pg_is_in_recovery()::int")


def promote(standby_url: str) -> None:
    """Make the standby a primary, and return when it is one."""
    # A statement that waits for the end would be cancelled if what is still replayed removes rows that it may see.
    execute(standby_url, "SELECT pg_promote(wait => false)")
    _is_standby(standby_url)
