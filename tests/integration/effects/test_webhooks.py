"""Webhooks: what the relay owes them, in which order they get it, and how one is switched off and on."""

import json
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine, text
from structlog.typing import EventDict

from db import deliveries, event_log, operators, subscribers
from tests import sample_commands as c
from tests.integration.effects.conftest import Bench, until
from tests.integration.effects.test_relay import FakeDispatcher
from tests.integration.feeds.conftest import news, tell
from worker.effects.relay import Relay
from worker.errors import Gone, Permanent, Transient, TryAgainError, TryFailedError, Unavailable
from worker.feeds import fanout as module
from worker.feeds.fanout import Fanout
from worker.feeds.numberer import Numberer
from worker.kinds import EffectKind
from worker.rules.retry import CIRCUIT_FAILURES
from worker.subscribers import Webhook
from worker.subscriptions import Subscriptions

DELIVER = EffectKind.DELIVER_EVENT
SOURCE = "/invigilator/main"
ACME, OTHER = "webhook.acme", "webhook.other"
GONE = Gone("webhook.acme answered 410")
WAITING_FOR_A_LOCK = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def webhook(**more: Any) -> Webhook:
    return Webhook.model_validate({"url": "https://acme.example/hooks", "secrets": [SECRET], **more})


class Hooks:
    """A bench with webhooks."""

    def __init__(self, bench: Bench, **webhooks: Webhook) -> None:
        self.bench = bench
        self.subscribe(**webhooks)

    def subscribe(self, **webhooks: Webhook) -> None:
        """As a relay that starts with another file."""
        self.subscriptions = Subscriptions(webhook=webhooks)
        Numberer(self.bench.engine, self.subscriptions, 60).store()
        self.fanout = Fanout(self.bench.engine, self.subscriptions.webhooks(), SOURCE, 60)

    def number(self) -> None:
        with self.bench.engine.begin() as connection:
            event_log.number(connection)

    def deliver(self, *names: str) -> list[UUID]:
        """Number and fan out. Returns the deliveries of all webhooks, oldest first."""
        self.number()
        for name in names or self.subscriptions.webhooks():
            self.fanout.fan_out(name, threading.Event())
        return self.bench.ids(DELIVER)

    def act(self, *users: str, to_status: str = "submitted") -> None:
        """An attempt of each learner is created and changes."""
        self.bench.apply(*[c.learner(user) for user in users])
        self.bench.apply(*[c.create("A", user) for user in users])
        self.bench.apply(*[c.update("A", to_status, user) for user in users])

    def offered(self) -> list[UUID]:
        """What the relay offers of deliveries in one round."""
        dispatcher = FakeDispatcher()
        Relay(self.bench.engine, dispatcher, poll_s=60, offer_ttl_s=60).offer_once()
        self.bench.execute("UPDATE effects SET offered_until = NULL WHERE state = 'pending'")
        return [offer.id for offer in dispatcher.offers if offer.kind == DELIVER]

    def standing(self, name: str = ACME) -> deliveries.Endpoint:
        with self.bench.engine.begin() as connection:
            return {one.name: one for one in deliveries.endpoints(connection)}[name]

    def cursor(self, name: str = ACME) -> int:
        with self.bench.engine.begin() as connection:
            return {one.name: one.position for one in subscribers.standings(connection)}[name]

    def switch_on(self, name: str = ACME) -> None:
        with self.bench.engine.begin() as connection:
            assert deliveries.switch_on(connection, name)

    def sent(self) -> list[str]:
        return [json.loads(one.body)["type"] for one in self.bench.webhooks.deliveries]


@pytest.fixture
def hooks(bench: Bench) -> Hooks:
    return Hooks(bench, acme=webhook())


def refuse(bench: Bench, effect_id: UUID) -> None:
    with pytest.raises(TryAgainError):
        bench.run(effect_id)


# --- the fan-out ---------------------------------------------------------------------------------------


