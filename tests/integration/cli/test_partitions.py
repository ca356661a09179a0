"""`invigilator partitions`: what it shows, what it refuses, and what it leaves in the audit."""

from datetime import UTC, datetime

from sqlalchemy import text

from db import partitioning
from db.partitions import KEYS, By, Period
from tests.commandline import CommandLine
from tests.integration.cli.conftest import Record


def test_nothing_is_divided_until_somebody_asks_for_it(cli: CommandLine, record: Record) -> None:
    nothing: dict[str, object] = {"by": None, "unfinished": [], "lacking": [], "partitions": []}
    assert cli("partitions", "--json").json == nothing
    assert cli("partitions", "make", "--json").json == {"made": []}
    assert cli("partitions", "drop", "--before", "2026-01", "--json").json == {"partitions": []}


def test_the_tables_are_divided_once_and_the_audit_says_who_did_it(cli: CommandLine, record: Record) -> None:
    ran = cli("partitions", "begin", "--reason", "large", "--json")
    assert "effects and tries: divided by month" in ran.err
    assert {one["table"] for one in ran.json["partitions"]} == set(KEYS)
    assert (ran.json["by"], ran.json["unfinished"], ran.json["lacking"]) == ("month", [], [])
    assert cli("partitions", "begin", "--json").json == cli("partitions", "--json").json
    acts = cli("audit", "list", "--json").lines
    assert [(act["action"], act["reason"]) for act in acts] == [("begin partitions", "large")] * 3
    refused = cli("partitions", "begin", "--by", "year")
    assert (refused.status, "divided by month" in refused.err) == (1, True)


def test_a_partition_that_is_old_is_dropped_and_the_audit_says_so(cli: CommandLine, record: Record) -> None:
    cli("partitions", "begin")
    # Given that the first one ends after the next month
    end = Period.of(datetime.now(UTC), By.MONTH).next().next()
    before = f"{end.start:%Y-%m}"
    for month in ("2026-13", "first", "9"):
        assert cli("partitions", "drop", "--before", month).status == 2
    told = cli("partitions", "drop", "--before", before, "--dry-run", "--json").json["partitions"]
    assert [(one["name"], one["dropped"]) for one in told][:2] == [
        ("effects_first", False),
        ("events_first", False),
    ]
    # When somebody does not say yes, then nothing goes
    assert cli("partitions", "drop", "--before", before).status == 1
    done = cli("partitions", "drop", "--before", before, "--yes", "--reason", "law", "--json").json[
        "partitions"
    ]
    names = [one["name"] for one in done if one["dropped"]]
    assert "effects_first" in names
    acts = [act for act in cli("audit", "list", "--json").lines if act["action"] == "drop partition"]
    assert sorted(act["details"]["before"]["part"] for act in acts) == ["first"] * len(names)
    with record.engine.begin() as connection:
        assert connection.execute(
            text("SELECT to_regclass('effects_first'), to_regclass('tries_first')")
        ).one() == (
            None,
            None,
        )


def test_doctor_says_what_is_wrong_with_the_partitions(
    cli: CommandLine, record: Record, with_valkey: str
) -> None:
    # Given tables that somebody has begun to divide
    with record.engine.begin() as connection:
        partitioning.bound(connection, ("events",), By.MONTH, datetime.now(UTC))
    [finding] = [one for one in cli("doctor", "--json").lines if one["check"] == "partitions"]
    assert (finding["verdict"], "dividing events was begun" in finding["detail"]) == ("problem", True)
    # When it is finished, then there is nothing to say
    cli("partitions", "begin")
    found = {one["check"] for one in cli("doctor", "--json").lines}
    assert "partitions" not in found
    assert "schema" in found
    # And when partitions are missing, there is
    end = Period.of(datetime.now(UTC), By.MONTH).next().next().next()
    assert cli("partitions", "drop", "--before", f"{end.start:%Y-%m}", "--yes").status == 0
    [finding] = [one for one in cli("doctor", "--json").lines if one["check"] == "partitions"]
    assert (finding["verdict"], "run `invigilator partitions make`" in finding["detail"]) == ("note", True)
    cli("partitions", "make")
    assert cli("partitions", "--json").json["lacking"] == []
