"""`invigilator prune`."""

import pytest

from tests import sample_commands as c
from tests.commandline import CommandLine
from tests.integration.cli.conftest import Record


@pytest.fixture
def old(record: Record) -> Record:
    """Four commands of long ago, and an attempt whose effects ended today, all but one."""
    record.execute("UPDATE outcomes SET handled_at = now() - interval '100 days'")
    record.handle(c.received(c.create("A")), c.received(c.update("A", "submitted")))
    *_, last = record.effect_ids()
    record.set_state(last, "done")
    record.execute(
        "UPDATE effects SET target = NULL, created_at = now() - interval '100 days',"
        " done_at = now() - interval '100 days' WHERE state = 'done'"
    )
    record.execute("INSERT INTO tries SELECT id, 1, now() FROM effects WHERE state = 'done'")
    return record


def test_pruning(cli: CommandLine, old: Record) -> None:
    before = len(old.effect_ids())
    ran = cli("prune", "--older-than", "90d", "--json")
    assert (ran.status, ran.err) == (0, "")
    assert ran.json == {"effects": 1, "tries": 1, "commands": 4}
    assert len(old.effect_ids()) == before - 1
    assert cli("prune", "--older-than", "12h").out == "effects: 0\ntries: 0\ncommands: 0\n"


@pytest.mark.parametrize("age", ["90", "0d", "soon", "1y"])
def test_what_is_no_age(cli: CommandLine, age: str) -> None:
    ran = cli("prune", "--older-than", age)
    assert (ran.status, ran.out) == (2, "")
    assert "must be a number of days, hours or minutes such as 90d, 12h or 30m" in ran.err
    assert ran.err.count("\n") == 1


def test_the_age_must_be_said(cli: CommandLine) -> None:
    ran = cli("prune")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
