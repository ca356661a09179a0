"""The relay: what it offers, how often, and what it does when the broker is away."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from sqlalchemy import Engine

from db.offers import Offer
from db.prepared import SESSION_SETTINGS
from tests import sample_commands as c
from tests.integration.effects.conftest import Bench
from tests.loops import running
from tests.roundtrips import counted
from worker.effects import relay as module
from worker.effects import rooms
from worker.effects.relay import Relay
from worker.errors import Transient
from worker.kinds import QUEUES, EffectKind


@dataclass
class FakeDispatcher:
    """Queues in memory."""

    offers: list[Offer] = field(default_factory=list)
    away: int = 0
    lengths: dict[str, int] = field(default_factory=dict)
    on_dispatch: threading.Event = field(default_factory=threading.Event)

    def dispatch(self, offers: Sequence[Offer]) -> None:
        self._broker()
        self.offers.extend(offers)
        self.on_dispatch.set()

    def queue_length(self, queue: str) -> int:
        return self.lengths.get(queue, 0)

    def _broker(self) -> None:
        if self.away:
            self.away -= 1
            raise Transient("the broker is away")


@pytest.fixture
def dispatcher() -> FakeDispatcher:
    return FakeDispatcher()


@pytest.fixture
def relay(engine: Engine, dispatcher: FakeDispatcher) -> Relay:
    return Relay(engine, dispatcher, poll_s=60, offer_ttl_s=60)


def owed(bench: Bench, learners: int = 1) -> list[UUID]:
    """As many credit effects as learners, oldest first."""
    people = [str(number) for number in range(learners)]
    bench.apply(*[c.learner(user) for user in people])
    bench.apply(*[c.create("A", user) for user in people])
    bench.apply(*[c.update("A", "submitted", user) for user in people])
    return bench.ids(EffectKind.SET_CREDIT_STATUS)


def test_due_effects_are_offered_once_oldest_first(
    bench: Bench, relay: Relay, dispatcher: FakeDispatcher
) -> None:
    ids = owed(bench, 3)
    relay.offer_once()
    relay.offer_once()
    assert [offer.id for offer in dispatcher.offers] == ids


def test_a_round_is_three_round_trips(bench: Bench, database_url: str, dispatcher: FakeDispatcher) -> None:
    with counted(database_url, pre_ping=False, session_settings=SESSION_SETTINGS) as (engine, trips):
        relay = Relay(engine, dispatcher, poll_s=60, offer_ttl_s=60)
        # Given a relay that has connected, prepared its statements and asked for the room
        owed(bench)
        relay.offer_once()
        bench.execute("UPDATE effects SET offered_until = NULL")
        trips()
        # When it offers an effect, then it looks for kinds and circuits, marks the offer, and commits
        relay.offer_once()
        assert trips() == 3
    assert len(dispatcher.offers) == 2


def test_an_effect_that_is_not_due_is_not_offered(
    bench: Bench, relay: Relay, dispatcher: FakeDispatcher
) -> None:
    owed(bench)
    bench.execute("UPDATE effects SET due_at = now() + interval '1h'")
    assert relay.offer_once() == relay.poll_s
    assert dispatcher.offers == []


def test_an_offer_that_nobody_answers_is_made_again(
    bench: Bench, relay: Relay, dispatcher: FakeDispatcher
) -> None:
    # Given an offer, and a broker that is then wiped
    ids = owed(bench)
    relay.offer_once()
    bench.execute("UPDATE effects SET offered_until = now() - interval '1s'")
    # When the relay looks again
    relay.offer_once()
    # Then it is offered again
    assert [offer.id for offer in dispatcher.offers] == ids * 2


def test_a_lost_effect_is_offered_again(bench: Bench, relay: Relay, dispatcher: FakeDispatcher) -> None:
    [effect_id] = owed(bench)
    bench.execute(
        "UPDATE effects SET state = 'running', tries = 1, lease_until = now() - interval '1s', offered_until = null"
    )
    relay.offer_once()
    relay.offer_once()
    assert [(offer.id, offer.tries) for offer in dispatcher.offers] == [(effect_id, 1)]


def test_offers_are_bounded(
    bench: Bench, relay: Relay, dispatcher: FakeDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given room for two, and five that are due
    monkeypatch.setattr(rooms, "MAX_OUTSTANDING", 2)
    ids = owed(bench, 5)
    # When the relay runs twice: then two are offered, and it knows that there is more
    assert relay.offer_once() == module.BUSY_PAUSE_S
    assert relay.offer_once() == module.FULL_PAUSE_S
    assert [offer.id for offer in dispatcher.offers] == ids[:2]
    # When the workers have answered these: then the next two
    bench.execute("UPDATE effects SET state = 'done', done_at = now() WHERE offered_until is not null")
    assert relay.offer_once() == module.BUSY_PAUSE_S
    assert [offer.id for offer in dispatcher.offers] == ids[:4]


def test_kinds_that_share_a_queue_share_its_room(
    bench: Bench, relay: Relay, dispatcher: FakeDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "MAX_OUTSTANDING", 2)
    owed(bench, 2)
    bench.apply(c.remove("A", "0"), c.remove("A", "1"))
    assert relay.offer_once() == module.BUSY_PAUSE_S
    offered = [offer.kind for offer in dispatcher.offers if "credit" in offer.kind]
    assert offered == [EffectKind.SET_CREDIT_STATUS, EffectKind.REMOVE_CREDIT_STATUS]


def test_a_full_queue_is_left_alone(bench: Bench, relay: Relay, dispatcher: FakeDispatcher) -> None:
    owed(bench)
    dispatcher.lengths[QUEUES[EffectKind.SET_CREDIT_STATUS]] = rooms.MAX_OUTSTANDING
    assert relay.offer_once() == module.FULL_PAUSE_S
    bench.execute("UPDATE effects SET state = 'running', lease_until = now() - interval '1s'")
    assert relay.offer_once() == module.FULL_PAUSE_S
    assert dispatcher.offers == []


def test_offers_that_the_broker_did_not_take_are_made_again_at_once(
    bench: Bench, relay: Relay, dispatcher: FakeDispatcher
) -> None:
    ids = owed(bench)
    dispatcher.away = 1
    with pytest.raises(Transient):
        relay.offer_once()
    relay.offer_once()
    assert [offer.id for offer in dispatcher.offers] == ids


def test_the_loop_wakes_when_effects_are_committed(
    bench: Bench, engine: Engine, dispatcher: FakeDispatcher
) -> None:
    # Given a relay that polls once an hour
    with running(Relay(engine, dispatcher, poll_s=3600, offer_ttl_s=60).run):
        # When an effect is committed after its first look
        while not listening(bench):
            pass
        ids = owed(bench)
        # Then it is offered
        assert dispatcher.on_dispatch.wait(30)
        assert [offer.id for offer in dispatcher.offers] == ids


def test_the_loop_goes_on_after_an_error(bench: Bench, engine: Engine, dispatcher: FakeDispatcher) -> None:
    # Given a broker that is away for a moment
    dispatcher.away = 2
    ids = owed(bench)
    # When the relay runs
    with running(Relay(engine, dispatcher, poll_s=0.01, offer_ttl_s=60).run):
        # Then the effect is offered all the same
        assert dispatcher.on_dispatch.wait(30)
    assert [offer.id for offer in dispatcher.offers] == ids


def test_the_loop_goes_on_when_the_database_ends_its_connections(
    bench: Bench, engine: Engine, dispatcher: FakeDispatcher
) -> None:
    # Given a relay that listens
    with running(Relay(engine, dispatcher, poll_s=0.01, offer_ttl_s=60).run):
        while not listening(bench):
            pass
        # When the server ends every connection, the one that listens included
        engine.dispose()
        bench.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        engine.dispose()
        # Then it listens again, and offers
        ids = owed(bench)
        assert dispatcher.on_dispatch.wait(30)
        assert [offer.id for offer in dispatcher.offers] == ids


def listening(bench: Bench) -> bool:
    with bench.engine.begin() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN invigilator_effects'"
        return bool(connection.exec_driver_sql(query).scalar())
