"""Effects in order: the mails about one attempt go one at a time, oldest first, and none is dropped."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError

from db import effect_filters, effects, lookups, operators, order
from db.effect_filters import Filter
from db.effects import Claim
from db.offers import find_due
from tests import engines
from tests import sample_commands as c
from tests.integration.effects.conftest import LEASE_S, Bench, claim, end, ending, run_together, until, wanted
from tests.integration.effects.test_circuit import HEALTHY, deadlocks, statements
from tests.integration.effects.test_relay import FakeDispatcher, dispatcher, listening, relay
from tests.loops import running
from worker.effects import relay as module
from worker.effects import rooms
from worker.effects.relay import Relay
from worker.errors import Permanent, Transient, TryAgainError, TryFailedError, Unavailable
from worker.kinds import EffectKind
from worker.rules.retry import CIRCUIT_FAILURES

__all__ = ["dispatcher", "relay", "statements"]  # fixtures

CREDIT = EffectKind.SET_CREDIT_STATUS
MAIL = EffectKind.SEND_STATUS_EMAIL
STATUSES = ("submitted", "verified", "rejected")


def mails(bench: Bench, number: int = 2, user: str = "42") -> list[UUID]:
    """As many mails about one attempt, oldest first. Nothing else is owed."""
    before = set(bench.ids(MAIL))
    bench.apply(c.learner(user), c.create("A", user, taking_as_proctored=True))
    bench.apply(*[c.update("A", one, user, cascade_effects=False) for one in STATUSES[:number]])
    bench.execute("DELETE FROM effects WHERE kind <> :mail", mail=MAIL)
    return [one for one in bench.ids(MAIL) if one not in before]


def fail(bench: Bench, effect_id: UUID, error: Transient | Permanent) -> None:
    bench.mailer.fail_with(error)
    with pytest.raises((TryAgainError, TryFailedError)):
        bench.run(effect_id)


def told(bench: Bench) -> list[UUID]:
    """What the mail server has taken, in order."""
    return [mail.effect_id for mail in bench.mailer.sent]


def waits(bench: Bench, effect_id: UUID, ahead: UUID) -> None:
    """A worker that is asked to run it leaves it alone, and says why."""
    tries = bench.row(effect_id).tries
    assert bench.run(effect_id) == f"waits for an older one, effect {ahead}"
    assert (bench.row(effect_id).state, bench.row(effect_id).tries) == ("pending", tries)


def is_due(bench: Bench, effect_id: UUID) -> bool:
    with bench.engine.begin() as connection:
        now: datetime = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
    return bool(bench.row(effect_id).due_at <= now)


def offered(bench: Bench) -> list[UUID]:
    """What a look of the relay offers."""
    dispatcher = FakeDispatcher()
    Relay(bench.engine, dispatcher, poll_s=60, offer_ttl_s=60).offer_once()
    return [offer.id for offer in dispatcher.offers]


def retry(bench: Bench, *effect_ids: UUID) -> None:
    with bench.engine.begin() as connection:
        assert operators.retry(connection, effect_ids).refused == {}


def cancel(bench: Bench, *effect_ids: UUID) -> None:
    with bench.engine.begin() as connection:
        assert operators.cancel(connection, effect_ids).refused == {}


# --- who waits, and who frees whom -----------------------------------------------------------------------


def test_a_newer_one_waits_until_the_older_one_is_done(bench: Bench) -> None:
    older, newer = mails(bench)
    waits(bench, newer, older)
    assert bench.run(older).endswith("done")
    assert bench.run(newer).endswith("done")
    assert told(bench) == [older, newer]


def test_a_newer_one_waits_while_the_older_one_runs(bench: Bench) -> None:
    older, newer = mails(bench)
    claimed = bench.claim(older)
    assert claimed
    waits(bench, newer, older)
    # Then it is not looked at before the older one's lease ends
    assert bench.row(newer).due_at >= bench.row(older).lease_until
    # and it is due at once when the older one ends
    end_alone(bench, claimed)
    assert is_due(bench, newer)
    assert bench.run(newer).endswith("done")


def test_a_newer_one_waits_for_as_long_as_the_older_one_is_tried_again(bench: Bench) -> None:
    older, newer = mails(bench)
    fail(bench, older, Transient("451", retry_after_s=3000))
    waits(bench, newer, older)
    assert bench.row(newer).due_at == bench.row(older).due_at
    # When the older one has gone at last
    bench.make_due()
    waits(bench, newer, older)
    assert bench.run(older).endswith("try 2: done")
    # Then the newer one goes, with tries of its own
    assert bench.run(newer).endswith("try 1: done")
    assert told(bench) == [older, newer]


def test_one_that_has_failed_for_good_frees_the_next(bench: Bench) -> None:
    older, newer = mails(bench)
    waits(bench, newer, older)
    fail(bench, older, Permanent("550"))
    assert bench.row(older).state == "failed"
    assert is_due(bench, newer)
    assert bench.run(newer).endswith("done")


def test_one_that_is_cancelled_frees_the_next(bench: Bench) -> None:
    older, newer, newest = mails(bench, 3)
    fail(bench, older, Transient("451", retry_after_s=3000))
    waits(bench, newer, older)
    waits(bench, newest, older)
    cancel(bench, older, newer)
    assert bench.run(newest).endswith("done")
    assert told(bench) == [newest]


def test_of_those_that_wait_only_the_next_is_freed(bench: Bench) -> None:
    older, newer, newest = mails(bench, 3)
    claimed = bench.claim(older)
    assert claimed
    waits(bench, newest, older)
    waits(bench, newer, older)
    end_alone(bench, claimed)
    assert [is_due(bench, one) for one in (newer, newest)] == [True, False]
    bench.run(newer)
    assert bench.run(newest).endswith("done")


def test_attempts_do_not_wait_for_each_other(bench: Bench) -> None:
    mine, others = mails(bench), mails(bench, user="7")
    assert bench.claim(mine[0])
    assert bench.run(others[0]).endswith("done")
    waits(bench, mine[1], mine[0])
    assert bench.run(others[1]).endswith("done")


def test_other_kinds_of_the_attempt_do_not_wait(bench: Bench) -> None:
    bench.apply(c.create("A", taking_as_proctored=True), c.update("A", "submitted"))
    credit, mail = bench.ids()
    assert bench.claim(mail)
    assert bench.run(credit).endswith("done")


# --- lost workers ----------------------------------------------------------------------------------------


def test_a_lost_one_is_ahead_until_it_has_been_run_again(bench: Bench) -> None:
    older, newer = mails(bench)
    assert bench.claim(older)
    bench.expire_leases()
    waits(bench, newer, older)
    # The relay offers the lost one, and not the newer one
    bench.execute("UPDATE effects SET due_at = now() - interval '1s' WHERE state = 'pending'")
    assert offered(bench) == [older]
    assert bench.run(older).endswith("try 2: done")
    assert bench.tries(older)[0][1] == "lost"
    assert bench.run(newer).endswith("done")


def test_a_lost_one_and_a_newer_one_in_one_group(bench: Bench) -> None:
    older, newer = mails(bench)
    assert bench.claim(older)
    bench.expire_leases()
    claims = bench.runner.claim_together([wanted(newer, MAIL), wanted(older, MAIL)])
    assert [isinstance(one, Claim) and one.number for one in claims] == [False, 2]


def test_one_that_was_lost_goes_before_an_older_one_that_a_person_retried(bench: Bench) -> None:
    # Given an older one that has failed, and a newer one that was begun after that and lost
    older, newer = mails(bench)
    fail(bench, older, Permanent("550"))
    assert bench.claim(newer)
    bench.expire_leases()
    # When a person retries the older one
    retry(bench, older)
    # Then they do not wait for each other: what has begun goes first
    waits(bench, older, newer)
    assert bench.run(newer).endswith("try 2: done")
    assert bench.run(older).endswith("done")


# --- people ----------------------------------------------------------------------------------------------


def test_failed_ones_that_a_person_retries_go_late_and_in_order(bench: Bench) -> None:
    # Given two that have failed, and a newer one that has gone
    oldest, older, newest = mails(bench, 3)
    for one in (oldest, older):
        fail(bench, one, Permanent("550"))
    bench.run(newest)
    # When a person retries both: then they go after it, oldest first
    retry(bench, older, oldest)
    waits(bench, older, oldest)
    bench.run(oldest)
    bench.run(older)
    assert told(bench) == [newest, oldest, older]


def test_a_failed_one_that_is_retried_in_time_goes_first_again(bench: Bench) -> None:
    older, newer = mails(bench)
    fail(bench, older, Permanent("550"))
    retry(bench, older)
    waits(bench, newer, older)
    assert bench.run(older).endswith("done")
    assert bench.run(newer).endswith("done")


def test_one_that_waits_and_is_retried_by_a_person_still_waits(bench: Bench) -> None:
    older, newer = mails(bench)
    waits(bench, newer, older)
    retry(bench, newer)
    assert offered(bench) == [older]
    waits(bench, newer, older)


def test_what_it_waits_for_is_shown(bench: Bench, database_url: str) -> None:
    older, newer = mails(bench)
    key = f"mail:{bench.row(older).attempt_id}"
    assert shown(database_url, older, newer) == [(key, None), (key, older)]
    # and nothing that has ended waits
    cancel(bench, newer)
    assert shown(database_url, older, newer) == [(key, None), (key, None)]


def shown(database_url: str, *effect_ids: UUID) -> list[tuple[str, UUID | None]]:
    """What the command line says of them, in a list and of each alone: the order key, and what it waits for."""
    with engines.disposed(database_url) as engine, engine.connect() as connection:
        listed = {row["id"]: row for row in effect_filters.listed(connection, Filter())}
        alone = [lookups.effect(connection, one) or {} for one in effect_ids]
    assert [one["waits_for"] for one in alone] == [listed[one]["waits_for"] for one in effect_ids]
    return [(one["order_key"], one["waits_for"]) for one in alone]


# --- several workers -------------------------------------------------------------------------------------


def test_of_a_group_only_the_oldest_of_each_attempt_is_claimed(bench: Bench) -> None:
    mine, others = mails(bench, 3), mails(bench, 2, user="7")
    group = [wanted(one, MAIL) for one in (*reversed(mine), *reversed(others))]
    claims = bench.runner.claim_together(group)
    assert [isinstance(one, Claim) and one.id for one in claims] == [False, False, mine[0], False, others[0]]
    assert [bench.row(one).offered_until for one in (*mine[1:], others[1])] == [None] * 3


def test_two_workers_that_meet_take_turns(bench: Bench) -> None:
    # Given a worker that is about to take a newer one, because the older one has failed
    older, newer = mails(bench)
    fail(bench, older, Permanent("550"))
    answers: list[str] = []
    with bench.engine.connect() as connection, connection.begin():
        assert claim(connection, newer, MAIL)
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")  # a slow test
        # When a person retries the older one, and another worker takes it, at that very moment
        retry(bench, older)
        other = threading.Thread(target=lambda: answers.append(bench.run(older)))
        other.start()
        until(lambda: waits_for_a_lock(bench))
    other.join()
    # Then it waits for the first to end
    assert answers == [f"waits for an older one, effect {newer}"]
    assert bench.row(older).due_at >= bench.row(newer).lease_until


def waits_for_a_lock(bench: Bench, number: int = 1) -> bool:
    """Whether so many sessions do."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with bench.engine.begin() as connection:
        return bool(connection.exec_driver_sql(query).scalar() == number)


