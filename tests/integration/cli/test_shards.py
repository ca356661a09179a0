"""`invigilator shards`: what it shows, what it refuses, and what it leaves in the audit."""

from typing import Any

import pytest

from db import resharding, shards
from db.resharding import Sharding
from tests.commandline import CommandLine
from tests.integration.cli.conftest import Record


def now(record: Record) -> Sharding:
    with record.engine.begin() as connection:
        return resharding.read(connection)


def test_without_a_database_that_was_used_there_is_nothing_to_change(
    cli: CommandLine, record: Record
) -> None:
    assert cli("shards", "--json").json == {"shards": 0, "resharding": None}
    ran = cli("shards", "set", 4)
    assert ran.status == 1
    assert "start `invigilator consume`" in ran.err


@pytest.mark.parametrize(
    ("before", "after", "way"),
    [(4, 6, "go over 12"), (512, 513, "go over 1, which divides both"), (4, 2048, "1024 shards at most")],
)
def test_a_number_that_cannot_be_reached_is_refused(
    cli: CommandLine, record: Record, before: int, after: int, way: str
) -> None:
    with record.engine.begin() as connection:
        shards.ensure_shards(connection, before)
    ran = cli("shards", "set", after)
    assert (ran.status, now(record)) == (1, Sharding(before))
    assert way in ran.err


def test_a_change_is_begun_once_and_the_audit_says_who_has(cli: CommandLine, record: Record) -> None:
    with record.engine.begin() as connection:
        shards.ensure_shards(connection, 4)
    # When it is begun, and asked for again
    for _ in range(2):
        ran = cli("shards", "set", 8, "--no-wait", "--reason", "exams", "--json")
        assert ran.json["shards"] == 4
        assert {**ran.json["resharding"], "for_s": 0} == {
            "from": 4,
            "to": 8,
            "for_s": 0,
            "doing": "announcing",
            "waits_for": [0, 1, 2, 3],
            "left_over": [],
        }
    # Then there is one, and another one is refused until it is finished
    assert (now(record).rows, now(record).last) == (8, 1)
    refused = cli("shards", "set", 2)
    assert refused.status == 1
    assert "being changed from 4 to 8" in refused.err
    [act] = cli("audit", "list", "--json").lines
    assert (act["action"], act["reason"]) == ("set shards", "exams")
    assert act["details"] == {"before": {"shards": 4}, "after": {"shards": 8}}


def test_it_waits_until_the_consumers_are_done(
    cli: CommandLine, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a system whose consumers go a step on each time that nobody looks
    with record.engine.begin() as connection:
        shards.ensure_shards(connection, 2)
    steps: list[Any] = [resharding.note_told, resharding.note_switched, resharding.finish]

    def go_on(_seconds: float) -> None:
        with record.engine.begin() as connection:
            steps.pop(0)(connection, 1)

    monkeypatch.setattr("invigilator.cli.shards.time.sleep", go_on)
    # When the number is changed, then the command tells each step, and ends when the last is done
    ran = cli("shards", "set", 4, "--notice", 0, "--settle", 600, "--json")
    assert ran.json == {"shards": 4, "resharding": None}
    told = [
        line.rpartition("shards: ")[2].partition(",")[0] for line in ran.err.splitlines() if " to 4 " in line
    ]
    assert told == ["announcing", "switching", "settling"]
    # And there is nothing to do when it is asked for again
    assert cli("shards", "set", 4, "--json").json == {"shards": 4, "resharding": None}
