"""The audit: a row for each step, chained by hashes, that nobody changes unseen."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from db import acts
from db.acts import Kept, NewAct, Target

ACT = NewAct(
    actor="ada@host",
    is_claimed=False,
    via="command line",
    origin="host",
    action="retry",
    filter={"states": ["failed"]},
    number=1,
    details={"before": "ü"},
    reason="the service is back",
    targets=(Target(uuid4(), "failed", "pending"), Target(uuid4(), "failed", "pending")),
)


@pytest.fixture
def chain(engine: Engine) -> Engine:
    """Five rows, of which the second has no reason and no effects."""
    for number in range(5):
        with engine.begin() as connection:
            act = replace(ACT, act_id=uuid4(), user_id=f"u{number}")
            acts.append(connection, act if number != 1 else replace(act, reason=None, targets=()))
    return engine


def _verdict(engine: Engine, kept: Kept | None = None) -> acts.Verdict:
    with engine.connect() as connection:
        return acts.verify(connection, kept)


def _tamper(engine: Engine, *statements: str) -> None:
    """As the owner of the server, whom no trigger stops."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements:
            connection.execute(text(statement))


def test_what_was_written_verifies(chain: Engine) -> None:
    verdict = _verdict(chain)
    assert verdict.holds
    assert (verdict.rows, verdict.newest and verdict.newest.sequence) == (5, 5)


def test_an_empty_chain_verifies(engine: Engine) -> None:
    assert _verdict(engine) == acts.Verdict(0, None)


@pytest.mark.parametrize(
    ("change", "sequence", "problem"),
    [
        ("UPDATE acts SET actor = 'eve' WHERE sequence = 3", 3, "was changed"),
        ("UPDATE acts SET is_claimed = NOT is_claimed WHERE sequence = 3", 3, "was changed"),
        ("UPDATE acts SET at = at + interval '1 us' WHERE sequence = 3", 3, "was changed"),
        ("UPDATE acts SET filter = '{}' WHERE sequence = 3", 3, "was changed"),
        ("UPDATE acts SET number = 2 WHERE sequence = 3", 3, "was changed"),
        ("UPDATE acts SET reason = 'another' WHERE sequence = 3", 3, "has another reason"),
        ("UPDATE acts SET hash = sha256('x') WHERE sequence = 3", 3, "was changed"),
        ("DELETE FROM acts WHERE sequence = 3", 4, "comes after 2"),
        ("DELETE FROM acts WHERE sequence = 1", 2, "comes after 0"),
        ("UPDATE act_targets SET before = 'done' WHERE act_sequence = 3", 3, "has other effects"),
        ("DELETE FROM act_targets WHERE act_sequence = 3", 3, "has other effects"),
        ("INSERT INTO act_targets VALUES (2, gen_random_uuid(), 'failed', 'pending')", 2, "other effects"),
    ],
)
def test_the_first_row_that_does_not_fit_is_named(
    chain: Engine, change: str, sequence: int, problem: str
) -> None:
    _tamper(chain, change)
    verdict = _verdict(chain)
    assert (verdict.holds, verdict.sequence) == (False, sequence)
    assert problem in str(verdict.problem)


def test_rows_that_change_places_are_seen(chain: Engine) -> None:
    _tamper(
        chain,
        "UPDATE acts SET sequence = 99 WHERE sequence = 3",
        "UPDATE acts SET sequence = 3 WHERE sequence = 4",
        "UPDATE acts SET sequence = 4 WHERE sequence = 99",
    )
    verdict = _verdict(chain)
    assert (verdict.sequence, "does not follow" in str(verdict.problem)) == (3, True)


def test_a_row_that_was_kept_elsewhere_shows_a_cut_end_and_a_chain_made_anew(chain: Engine) -> None:
    newest = _verdict(chain).newest
    assert newest is not None
    assert _verdict(chain, newest).holds
    # Given an end that was cut off: the rest is a chain
    _tamper(chain, "DELETE FROM act_targets WHERE act_sequence = 5", "DELETE FROM acts WHERE sequence = 5")
    assert _verdict(chain).holds
    assert _verdict(chain, newest).problem == "is missing: the end was cut off"
    # And something else in its place
    with chain.begin() as connection:
        acts.append(connection, ACT)
    assert _verdict(chain).holds
    verdict = _verdict(chain, newest)
    assert (verdict.sequence, "made anew" in str(verdict.problem)) == (5, True)


def test_an_erased_reason_leaves_the_chain_whole(chain: Engine) -> None:
    # Given the one change that is allowed
    with chain.begin() as connection:
        connection.execute(text("UPDATE acts SET reason = NULL, salt = NULL WHERE sequence = 3"))
    # Then the chain holds, and the row says so
    assert _verdict(chain).holds
    with chain.connect() as connection:
        erased = {row["sequence"]: row["reason_erased"] for row in acts.acts(connection)}
    assert erased == {5: False, 4: False, 3: True, 2: False, 1: False}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE acts SET actor = 'eve'",
        "UPDATE acts SET reason = 'another'",
        "UPDATE acts SET reason = NULL, salt = NULL, actor = 'eve'",
        "DELETE FROM acts",
        "TRUNCATE acts CASCADE",
    ],
)
def test_a_trigger_refuses_every_other_change(chain: Engine, change: str) -> None:
    with pytest.raises(IntegrityError, match="append only"), chain.begin() as connection:
        connection.execute(text(change))
    assert _verdict(chain).rows == 5


def test_many_people_act_at_the_same_time(engine: Engine) -> None:
    # Given several threads, each with acts of its own, of which some are rolled back
    def act(number: int) -> None:
        with engine.connect() as connection:
            acts.append(connection, replace(ACT, act_id=uuid4()))
            if number % 5:
                connection.commit()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(act, range(100)))
    # Then the numbers have no gap, and the chain holds
    assert _verdict(engine).rows == 80


def test_rows_are_found_by_what_they_are_about(chain: Engine) -> None:
    with chain.connect() as connection:
        found = list(acts.acts(connection, user_id="u3"))
        [row] = found
        assert (row["sequence"], row["actor"], row["reason"]) == (4, "ada@host", "the service is back")
        assert list(acts.acts(connection, act_id=row["act_id"])) == found
        by_effect = acts.acts(connection, effect_id=ACT.targets[0].effect_id)
        assert [one["sequence"] for one in by_effect] == [5, 4, 3, 1]
        assert [one["sequence"] for one in acts.acts(connection, before=4, limit=2)] == [3, 2]


@pytest.mark.parametrize("value", [1.5, [1.5], {"a": {"b": [1, 2.0]}}])
def test_floats_are_refused(connection: Connection, value: object) -> None:
    with pytest.raises(TypeError, match="float"):
        acts.append(connection, replace(ACT, details={"value": value}))
