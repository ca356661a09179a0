"""An effect that fails for good is told, and so is one that is done after that."""

from typing import Any

import pytest
from sqlalchemy import select

from db import operators, subscribers
from db.models import Event
from tests import sample_commands as c
from tests.integration.effects.conftest import Bench
from tests.integration.effects.test_runner import submitted
from tests.unit.events.messages import TRACE
from worker.errors import Permanent, TryFailedError


def told(bench: Bench) -> list[Any]:
    """The events about effects."""
    with bench.engine.begin() as connection:
        query = select(Event.__table__).where(Event.type.like("exam.effect.%")).order_by(Event.sequence)
        return list(connection.execute(query))


def subscribe(bench: Bench) -> None:
    with bench.engine.begin() as connection:
        subscribers.store(connection, {"feed.lms": {}})


def refuse(bench: Bench, effect_id: Any) -> None:
    bench.credit.fail_with(Permanent("refused"))
    with pytest.raises(TryFailedError):
        bench.run(effect_id)


def retry(bench: Bench, effect_id: Any) -> None:
    with bench.engine.begin() as connection:
        operators.retry(connection, [effect_id])


def test_a_failure_and_its_recovery(bench: Bench) -> None:
    # Given somebody who subscribes
    subscribe(bench)
    bench.apply(c.create("A", attempt_code="code"), c.update("A", "submitted"), traceparent=TRACE)
    [effect_id] = bench.ids()
    # When an effect fails for good, and is done after a person's retry
    refuse(bench, effect_id)
    retry(bench, effect_id)
    bench.run(effect_id)
    # Then both are told
    failed, recovered = told(bench)
    about = {"effect_id": str(effect_id), "kind": "set_credit_status", "attempt_code": "code"}
    assert failed.type == "exam.effect.failed.v1"
    assert failed.data == about | {"reason": "refused", "tries": 1}
    assert recovered.type == "exam.effect.recovered.v1"
    assert recovered.data == about | {"reason": None, "tries": 2}
    told_of = {(one.subject, one.user_id, one.traceparent) for one in (failed, recovered)}
    assert told_of == {("code", "42", TRACE)}


def test_what_was_not_told_does_not_recover(bench: Bench) -> None:
    # Given an effect that has failed while nobody listened
    effect_id = submitted(bench)
    refuse(bench, effect_id)
    # When it is done while somebody listens
    subscribe(bench)
    retry(bench, effect_id)
    bench.run(effect_id)
    # Then there is nothing to take back
    assert told(bench) == []


def test_a_success_is_no_news(bench: Bench) -> None:
    subscribe(bench)
    bench.run(submitted(bench))
    assert told(bench) == []
