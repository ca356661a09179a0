"""The audit's table belongs to another role than the application's, as docs/security.md says."""

import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError

from db import acts
from tests import engines
from tests.integration.acts.test_audit import ACT

DOCS = Path(__file__).parents[3] / "docs" / "security.md"
PASSWORD = "x"


@pytest.fixture
def application(database_url: str, engine: Engine) -> Iterator[Engine]:
    """As the application's role, after what the documentation says was run."""
    role = f"invigilator_{uuid.uuid4().hex}"
    audit = f"{role}_audit"
    statements = re.findall(r"```sql\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'"))
        connection.execute(text(f"CREATE ROLE {audit} NOLOGIN"))
        for block in statements:
            connection.exec_driver_sql(re.sub(r"\binvigilator(?=\b|_audit)", role, block))
    url = make_url(database_url).set(username=role, password=PASSWORD).render_as_string(hide_password=False)
    with engines.disposed(url) as limited:
        yield limited
    with engine.begin() as connection:
        for one in (role, audit):
            connection.execute(text(f"DROP OWNED BY {one} CASCADE"))
            connection.execute(text(f"DROP ROLE {one}"))


def test_the_application_may_append_and_verify(application: Engine) -> None:
    for _ in range(2):
        with application.begin() as connection:
            acts.append(connection, replace(ACT, act_id=uuid.uuid4()))
    with application.begin() as connection:
        assert acts.verify(connection).rows == 2
        # And erase a reason
        connection.execute(text("UPDATE acts SET reason = NULL, salt = NULL WHERE sequence = 1"))
        assert acts.verify(connection).holds


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE acts SET actor = 'eve'",
        "DELETE FROM acts",
        "TRUNCATE acts CASCADE",
        "ALTER TABLE acts DISABLE TRIGGER ALL",
        "DROP TRIGGER acts_are_append_only ON acts",
        "DROP TABLE acts CASCADE",
        "DROP FUNCTION refuse_change_of_acts() CASCADE",
        "ALTER TABLE acts OWNER TO CURRENT_USER",
        "SET session_replication_role = replica",
    ],
)
def test_and_nothing_else(application: Engine, statement: str) -> None:
    with (
        pytest.raises(ProgrammingError, match=r"permission denied|must be owner"),
        application.begin() as connection,
    ):
        connection.execute(text(statement))