def test_each_webhook_is_owed_each_event_that_it_wants(bench: Bench) -> None:
    hooks = Hooks(bench, acme=webhook(types=["exam.attempt.status-changed.v1"]), other=webhook())
    hooks.act("42")
    owed = [bench.row(one) for one in hooks.deliver()]
    assert [(one.subscriber, one.payload["type"]) for one in owed] == [
        (ACME, "exam.attempt.status-changed.v1"),
        (OTHER, "exam.attempt.created.v1"),
        (OTHER, "exam.attempt.status-changed.v1"),
    ]
    (attempt_id,) = {one.attempt_id for one in owed}
    assert attempt_id is not None
    assert {(one.kind, one.state, one.user_id, one.order_key) for one in owed} == {
        (DELIVER, "pending", "42", None)
    }
    assert bench.run(owed[0].id) == (
        "webhook acme · status-changed submitted · exam A · learner 42 · try 1: done"
    )
    # What was delivered is the event, whole
    with bench.engine.begin() as connection:
        (event,) = [one for one in event_log.read(connection, 0) if one.id == owed[0].event_id]
    (delivery,) = bench.webhooks.deliveries
    assert (delivery.subscriber, delivery.event_id) == (ACME, event.id)
    assert json.loads(delivery.body)["data"] == event.data
    assert json.loads(delivery.body)["sequence"] == f"{event.position:020}"
    # and nothing is owed twice
    assert hooks.deliver() == [one.id for one in owed]


def test_an_event_about_no_attempt_is_delivered_too(hooks: Hooks) -> None:
    with hooks.bench.engine.begin() as connection:
        event_log.write(connection, [news(size=7)])
    (effect_id,) = hooks.deliver()
    row = hooks.bench.row(effect_id)
    assert (row.attempt_id, row.user_id, row.source) == (None, None, SOURCE)
    assert row.command_id == str(row.event_id)
    assert hooks.bench.run(effect_id) == "webhook acme · quarantined · try 1: done"


