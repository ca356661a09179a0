"""A kind that a person has paused is neither offered nor claimed, in any process."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from db import pauses
from tests import sample_commands as c
from tests.integration.effects.conftest import Bench
from tests.integration.effects.test_relay import FakeDispatcher, owed
from worker.effects.relay import Relay
from worker.errors import Transient, TryAgainError, TryFailedError
from worker.kinds import EffectKind

CREDIT = EffectKind.SET_CREDIT_STATUS
HOUR = timedelta(hours=1)


@pytest.fixture
def relay(engine: Engine) -> Relay:
    return Relay(engine, FakeDispatcher(), poll_s=60, offer_ttl_s=60)


def offered(relay: Relay) -> list[UUID]:
    """What one round offers."""
    assert isinstance(relay.dispatcher, FakeDispatcher)
    relay.dispatcher.offers.clear()
    relay.offer_once()
    return [offer.id for offer in relay.dispatcher.offers]


def pause(bench: Bench, kind: str, until: datetime | None = None, reason: str | None = None) -> None:
    with bench.engine.begin() as connection:
        pauses.lock(connection)
        pauses.begin(connection, kind, until, reason)


def resume(bench: Bench, kind: str) -> None:
    with bench.engine.begin() as connection:
        pauses.lock(connection)
        pauses.end(connection, kind)


def test_a_paused_kind_is_not_offered(bench: Bench, relay: Relay) -> None:
    # Given effects of two kinds
    bench.apply(c.create("A"), c.update("A", "declined"))
    credit, cascade = bench.ids(CREDIT), bench.ids(EffectKind.CASCADE_DECLINE)
    # When one is paused, then only the other is offered
    pause(bench, CREDIT)
    assert offered(relay) == cascade
    # And the first one, when a person resumes it
    resume(bench, CREDIT)
    assert offered(relay) == credit


def test_an_offer_from_before_is_not_claimed(bench: Bench, relay: Relay) -> None:
    # Given an offer that stands, and a pause
    [effect_id] = owed(bench)
    assert effect_id in offered(relay)
    pause(bench, CREDIT, datetime(2099, 1, 1, tzinfo=UTC), "the registrar asked")
    # When a worker gets to it, then it says why nothing is done
    assert bench.run(effect_id) == "paused until 2099-01-01T00:00:00Z: the registrar asked"
    assert (bench.row(effect_id).state, bench.credit.calls) == ("pending", [])
    # And afterwards it is offered at once
    resume(bench, CREDIT)
    assert offered(relay) == [effect_id]
    assert bench.run(effect_id).endswith("done")


def test_without_an_end_and_a_reason(bench: Bench) -> None:
    [effect_id] = owed(bench)
    pause(bench, CREDIT)
    assert bench.run(effect_id) == "paused until a person resumes it"


def test_a_pause_ends_by_itself(bench: Bench, relay: Relay) -> None:
    # Given a pause whose end has come
    [effect_id] = owed(bench)
    pause(bench, CREDIT, datetime.now(UTC) + HOUR)
    bench.execute("UPDATE pauses SET since = since - interval '2 h', ends_at = ends_at - interval '2 h'")
    # Then it is offered and run
    assert effect_id in offered(relay)
    assert bench.run(effect_id).endswith("done")


def test_a_lost_one_waits_too(bench: Bench, relay: Relay) -> None:
    # Given an effect whose worker was lost
    [effect_id] = owed(bench)
    bench.claim(effect_id)
    bench.expire_leases()
    # Then the pause holds for it
    pause(bench, CREDIT)
    assert effect_id not in offered(relay)
    assert bench.run(effect_id) == "paused until a person resumes it"


def test_paused_time_does_not_count(bench: Bench) -> None:
    # Given a week in which an effect may be tried, ten days ago its first try, and a pause of eight days and one of
    # another kind
    [effect_id] = owed(bench)
    bench.credit.fail_with(*[Transient("not now")] * 3)
    with pytest.raises(TryAgainError):
        bench.run(effect_id)
    bench.make_due()
    bench.execute("UPDATE effects SET retrying_since = now() - interval '10 d'")
    bench.execute(
        "INSERT INTO pauses (id, kind, since, ends_at) VALUES"
        " (gen_random_uuid(), 'set_credit_status', now() - interval '12 d', now() - interval '8 d'),"
        " (gen_random_uuid(), 'set_credit_status', now() - interval '7 d', now() - interval '1 d'),"
        " (gen_random_uuid(), 'send_status_email', now() - interval '9 d', now() - interval '8 d')"
    )
    # Then two days have counted
    with pytest.raises(TryAgainError):
        bench.run(effect_id)
    bench.make_due()
    claim = bench.claim(effect_id)
    assert claim is not None
    assert claim.retrying_for_s == pytest.approx(2 * 86_400, abs=600)
    # And without the pauses it is given up
    bench.execute("DELETE FROM pauses")
    bench.expire_leases()
    with pytest.raises(TryFailedError):
        bench.run(effect_id)


def test_the_first_try_begins_at_zero(bench: Bench) -> None:
    [effect_id] = owed(bench)
    claim = bench.claim(effect_id)
    assert claim is not None
    assert claim.retrying_for_s == 0


def test_a_new_pause_takes_the_place_of_the_old_one(bench: Bench) -> None:
    # Given a pause with an end
    pause(bench, CREDIT, datetime.now(UTC) + HOUR, "first")
    # When it is paused again
    pause(bench, CREDIT, None, "second")
    # Then one is on, and they do not overlap
    with bench.engine.begin() as connection:
        [current] = pauses.current(connection)
        first, second = connection.exec_driver_sql("SELECT since, ends_at FROM pauses ORDER BY since").all()
    assert (current.reason, current.ends_at) == ("second", None)
    assert first.ends_at <= second.since


def test_an_end_in_the_past_is_refused(bench: Bench) -> None:
    with pytest.raises(IntegrityError, match="ends_at"):
        pause(bench, CREDIT, datetime.now(UTC) - HOUR)


def test_a_paused_cascade_is_still_folded_in(bench: Bench) -> None:
    # Given a cascade that is owed and paused
    bench.apply(c.create("B"), c.create("A"), c.update("A", "declined"))
    [cascade] = bench.ids(EffectKind.CASCADE_DECLINE)
    pause(bench, EffectKind.CASCADE_DECLINE)
    assert bench.run(cascade) == "paused until a person resumes it"
    # When a command of the learner comes
    bench.apply(c.create("C"))
    # Then it belongs to the record
    assert bench.row(cascade).state == "done"