def test_one_that_ends_while_the_next_is_held_back_frees_it_all_the_same(bench: Bench) -> None:
    older, newer = mails(bench)
    claimed = bench.claim(older)
    assert claimed
    with held(bench, newer) as connection:
        # Given a relay that holds the newer one back
        assert order.hold_back(connection, [newer]) == {newer}
        # When the older one ends at that very moment
        reporting = threading.Thread(target=lambda: end_alone(bench, claimed))
        reporting.start()
        until(lambda: waits_for_a_lock(bench))
    reporting.join()
    # Then the newer one is due
    assert is_due(bench, newer)


def end_alone(bench: Bench, *claims: Claim) -> None:
    """A worker records in one transaction that these are done."""
    ends = [ending(one) for one in claims]
    with bench.engine.begin() as connection:
        assert effects.end_tries(connection, ends).keys() == {one.key for one in ends}


def test_one_that_ends_before_the_next_is_locked_is_seen(bench: Bench) -> None:
    # Given an older one whose end is written and not yet committed
    older, newer = mails(bench)
    claimed = bench.claim(older)
    assert claimed
    with bench.engine.connect() as connection, connection.begin():
        assert end(connection, claimed)
        # When a relay looks at that very moment: then it passes the newer one over
        assert offered(bench) == []
        assert bench.row(newer).offered_until is None
    # and it offers it afterwards
    assert offered(bench) == [newer]