def test_a_crash_between_fan_out_and_cursor_leaves_neither(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks.act("42")
    before = hooks.cursor()
    whole = deliveries.fan_out

    def crash(*args: Any) -> None:
        whole(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(deliveries, "fan_out", crash)
        with pytest.raises(KeyboardInterrupt):
            hooks.deliver()
    assert (hooks.cursor(), hooks.bench.ids(DELIVER)) == (before, [])
    assert len(hooks.deliver()) == 2
    assert hooks.cursor() > before


def test_two_relays_owe_nothing_twice(hooks: Hooks) -> None:
    hooks.act("42")
    hooks.number()
    with hooks.bench.engine.begin() as connection:
        assert deliveries.lock_cursor(connection, ACME) is not None
        assert (
            hooks.fanout.fan_out(ACME, threading.Event()) is False
        )  # it passes over what another one has locked
        assert hooks.bench.ids(DELIVER) == []
    assert len(hooks.deliver()) == 2


def test_a_relay_that_starts_waits_for_one_that_fans_out(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a relay that has locked the cursor
    hooks.act("42")
    hooks.number()
    storing = threading.Thread(target=lambda: hooks.subscribe(acme=webhook(), other=webhook()))
    owe = Fanout.owe

    def waits() -> bool:
        with hooks.bench.engine.connect() as connection:
            return bool(connection.execute(text(WAITING_FOR_A_LOCK)).scalar_one() == 1)

    def owe_while_another_starts(fanout: Fanout, *values: Any) -> None:
        if not storing.ident:
            storing.start()
            until(waits)
        owe(fanout, *values)

    monkeypatch.setattr(Fanout, "owe", owe_while_another_starts)
    # When another one stores who subscribes, then neither is ended for a deadlock
    hooks.fanout.fan_out(ACME, threading.Event())
    storing.join()
    assert len(hooks.bench.ids(DELIVER)) == 2
    assert hooks.standing("webhook.other").pending == 0


def test_a_webhook_with_enough_to_do_leaves_the_rest_in_the_log(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_DUE", 3)
    hooks.act("1", "2")
    hooks.number()
    assert hooks.fanout.fan_out(ACME, threading.Event()) is True
    owed = hooks.bench.ids(DELIVER)
    assert len(owed) == 3
    assert hooks.fanout.fan_out(ACME, threading.Event()) is True
    assert hooks.bench.ids(DELIVER) == owed
    # What waits for another try takes no room
    hooks.bench.webhooks.fail_with(Transient("webhook.acme answered 400"))
    refuse(hooks.bench, owed[0])
    hooks.bench.execute("UPDATE effects SET due_at = due_at + interval '1 h' WHERE tries > 0")
    assert hooks.fanout.fan_out(ACME, threading.Event()) is False
    assert len(hooks.bench.ids(DELIVER)) == 4
    types = [hooks.bench.row(one).payload["type"] for one in hooks.bench.ids(DELIVER)]
    assert types == ["exam.attempt.created.v1"] * 2 + ["exam.attempt.status-changed.v1"] * 2


def test_a_relay_that_is_stopped_leaves_the_rest_of_the_log(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a backlog of several pages
    hooks.subscribe(acme=webhook(types=["exam.attempt.*"]))
    before = hooks.cursor()
    tell(hooks.bench.engine, *range(event_log.READ_AT_ONCE + 1))
    hooks.number()
    stopping, owe = threading.Event(), Fanout.owe

    def owe_and_be_stopped(fanout: Fanout, *values: Any) -> None:
        owe(fanout, *values)
        stopping.set()

    monkeypatch.setattr(Fanout, "owe", owe_and_be_stopped)
    # When the relay is stopped at the first of them, then that is the last
    assert hooks.fanout.fan_out(ACME, stopping) is False
    with hooks.bench.engine.connect() as connection:
        *_, last = event_log.read(connection, before)
    assert hooks.cursor() == last.position


def test_the_loop_owes_what_is_numbered(hooks: Hooks) -> None:
    stopping = threading.Event()
    thread = threading.Thread(target=hooks.fanout.run, args=(stopping,))
    thread.start()
    try:
        hooks.act("42")
        hooks.number()
        until(lambda: len(hooks.bench.ids(DELIVER)) == 2)
    finally:
        stopping.set()
        thread.join()


def test_the_loop_survives_a_database_that_is_away(hooks: Hooks, logged: list[EventDict]) -> None:
    stopping = threading.Event()
    away = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none")
    fanout = Fanout(away, hooks.subscriptions.webhooks(), SOURCE, 0.01)
    thread = threading.Thread(target=fanout.run, args=(stopping,))
    thread.start()
    try:
        until(lambda: [line["event"] for line in logged].count("the fan-out tries again") > 1)
    finally:
        stopping.set()
        thread.join()


# --- in order ------------------------------------------------------------------------------------------


def test_in_order_a_learner_gets_one_at_a_time_oldest_first(bench: Bench) -> None:
    hooks = Hooks(bench, acme=webhook(order="learner"))
    hooks.act("1", "2")
    created_1, created_2, changed_1, changed_2 = hooks.deliver()
    assert [bench.row(one).order_key for one in (created_1, changed_1)] == ["webhook:acme/1"] * 2
    assert hooks.offered() == [created_1, created_2]
    bench.webhooks.fail_with(Transient("webhook.acme answered 400"))
    refuse(bench, created_1)
    assert bench.run(changed_1) == f"waits for an older one, effect {created_1}"
    assert bench.run(created_2).endswith("done")
    assert bench.run(changed_2).endswith("done")  # the other learner does not wait
    bench.make_due()
    assert bench.run(created_1).endswith("done")
    assert bench.run(changed_1).endswith("done")


@pytest.mark.parametrize("how", ["failed", "cancelled"])
def test_in_order_one_that_has_ended_without_success_frees_the_next(bench: Bench, how: str) -> None:
    hooks = Hooks(bench, acme=webhook(order="learner"))
    hooks.act("1")
    created, changed = hooks.deliver()
    assert hooks.offered() == [created]
    if how == "failed":
        bench.webhooks.fail_with(Permanent("no"))
        with pytest.raises(TryFailedError):
            bench.run(created)
    else:
        with bench.engine.begin() as connection:
            assert operators.cancel(connection, [created]).refused == {}
    assert hooks.offered() == [changed]
    assert bench.run(changed).endswith("done")


# --- how a try ends ------------------------------------------------------------------------------------


def test_what_fails_for_too_long_fails_and_is_told_to_nobody(hooks: Hooks) -> None:
    hooks.act("42")
    effect_id, *_ = hooks.deliver()
    hooks.bench.webhooks.fail_with(Transient("webhook.acme answered 400"))
    refuse(hooks.bench, effect_id)
    hooks.bench.execute("UPDATE effects SET retrying_since = now() - interval '8 d' WHERE tries > 0")
    hooks.bench.make_due()
    hooks.bench.webhooks.fail_with(Transient("webhook.acme answered 400"))
    with pytest.raises(TryFailedError):
        hooks.bench.run(effect_id)
    assert hooks.bench.row(effect_id).state == "failed"
    assert hooks.bench.row(effect_id).failure_told is None
    # A person retries it
    with hooks.bench.engine.begin() as connection:
        assert operators.retry(connection, [effect_id]).refused == {}
    assert hooks.bench.run(effect_id).endswith("done")
    with hooks.bench.engine.begin() as connection:
        told = [one.type for one in event_log.read(connection, 0)]
    assert not [one for one in told if one.startswith("exam.effect.")]


def test_a_webhook_that_wants_no_more_is_off_until_a_person_switches_it_on(
    hooks: Hooks, logged: list[EventDict]
) -> None:
    hooks.act("1", "2")
    first, *others = hooks.deliver()
    hooks.bench.webhooks.fail_with(GONE)
    hooks.bench.execute(
        "UPDATE effects SET retrying_since = now() - interval '8 d'"
    )  # however long it was tried
    refuse(hooks.bench, first)
    assert hooks.bench.row(first).state == "pending"
    off = hooks.standing()
    assert (off.reason, off.pending, off.failed) == ("webhook.acme answered 410", 4, 0)
    assert off.off_since is not None
    [line] = [one for one in logged if one["log_level"] == "warning"]
    assert (line["event"], line["subscriber"], line["reason"]) == (
        "a webhook is switched off",
        ACME,
        str(GONE),
    )
    assert line["hint"] == "`invigilator webhooks on` continues"
    # Then nothing is offered, called or owed
    assert hooks.offered() == []
    assert hooks.bench.run(others[0]).startswith("its webhook is off since ")
    hooks.act("3")
    assert len(hooks.deliver()) == 4
    # and when a person switches it on, everything goes
    hooks.switch_on()
    assert hooks.standing().off_since is None
    assert hooks.bench.row(first).retrying_since is None
    owed = hooks.deliver()
    assert len(owed) == 6
    assert set(hooks.offered()) == set(owed)
    assert {hooks.bench.run(one)[-4:] for one in owed} == {"done"}


def test_a_lost_delivery_of_a_webhook_that_is_off_waits_too(hooks: Hooks) -> None:
    hooks.act("1")
    first, *_ = hooks.deliver()
    assert hooks.bench.claim(first) is not None
    hooks.bench.expire_leases()
    with hooks.bench.engine.begin() as connection:
        assert deliveries.switch_off(connection, ACME, "a person")
    assert hooks.offered() == []
    assert hooks.bench.claim(first) is None
    hooks.switch_on()
    assert first in hooks.offered()


def test_nobody_switches_what_is_not_there(engine: Engine) -> None:
    with engine.begin() as connection:
        assert not deliveries.switch_on(connection, "webhook.none")
        assert not deliveries.switch_off(connection, "webhook.none", "a person")


# --- circuits and slots --------------------------------------------------------------------------------


def open_circuit(bench: Bench, effect_ids: Sequence[UUID]) -> None:
    bench.webhooks.fail_with(*[Unavailable("webhook.acme answered 503")] * CIRCUIT_FAILURES)
    for effect_id in effect_ids[:CIRCUIT_FAILURES]:
        refuse(bench, effect_id)


def test_each_webhook_has_a_circuit_of_its_own(bench: Bench) -> None:
    hooks = Hooks(bench, acme=webhook(), other=webhook())
    hooks.act(*"1234")
    owed = hooks.deliver()
    acme = [one for one in owed if bench.row(one).subscriber == ACME]
    other = [one for one in owed if bench.row(one).subscriber == OTHER]
    open_circuit(bench, acme)
    assert hooks.offered() == other
    assert bench.run(acme[-1]).startswith("circuit open since ")
    assert bench.run(other[0]).endswith("done")
    # When it may be probed, one delivery goes, and its success lets the others go
    bench.execute("UPDATE circuits SET open_until = now() WHERE queue = :name", name=ACME)
    bench.execute("UPDATE effects SET due_at = now() WHERE state = 'pending'")
    probes = [one for one in hooks.offered() if one in acme]
    assert len(probes) == 1
    assert bench.run(probes[0]).endswith("done")
    assert set(hooks.offered()) >= set(acme) - set(probes)


def test_a_webhook_that_is_off_is_not_probed(hooks: Hooks) -> None:
    hooks.act(*"1234")
    open_circuit(hooks.bench, hooks.deliver())
    with hooks.bench.engine.begin() as connection:
        deliveries.switch_off(connection, ACME, "a person")
        assert connection.execute(text("SELECT count(*) FROM circuits")).scalar_one() == 0
    assert hooks.offered() == []


def test_a_webhook_whose_slots_are_taken_waits_and_the_others_go_on(bench: Bench) -> None:
    hooks = Hooks(bench, acme=webhook(), other=webhook())
    hooks.act("1")
    owed = hooks.deliver()
    bench.max_calls = 1
    runner = bench.runner
    with runner.tools.slots.taken(DELIVER, ACME) as free:
        assert free
        answers = [runner.run(one, DELIVER).text for one in owed]
    assert answers[:2] == ["every slot of the service is taken"] * 2
    assert all(one.endswith("done") for one in answers[2:])


# --- the end -------------------------------------------------------------------------------------------


def test_open_deliveries_of_one_who_is_taken_out_are_cancelled(bench: Bench, logged: list[EventDict]) -> None:
    hooks = Hooks(bench, acme=webhook(), other=webhook())
    hooks.act(*"1234")
    owed = hooks.deliver()
    acme = [one for one in owed if bench.row(one).subscriber == ACME]
    open_circuit(bench, acme)
    running = bench.claim(owed[-1])
    hooks.subscribe(third=webhook())
    states = {bench.row(one).state for one in owed if one != owed[-1]}
    assert states == {"cancelled"}
    assert bench.row(owed[-1]).state == "running"
    assert running is not None
    with bench.engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM circuits")).scalar_one() == 0
    assert [line["subscriber"] for line in logged if line["event"] == "a cursor is forgotten"] == [
        "webhook.acme",
        "webhook.other",
    ]
    assert [line["count"] for line in logged if line["event"] == "deliveries cancelled"] == [len(owed) - 1]
    # One that a person retries finds that nobody subscribes
    with bench.engine.begin() as connection:
        operators.retry(connection, [owed[0]])
    with pytest.raises(TryFailedError, match=r"webhook\.acme subscribes no more"):
        bench.run(owed[0])


def test_an_event_stays_while_its_delivery_is_open(hooks: Hooks) -> None:
    hooks.act("42")
    created, changed = hooks.deliver()

    def prune() -> int:
        with hooks.bench.engine.begin() as connection:
            return event_log.prune(connection, timedelta(0))

    assert prune() == 0
    assert hooks.bench.run(created).endswith("done")
    assert prune() == 1
    # A cancelled one holds nothing, and cannot be retried any more
    with hooks.bench.engine.begin() as connection:
        operators.cancel(connection, [changed])
    assert prune() == 1
    with hooks.bench.engine.begin() as connection:
        operators.retry(connection, [changed])
    with pytest.raises(TryFailedError, match="the event is no longer kept"):
        hooks.bench.run(changed)


def test_a_replay_delivers_the_same_events_again(hooks: Hooks) -> None:
    before = hooks.cursor()
    hooks.act("42")
    first = hooks.deliver()
    with hooks.bench.engine.begin() as connection:
        assert subscribers.replay(connection, ACME, before) is None
    second = [one for one in hooks.deliver() if one not in first]
    assert [hooks.bench.row(one).event_id for one in second] == [
        hooks.bench.row(one).event_id for one in first
    ]
