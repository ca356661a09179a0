"""`invigilator events`, and what `status` says of the feeds."""

import pytest

from db import event_log, subscribers
from tests import sample_commands as c
from tests.commandline import CommandLine
from tests.integration.cli.conftest import Record


@pytest.fixture
def told(record: Record) -> list[int]:
    """A log with three events, and the positions of them."""
    with record.engine.begin() as connection:
        subscribers.store(connection, {"feed.lms": {}})
    record.handle(
        c.received(c.create("A", attempt_code="code")),
        c.received(c.update("A", "started")),
        c.received(c.update("B", "started"), "refused"),
    )
    with record.engine.begin() as connection:
        event_log.number(connection)
        return [event.position for event in event_log.read(connection, 0)]


def test_the_log(cli: CommandLine, told: list[int]) -> None:
    ran = cli("events", "list", "--json")
    assert (ran.status, ran.err) == (0, "")
    assert [(row["type"], int(row["sequence"])) for row in ran.lines] == [
        ("exam.attempt.created.v1", told[0]),
        ("exam.attempt.status-changed.v1", told[1]),
        ("exam.command.not-applied.v1", told[2]),
    ]
    first, _, last = ran.lines
    assert (first["specversion"], first["source"], first["subject"]) == ("1.0", "/invigilator/main", "code")
    assert (last["data"]["id"], last["data"]["code"]) == ("refused", "attempt_not_found")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--type", "exam.attempt.*"], 2),
        (["--type", "exam.attempt.created.v1"], 1),
        (["--user", "42"], 3),
        (["--user", "43"], 0),
        (["--limit", "1"], 1),
    ],
)
def test_some_of_the_log(cli: CommandLine, told: list[int], options: list[str], found: int) -> None:
    assert len(cli("events", "list", "--json", *options).lines) == found
    assert len(told) == 3


def test_what_comes_after_a_position(cli: CommandLine, told: list[int]) -> None:
    lines = cli("events", "list", "--json", "--after", f"{told[1]:020}").lines
    assert [int(row["sequence"]) for row in lines] == told[2:]


def test_a_table_of_the_log(cli: CommandLine, told: list[int]) -> None:
    table = cli("events", "list").out
    assert f"{told[2]:020}" in table
    assert "exam.command.not-applied.v1" in table


def test_a_replay(cli: CommandLine, record: Record, told: list[int]) -> None:
    ran = cli("events", "replay", "--to", "feed.lms", "--after", str(told[0]), "--json")
    assert (ran.status, ran.json) == (0, {"subscriber": "feed.lms", "after": told[0]})
    with record.engine.begin() as connection:
        [standing] = subscribers.standings(connection)
    assert (standing.position, standing.behind) == (told[0], 2)


def test_a_replay_that_cannot_be(cli: CommandLine, told: list[int]) -> None:
    ran = cli("events", "replay", "--to", "feed.lms", "--after", str(told[2] + 1))
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == f"invigilator: the log has the positions after 0, up to {told[2]}\n"
    ran = cli("events", "replay", "--to", "lms", "--after", str(told[0]))
    assert "there is no subscriber lms with a cursor; there are: feed.lms" in ran.err


def test_status_names_a_feed_that_is_away(
    cli: CommandLine, record: Record, told: list[int], valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", valkey_url)
    with record.engine.begin() as connection:
        taken = subscribers.take(connection, "feed.lms", "me", 60)
        assert taken is not None
        subscribers.release(connection, taken[0], "the broker takes no events: it is away")
    feed = cli("status", "--json").json["feeds"]["feed.lms"]
    assert (feed["behind"], feed["reason"]) == (len(told), "the broker takes no events: it is away")
    assert feed["since"].endswith("Z")


def test_status_counts_what_a_subscriber_could_not_be_told(
    cli: CommandLine, record: Record, told: list[int], valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", valkey_url)
    with record.engine.begin() as connection:
        taken = subscribers.take(connection, "feed.lms", "me", 60)
        assert taken is not None
        tenure, before = taken
        moved = subscribers.move(connection, tenure, before, told[0], 60, 1, "skipped 1, such as event X")
        assert moved == told[0]
        assert subscribers.move(connection, tenure, told[0], told[2], 60) == told[2]
        subscribers.release(connection, tenure)
    feed = cli("status", "--json").json["feeds"]["feed.lms"]
    assert feed == {"behind": 0, "since": None, "reason": "skipped 1, such as event X", "skipped": 1}
