"""`invigilator partitions`: what it shows, what it refuses, and what it leaves in the audit."""

import os
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy.engine import make_url

from db import partitioning
from db.partitions import KEYS, By
from tests.commandline import CommandLine
from tests.integration.cli.conftest import Record
from tests.integration.db.test_partitions import BEGUN, divide, owe


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
    # Given that the first one ends with February, and the next one with March
    record.execute("UPDATE outcomes SET handled_at = '2026-02-01'")
    divide(record.engine)
    for month in ("2026-13", "first", "9"):
        assert cli("partitions", "drop", "--before", month).status == 2
    future = cli("partitions", "drop", "--before", "9999")
    assert (future.status, "is in the future" in future.err) == (1, True)
    told = cli("partitions", "drop", "--before", "2026-03", "--dry-run", "--json").json["partitions"]
    going = ["effects_first", "events_first", "inbox_first"]
    assert [(one["name"], one["dropped"]) for one in told] == [(name, False) for name in going]
    # When somebody does not say yes, then nothing goes
    assert cli("partitions", "drop", "--before", "2026-03").status == 1
    ran = cli("partitions", "drop", "--before", "2026-03", "--yes", "--reason", "law", "--json")
    assert [(one["name"], one["dropped"]) for one in ran.json["partitions"]] == [
        (name, True) for name in going
    ]
    acts = cli("audit", "list", "--json").lines
    assert [(act["action"], act["reason"]) for act in acts] == [("drop partition", "law")] * 3
    left = {one["name"] for one in cli("partitions", "--json").json["partitions"]}
    assert "effects_2026_03" in left
    assert {"effects_first", "tries_first", "events_first", "inbox_first", "outcomes_first"} & left == set()


def test_a_partition_that_cannot_go_stays_and_says_why(cli: CommandLine, record: Record) -> None:
    divide(record.engine)
    owe(record.engine, "running", BEGUN)
    for option in ("--dry-run", "--yes"):
        ran = cli("partitions", "drop", "--before", "2026-03", option, "--json")
        first, *_ = ran.json["partitions"]
        assert (ran.status, first["dropped"]) == (int(option == "--yes"), False)
        assert "are running" in first["stays"]


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


def test_doctor_says_which_partitions_are_missing(cli: CommandLine, record: Record, with_valkey: str) -> None:
    # Given that nobody has made any since January
    divide(record.engine)
    findings = [one for one in cli("doctor", "--json").lines if one["check"] == "partitions"]
    assert [one["verdict"] for one in findings] == ["note", "note"]
    assert all("run `invigilator partitions make`" in one["detail"] for one in findings)
    assert "which moves it if it is 10,000 rows at most" in findings[1]["detail"]
    lacking = cli("partitions", "--json").json["lacking"]
    assert f"lacking: {', '.join(lacking)}" in cli("partitions").out
    made = cli("partitions", "make")
    assert (made.status, set(lacking) <= set(made.out.removeprefix("made: ").strip().split(", "))) == (
        0,
        True,
    )
    assert cli("partitions", "--json").json["lacking"] == []


def test_a_role_that_does_not_own_the_tables_is_told_that_old_partitions_stay(
    cli: CommandLine, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    divide(record.engine)
    role = f"role_{uuid4().hex}"
    record.execute(f"CREATE ROLE {role}")
    record.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
    url = make_url(os.environ["INVIGILATOR_DATABASE_URL"]).update_query_dict({"options": f"-c role={role}"})
    try:
        with monkeypatch.context() as patched:
            patched.setenv("INVIGILATOR_DATABASE_URL", url.render_as_string(hide_password=False))
            ran = cli("prune", "--older-than", "1d", "--json")
        assert (ran.status, "old partitions stay" in ran.err) == (0, True)
        assert "old partitions stay" not in cli("prune", "--older-than", "1d").err
    finally:
        record.execute(f"DROP OWNED BY {role}")
        record.execute(f"DROP ROLE {role}")
