"""The rows of the signs of life."""

from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, text

from db import processes
from db.processes import NOBODY, ProcessState, Sign

MISSING_AFTER_S = 15.0


def sign(role: str = "effects", *queues: str, process_id: UUID | None = None) -> Sign:
    return Sign(process_id or uuid4(), role, "host", 7, ProcessState.WORKING, {"queues": list(queues)})


def beat(connection: Connection, one: Sign) -> bool:
    return processes.beat(connection, one, MISSING_AFTER_S)


def silence(connection: Connection, one: Sign, seconds: float) -> None:
    """As if its last sign had been so long ago, and it had started just before."""
    connection.execute(
        text(
            "UPDATE processes SET seen_at = clock_timestamp() - :s * interval '1 s',"
            " started_at = clock_timestamp() - (:s + 1) * interval '1 s' WHERE id = :id"
        ),
        {"s": seconds, "id": one.id},
    )


def ids(connection: Connection) -> set[UUID]:
    return {one.id for one in processes.seen(connection)}


def total(connection: Connection, name: str, label: str, writer: UUID, value: float) -> None:
    connection.execute(
        text(
            "INSERT INTO totals (name, labels, writer, value) VALUES (:name, ARRAY[:label], :writer, :value)"
        ),
        {"name": name, "label": label, "writer": writer, "value": value},
    )


def totals(connection: Connection) -> list[tuple[str, list[str], UUID, float]]:
    rows = connection.execute(text("SELECT name, labels, writer, value FROM totals ORDER BY name, labels"))
    return [(row.name, row.labels, row.writer, row.value) for row in rows]


def test_a_sign_of_life_is_a_row_that_is_renewed(connection: Connection) -> None:
    one = sign("mail", "q")
    beat(connection, one)
    silence(connection, one, 10)
    beat(connection, Sign(one.id, "mail", "host", 7, ProcessState.STUCK, {"queues": ["q"], "running": 3}))
    [seen] = processes.seen(connection)
    assert (seen.role, seen.host, seen.pid, seen.state) == ("mail", "host", 7, "stuck")
    assert (sorted(seen.queues), seen.doing["running"]) == (["q"], 3)
    assert seen.silent_s < 5
    assert seen.started_at < seen.seen_at


def test_a_process_that_leaves_takes_its_row_and_not_its_totals(connection: Connection) -> None:
    leaving, staying = sign(), sign()
    for one in (leaving, staying):
        beat(connection, one)
        total(connection, "tries", "done", one.id, 2)
    total(connection, "tries", "done", NOBODY, 10)
    total(connection, "tries", "failed", leaving.id, 3)
    processes.leave(connection, leaving.id)
    assert ids(connection) == {staying.id}
    assert {(name, *labels, writer, value) for name, labels, writer, value in totals(connection)} == {
        ("tries", "done", NOBODY, 12.0),
        ("tries", "done", staying.id, 2.0),
        ("tries", "failed", NOBODY, 3.0),
    }


def test_a_beat_tells_whether_anybody_may_be_missing(connection: Connection) -> None:
    silent = sign()
    assert not beat(connection, silent)
    assert not beat(connection, sign())
    silence(connection, silent, 16)
    assert beat(connection, sign())


def test_a_missing_process_stays_until_its_role_is_covered_again(connection: Connection) -> None:
    # Given a process that is missing, and another one of its role, which has run beside it
    beside, missing = sign("effects", "a", "b"), sign("effects", "a", "b")
    for one in (beside, missing):
        beat(connection, one)
    silence(connection, missing, 16)
    silence(connection, beside, 20)
    beat(connection, beside)
    total(connection, "tries", "done", missing.id, 2)
    # Then nobody forgets it, also when another role, or one that reads less, begins
    for other in (sign("mail", "a", "b"), sign("effects", "a")):
        beat(connection, other)
        processes.forget(connection, MISSING_AFTER_S)
        assert missing.id in ids(connection)
    # When one of its role begins that reads what it read, then it is forgotten, and its totals are kept
    beat(connection, sign("effects", "c", "b", "a"))
    processes.forget(connection, MISSING_AFTER_S)
    assert missing.id not in ids(connection)
    assert totals(connection) == [("tries", ["done"], NOBODY, 2.0)]


def test_what_takes_its_place_must_live(connection: Connection) -> None:
    missing, silent = sign("relay"), sign("relay")
    for one, seconds in ((missing, 60), (silent, 20)):
        beat(connection, one)
        silence(connection, one, seconds)
    processes.forget(connection, MISSING_AFTER_S)
    assert ids(connection) == {missing.id, silent.id}


@pytest.mark.parametrize(("silent_s", "is_there"), [(3500, True), (3700, False)])
def test_after_an_hour_it_is_forgotten(connection: Connection, silent_s: float, is_there: bool) -> None:
    missing = sign()
    beat(connection, missing)
    silence(connection, missing, silent_s)
    processes.forget(connection, MISSING_AFTER_S)
    assert (missing.id in ids(connection)) is is_there


def test_a_process_that_is_there_is_never_forgotten(connection: Connection) -> None:
    one = sign()
    beat(connection, one)
    beat(connection, sign())
    processes.forget(connection, MISSING_AFTER_S)
    assert one.id in ids(connection)


def test_a_process_has_one_id() -> None:
    assert processes.this_process() == processes.this_process()