def test_people_who_cancel_crosswise_do_not_deadlock(bench: Bench) -> None:
    # Given two attempts with an older and a newer mail each, and somebody who has the first newer one
    [mine, my_next], [others, others_next] = mails(bench), mails(bench, user="7")
    with ThreadPoolExecutor() as people, held(bench, my_next):
        # When two people cancel crosswise: each frees what the other cancels
        first = people.submit(cancel, bench, mine, others_next)
        until(lambda: waits_for_a_lock(bench))
        second = people.submit(cancel, bench, others)
        until(lambda: second.done() or waits_for_a_lock(bench, 2))
    # Then neither waits for the other for ever
    assert [first.exception(), second.exception()] == [None, None]


def test_a_worker_and_somebody_who_retries_do_not_deadlock(bench: Bench) -> None:
    # Given a mail and a credit that run, and of each a newer one that waits, the mail being the older of these
    mail, next_mail = mails(bench, user="7")
    bench.apply(c.create("A"), c.update("A", "submitted"))
    claims = [bench.claim(mail), bench.claim(bench.ids(CREDIT)[0])]
    bench.apply(c.update("A", "verified"))
    next_credit = bench.ids(CREDIT)[-1]
    bench.execute("UPDATE effects SET offered_until = now() + interval '1h' WHERE id = :id", id=next_credit)
    with ThreadPoolExecutor() as both, held(bench, next_mail):
        # When a person retries the newer ones, and a worker reports that the others are done
        person = both.submit(retry, bench, next_mail, next_credit)
        until(lambda: waits_for_a_lock(bench))
        worker = both.submit(end_alone, bench, *filter(None, claims))
        until(lambda: waits_for_a_lock(bench, 2))
    # Then neither waits for the other for ever
    assert [person.exception(), worker.exception()] == [None, None]


