"""The rights that docs/security.md gives the system's users are enough for all of it, and no more than it says."""

import json
import re
import shlex
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError

from events.errors import PublishError
from events.publisher import Publisher
from tests import engines
from tests.acceptance.client import SOURCE
from tests.acceptance.harness import EVERYBODY, Stack
from tests.rabbit import running_rabbitmq

DOCS = Path(__file__).parents[2] / "docs" / "security.md"
PASSWORD = "x"


@pytest.fixture
def limited_database_url(database_url: str) -> Iterator[str]:
    """The same database, for a user that has what the documentation gives it."""
    user = f"invigilator_{uuid.uuid4().hex}"
    grants, _of_the_audit = re.findall(r"```sql\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    with engines.disposed(database_url) as owner:
        with owner.begin() as connection:
            connection.execute(text(f"CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'"))
            connection.exec_driver_sql(grants.replace("invigilator", user))
        yield (
            make_url(database_url).set(username=user, password=PASSWORD).render_as_string(hide_password=False)
        )
        with owner.begin() as connection:
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = :user"),
                {"user": user},
            )
            connection.execute(text(f"DROP OWNED BY {user}"))
            connection.execute(text(f"DROP ROLE {user}"))


@pytest.fixture
def rabbitmq_urls(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A RabbitMQ whose users have what the documentation gives them: their URLs by their names."""
    lines = re.findall(r"^rabbitmqctl set_permissions .*", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    rights = {name: permissions for _, _, name, *permissions in map(shlex.split, lines)}
    rights["guest"] = [".*"] * 3
    definitions = tmp_path / "definitions.json"
    definitions.write_text(
        json.dumps(
            {
                "vhosts": [{"name": "/"}],
                "users": [{"name": name, "password": name, "tags": ""} for name in rights],
                "permissions": [
                    {"user": name, "vhost": "/", "configure": configure, "write": write, "read": read}
                    for name, (configure, write, read) in rights.items()
                ],
            }
        )
    )
    with running_rabbitmq(f"load_definitions = {definitions}") as url:
        yield {name: url.replace("guest:guest", f"{name}:{name}") for name in rights}


def test_the_whole_system_runs_on_them(limited_database_url: str, rabbitmq_urls: dict[str, str]) -> None:
    # Given a system whose users may do what the documentation says
    with Stack(limited_database_url, rabbitmq_urls["guest"]) as stack:
        for name in EVERYBODY:
            stack.start(name, BROKER_URL=rabbitmq_urls["invigilator"])
        stack.some_owner()
        # When an LMS, which may only publish, has an attempt go all its way
        with Publisher(rabbitmq_urls["lms"], source=SOURCE) as lms:
            stack.wait_until(lambda: _is_there(lms), "the queue to be declared")
            lms.upsert_exam(exam_id="8", course_id="c", content_id="b8", exam_name="Two")
            lms.upsert_learner(user_id="u", username="ada", email="ada@example.org")
            lms.create_attempt(exam_id="7", user_id="u", taking_as_proctored=True)
            for status in ("submitted", "verified", "declined"):
                lms.update_status(exam_id="7", user_id="u", to_status=status)
            lms.remove_attempt(exam_id="7", user_id="u")
        # Then everything that follows from it happens
        stack.wait_until_handled(8)
        stack.wait_until(lambda: stack.owed() == 0, "nothing to be owed")
        assert stack.number("SELECT count(*) FROM effects WHERE state NOT IN ('done', 'superseded')") == 0
        assert stack.number("SELECT count(DISTINCT kind) FROM effects") == 5
        everything = "".join(process.output() for process in stack.processes)
        assert "ACCESS_REFUSED" not in everything
        assert "permission denied" not in everything.lower()
        # And more than that they may not
        for statement in ("TRUNCATE effects", "DROP TABLE tries", "CREATE TABLE more (a int)"):
            with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
                stack.rows(statement)
        refused: Any
        with Connection(rabbitmq_urls["lms"]) as connection:
            for refused in ("queue_purge", "queue_delete"):
                with pytest.raises(connection.channel_errors, match="ACCESS_REFUSED"):
                    getattr(connection.channel(), refused)("invigilator.commands.0")
            with pytest.raises(connection.channel_errors, match="ACCESS_REFUSED"):
                connection.channel().basic_get("invigilator.commands.0")


def _is_there(lms: Publisher) -> bool:
    try:
        lms.upsert_exam(exam_id="7", course_id="c", content_id="b7", exam_name="One", command_id="exam")
    except PublishError:
        return False
    return True
