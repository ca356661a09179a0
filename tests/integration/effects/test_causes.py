"""Why effects fail, found at the end of each try."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from db import causes, operators
from db.models import Try
from tests import sample_commands as c
from tests.integration.effects.conftest import Bench
from tests.roundtrips import counted
from worker.effects import runner
from worker.errors import Refused, ServiceError, TryAgainError, TryFailedError, Unavailable
from worker.kinds import EffectKind


def _failing(bench: Bench) -> list[dict[str, Any]]:
    with bench.engine.begin() as connection:
        return causes.failing(connection)


def _owe(bench: Bench, *users: str) -> None:
    for user in users:
        bench.apply(c.learner(user), c.create("A", user), c.update("A", "submitted", user))


def _fail(bench: Bench, *errors: ServiceError) -> None:
    """Try each credit that is owed, in order, with one of the errors."""
    bench.make_due()
    owed = [one for one in bench.ids(EffectKind.SET_CREDIT_STATUS) if bench.row(one).state == "pending"]
    bench.credit.fail_with(*errors)
    for effect_id in owed[: len(errors)]:
        with pytest.raises((TryAgainError, TryFailedError)):
            bench.run(effect_id)


def _refused(status: int, reason: str, exam: str) -> Refused:
    return Refused(f"LMS answered {status} to POST /credit/{exam} ({reason})", status=status, reason=reason)


def test_failures_of_one_cause_are_one_row(bench: Bench) -> None:
    # Given five learners' credits, refused in two ways: of one, with other ids, there are three
    _owe(bench, "a", "b", "c", "d", "e")
    _fail(
        bench,
        _refused(422, "E1", "7"),
        _refused(422, "E2", "7"),
        _refused(422, "E1", "8"),
        Unavailable("no answer from the LMS (ConnectError)"),
        _refused(422, "E1", "403"),
    )
    # Then they are grouped, with what the other side has said
    ids = bench.ids(EffectKind.SET_CREDIT_STATUS)
    first, *others = _failing(bench)
    assert (first["count"], first["state"], first["status"], first["exception"]) == (
        3,
        "failed",
        422,
        "Refused",
    )
    assert first["reason"] == "LMS answered 422 to POST /credit/… (E1)"
    assert first["cause"] == bench.row(ids[0]).cause == bench.row(ids[4]).cause
    assert first["example"] == ids[4]
    assert first["first_seen"] == bench.row(ids[0]).retrying_since
    assert first["last_seen"] == bench.row(ids[4]).failed_at
    assert {(one["count"], one["state"], one["status"]) for one in others} == {
        (1, "failed", 422),
        (1, "retrying", None),
    }


def test_what_is_tried_again_and_then_given_up_keeps_its_cause(bench: Bench) -> None:
    # Given a try that failed for now, and one that is the last
    _owe(bench, "a")
    [effect_id] = bench.ids(EffectKind.SET_CREDIT_STATUS)
    error = Unavailable("LMS answered 503 to POST /credit/1", status=503)
    _fail(bench, error)
    cause = bench.row(effect_id).cause
    bench.execute("UPDATE effects SET retrying_since = now() - interval '30 days'")
    _fail(bench, error)
    # Then the time for which it was tried is not a part of it
    row = bench.row(effect_id)
    assert (row.state, row.cause, "retried for" in row.last_error) == ("failed", cause, True)
    # And a person's retry leaves it, until the next end
    assert [one["untried"] for one in _failing(bench)] == [0]
    with bench.engine.begin() as connection:
        operators.retry(connection, [effect_id])
    assert bench.row(effect_id).cause == cause
    assert [(one["state"], one["count"], one["untried"]) for one in _failing(bench)] == [("retrying", 1, 1)]
    bench.execute("DELETE FROM circuits")
    bench.make_due()
    bench.run(effect_id)
    row = bench.row(effect_id)
    assert (row.state, row.cause, row.failed_at) == ("done", None, None)
    # And each try has its own
    with bench.engine.begin() as connection:
        query = select(Try.number, Try.cause).where(Try.effect_id == effect_id).order_by(Try.number)
        assert [tuple(one) for one in connection.execute(query)] == [(1, cause), (2, cause), (3, None)]
    assert _failing(bench) == []


def test_a_folded_cascade_has_no_cause(bench: Bench) -> None:
    # Given a cascade whose try failed
    bench.apply(c.create("B"), c.create("A"), c.update("A", "declined"))
    [cascade] = bench.ids(EffectKind.CASCADE_DECLINE)
    bench.execute("UPDATE effects SET cause = 'x', failed_at = now() WHERE id = :id", id=cascade)
    # When a command of the learner comes
    bench.apply(c.create("C"))
    # Then it is done, and nothing is wrong with it
    row = bench.row(cascade)
    assert (row.state, row.cause, row.failed_at) == ("done", None, None)


def test_what_failed_before_causes_were_kept_is_counted(bench: Bench) -> None:
    _owe(bench, "a")
    bench.execute(
        "UPDATE effects SET state = 'failed', last_error = 'refused' WHERE kind = 'set_credit_status'"
    )
    [row] = _failing(bench)
    assert (row["cause"], row["count"], row["reason"], row["last_seen"]) == (None, 1, "refused", None)


def test_an_unexpected_error_has_its_class(bench: Bench) -> None:
    _owe(bench, "a")
    _fail(bench, KeyError("exam 7"))  # type: ignore[arg-type]  # a bug of ours
    [row] = _failing(bench)
    assert (row["exception"], row["reason"]) == ("KeyError", "unexpected KeyError")


def test_a_known_cause_costs_no_statement(database_url: str, bench: Bench) -> None:
    # Given a worker that has met a cause
    _owe(bench, "a", "b", "c")
    with counted(database_url, pre_ping=False) as (engine, trips):
        worker = replace(bench, engine=engine).runner
        costs = []
        for effect_id, code in zip(bench.ids(EffectKind.SET_CREDIT_STATUS), ("E1", "E1", "E2"), strict=True):
            bench.credit.fail_with(_refused(422, code, "7"))
            trips()
            with pytest.raises(TryFailedError):
                worker.run(effect_id, EffectKind.SET_CREDIT_STATUS)
            costs.append(trips())
    # Then a failure of the same cause takes a round trip less than one of another
    assert costs[1] == costs[2] - 1


def test_many_causes_are_forgotten(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MANY_CAUSES", 1)
    _owe(bench, "a", "b", "c")
    worker = bench.runner
    for effect_id, code in zip(bench.ids(EffectKind.SET_CREDIT_STATUS), ("E1", "E2", "E1"), strict=True):
        bench.credit.fail_with(_refused(422, code, "7"))
        with pytest.raises(TryFailedError):
            worker.run(effect_id, EffectKind.SET_CREDIT_STATUS)
    assert [one["count"] for one in _failing(bench)] == [2, 1]