@contextmanager
def held(bench: Bench, effect_id: UUID) -> Iterator[Connection]:
    """A transaction that has locked its row."""
    with bench.engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("SELECT FROM effects WHERE id = %s FOR UPDATE", (str(effect_id),))
        yield connection


def test_many_that_go_on_until_all_is_done_keep_the_order(bench: Bench) -> None:
    keys = [mails(bench, 3, user=str(number)) for number in range(4)]
    every = [one for key in keys for one in key]
    bench.mailer.fail_with(*[Transient("451")] * 5)
    before = deadlocks(bench)
    problems: list[BaseException] = []

    def work(mine: Sequence[UUID]) -> None:
        runner = bench.runner
        try:
            while any(bench.row(one).state != "done" for one in every):
                for one in mine:
                    with suppress(TryAgainError, TryFailedError):
                        runner.run(one, MAIL)
                bench.make_due()
        except BaseException as error:  # noqa: BLE001 - it is looked at below
            problems.append(error)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in (every, every[::-1], every[5:])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    sent = told(bench)
    assert [[one for one in sent if one in key] for key in keys] == keys
    assert deadlocks(bench) == before


# --- the relay -------------------------------------------------------------------------------------------


def test_only_the_oldest_of_each_attempt_is_offered_and_only_once(bench: Bench) -> None:
    # Given many attempts with three mails each, as after an outage
    keys = [mails(bench, 3, user=str(number)) for number in range(20)]
    oldest, newer, newest = zip(*keys, strict=True)
    # When the relay looks again and again: then it has offered the oldest ones, once
    assert [offered(bench), offered(bench)] == [list(oldest), []]
    # When their offers expire, and nobody has answered: then no others
    bench.execute("UPDATE effects SET offered_until = now() - interval '1s' WHERE offered_until IS NOT NULL")
    assert offered(bench) == list(oldest)
    # When they are done: then the next ones, and so on
    for following in (newer, newest, ()):
        for one in [one for one in bench.ids(MAIL) if bench.row(one).offered_until is not None]:
            bench.run(one)
        assert offered(bench) == list(following)
    assert [[one for one in told(bench) if one in key] for key in keys] == [list(key) for key in keys]


def test_what_waits_is_looked_at_once_for_each_try_of_the_one_ahead(
    bench: Bench, relay: Relay, dispatcher: FakeDispatcher
) -> None:
    # Given an older one that is due in an hour, and a newer one that is due now
    older, newer = mails(bench)
    fail(bench, older, Transient("451", retry_after_s=3600))
    # When the relay has looked
    relay.offer_once()
    # Then nothing is due, so that it does not look again
    assert relay.offer_once() == relay.poll_s
    with bench.engine.begin() as connection:
        assert find_due(connection, [MAIL]).kinds == []
    assert dispatcher.offers == []
    assert bench.row(newer).due_at == bench.row(older).due_at


def test_what_waits_keeps_nobody_else_from_an_offer(
    bench: Bench, relay: Relay, dispatcher: FakeDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given room for three, and three that wait and have been due for longer than another one
    monkeypatch.setattr(rooms, "MAX_OUTSTANDING", 3)
    blocked = [mails(bench, 2, user=user) for user in "123"]
    for older, _ in blocked:
        fail(bench, older, Transient("451", retry_after_s=3600))
    other, _ = mails(bench, 2, user="4")
    # When the relay looks: then it offers nothing, and looks again soon
    assert relay.offer_once() == module.BUSY_PAUSE_S
    assert dispatcher.offers == []
    # and then it offers the other one
    relay.offer_once()
    assert [offer.id for offer in dispatcher.offers] == [other]


def test_one_that_waits_is_no_probe(bench: Bench, relay: Relay, dispatcher: FakeDispatcher) -> None:
    # Given a mail server that is away, one mail that has never been tried, and several that wait
    keys = [mails(bench, 2, user=str(number)) for number in range(CIRCUIT_FAILURES + 1)]
    for older, _ in keys[:-1]:
        fail(bench, older, Unavailable("421"))
    bench.execute("UPDATE effects SET due_at = now() + interval '1h' WHERE tries > 0")
    bench.execute("UPDATE circuits SET open_until = clock_timestamp()")
    # When the relay offers probes
    relay.offer_once()
    # Then it offers the one that waits for nobody
    assert [offer.id for offer in dispatcher.offers] == [keys[-1][0]]
    # and no other
    relay.offer_once()
    assert len(dispatcher.offers) == 1


def test_the_loop_wakes_when_one_is_freed(bench: Bench, engine: Engine, dispatcher: FakeDispatcher) -> None:
    older, newer = mails(bench)
    claimed = bench.claim(older)
    assert claimed
    waits(bench, newer, older)
    # Given a relay that polls once an hour, and has looked
    with running(Relay(engine, dispatcher, poll_s=3600, offer_ttl_s=60).run):
        while not listening(bench):
            pass
        # When the older one ends
        end_alone(bench, claimed)
        # Then the newer one is offered
        assert dispatcher.on_dispatch.wait(30)
    assert [offer.id for offer in dispatcher.offers] == [newer]


# --- other releases --------------------------------------------------------------------------------------


def test_one_without_a_key_waits_for_nobody(bench: Bench) -> None:
    """As a release wrote it that did not know the keys."""
    older, newer = mails(bench)
    bench.execute("UPDATE effects SET order_key = NULL WHERE id = :id", id=older)
    assert bench.run(newer).endswith("done")
    assert bench.run(older).endswith("done")


def test_the_next_one_is_offered_even_if_nobody_frees_it(bench: Bench) -> None:
    """As after a worker of a release that did not know the keys."""
    older, newer = mails(bench)
    assert bench.claim(older)
    waits(bench, newer, older)
    bench.execute(
        "UPDATE effects SET state = 'done', done_at = now(), lease_until = NULL WHERE id = :id", id=older
    )
    bench.execute(
        "UPDATE effects SET due_at = due_at - :s * interval '1s' WHERE id = :id", s=LEASE_S, id=newer
    )
    assert offered(bench) == [newer]


def test_two_of_a_key_never_run_at_once(bench: Bench) -> None:
    """Whatever a worker asks for: an index forbids it."""
    older, newer = mails(bench)
    assert bench.claim(older)
    with pytest.raises(IntegrityError, match="uq_effects_running_order_key"):
        bench.execute("UPDATE effects SET state = 'running', lease_until = now() WHERE id = :id", id=newer)


# --- what it costs ---------------------------------------------------------------------------------------


def test_an_effect_in_order_costs_no_statement_more(bench: Bench, statements: list[str]) -> None:
    [mail] = mails(bench, 1)
    runner = bench.runner
    statements.clear()
    runner.run(mail, MAIL)
    assert statements[:3] == HEALTHY[:3]
    assert statements[-3:] == HEALTHY[-3:]


def test_several_in_order_cost_as_much_as_one(bench: Bench, statements: list[str]) -> None:
    ids = [mails(bench, 1, user=str(number))[0] for number in range(5)]
    runner = bench.runner
    statements.clear()
    run_together(runner, [(one, MAIL) for one in ids])
    assert [statements.count(one) for one in HEALTHY] == [1, 1, 2, 1, 1, 2]
