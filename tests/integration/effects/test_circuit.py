"""The circuit of a service: when it opens, who probes, what closes it, and in which order the rest follows."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, event, select
from structlog.typing import EventDict

from db import offers
from db.models import Circuit, Effect
from db.prepared import SESSION_SETTINGS
from tests import engines
from tests import sample_commands as c
from tests.integration.effects.conftest import LEASE_S, Bench, run_together
from tests.integration.effects.test_relay import FakeDispatcher, owed
from tests.loops import running
from tests.roundtrips import counted
from worker.effects.relay import Relay
from worker.errors import (
    Crowded,
    Misconfigured,
    NotCalled,
    Permanent,
    Refused,
    ServiceError,
    Transient,
    TryFailedError,
    Unavailable,
)
from worker.kinds import QUEUES, EffectKind
from worker.rules.retry import CIRCUIT_FAILURES

CREDIT = QUEUES[EffectKind.SET_CREDIT_STATUS]
EMAIL = QUEUES[EffectKind.SEND_STATUS_EMAIL]
DOWN = Unavailable("LMS answered 503")
WRONG_TOKEN = Misconfigured("LMS answered 401", setting="INVIGILATOR_LMS_TOKEN")
PROBES = 8


def circuit(bench: Bench, queue: str = CREDIT) -> Any:
    """(failures, is open, may be probed), or None without a row."""
    with bench.engine.begin() as connection:
        row = connection.exec_driver_sql(
            "SELECT failures, open_until IS NOT NULL, open_until <= clock_timestamp() FROM circuits "
            "WHERE queue = %s",
            (queue,),
        ).one_or_none()
    return None if row is None else tuple(row)


def circuits_of(bench: Bench) -> Sequence[Any]:
    with bench.engine.begin() as connection:
        return connection.execute(select(Circuit.__table__)).all()


def fail(bench: Bench, *effect_ids: UUID, error: ServiceError = DOWN) -> None:
    """Each is tried once, and fails."""
    for effect_id in effect_ids:
        bench.credit.fail_with(error)
        with pytest.raises(TryFailedError):
            bench.run(effect_id)


def opened(bench: Bench, more: int = 1) -> list[UUID]:
    """The circuit of the credit service is open; returns `more` effects that were never tried, oldest first."""
    ids = owed(bench, CIRCUIT_FAILURES + more)
    fail(bench, *ids[:CIRCUIT_FAILURES])
    bench.execute("UPDATE effects SET due_at = now() + interval '1h' WHERE tries > 0")
    return ids[CIRCUIT_FAILURES:]


def let_probe(bench: Bench) -> None:
    """As if the circuit had been open for long enough."""
    bench.execute("UPDATE circuits SET open_until = clock_timestamp() WHERE open_until IS NOT NULL")


def relay(engine: Engine, dispatcher: FakeDispatcher, poll_s: float = 60) -> Relay:
    return Relay(engine, dispatcher, poll_s=poll_s, offer_ttl_s=60)


def offered(bench: Bench, queue: str = CREDIT) -> list[UUID]:
    """What a look of the relay offers."""
    dispatcher = FakeDispatcher()
    relay(bench.engine, dispatcher).offer_once()
    return [offer.id for offer in dispatcher.offers if QUEUES[offer.kind] == queue]


def calls(bench: Bench) -> list[UUID]:
    """The effects that called the credit service, in order."""
    return [call.key.effect_id for call in bench.credit.calls if call.key]


# --- opening ---------------------------------------------------------------------------------------------


def test_it_opens_after_so_many_failures_in_a_row(bench: Bench, logged: list[EventDict]) -> None:
    ids = owed(bench, CIRCUIT_FAILURES)
    fail(bench, *ids[:-1])
    assert circuit(bench) == (CIRCUIT_FAILURES - 1, False, None)
    assert warnings(logged) == []
    fail(bench, ids[-1])
    assert circuit(bench) == (CIRCUIT_FAILURES, True, False)
    [warning] = warnings(logged)
    assert (warning["event"], warning["queue"], warning["circuit"]) == ("try failed for now", CREDIT, "open")
    assert warning["effect"] == ids[-1]


def test_it_keeps_what_the_last_failure_said(bench: Bench) -> None:
    ids = owed(bench, 2)
    for effect_id, error in zip(ids, (DOWN, Unavailable("LMS answered 502")), strict=True):
        fail(bench, effect_id, error=error)
        assert [one.reason for one in circuits_of(bench)] == [str(error)]


def test_an_answer_in_between_starts_the_count_anew(bench: Bench) -> None:
    ids = owed(bench, 2 * CIRCUIT_FAILURES)
    fail(bench, *ids[: CIRCUIT_FAILURES - 1])
    assert bench.run(ids[-1]).endswith("done")
    assert circuit(bench) is None
    fail(bench, *ids[CIRCUIT_FAILURES - 1 : 2 * CIRCUIT_FAILURES - 2])
    assert circuit(bench) == (CIRCUIT_FAILURES - 1, False, None)


def test_while_it_is_open_nothing_is_offered_claimed_or_counted(bench: Bench) -> None:
    # Given an open circuit, and an effect that was offered before
    [effect_id] = opened(bench)
    bench.execute("UPDATE effects SET offered_until = now() + interval '1h' WHERE id = :id", id=effect_id)
    called = len(bench.credit.calls)
    # When a worker comes to it
    assert bench.run(effect_id).startswith("circuit open since 20")
    # Then no try was made of it, and it waits for the circuit and for no offer
    row = bench.row(effect_id)
    assert (row.state, row.tries, row.offered_until, row.retrying_since) == ("pending", 0, None, None)
    assert len(bench.credit.calls) == called
    bench.make_due()
    assert offered(bench) == []


def test_a_lost_effect_waits_for_the_circuit_too(bench: Bench) -> None:
    [effect_id, *_] = ids = owed(bench, CIRCUIT_FAILURES + 1)
    bench.claim(effect_id)
    fail(bench, *ids[1:])
    bench.execute(
        "UPDATE effects SET lease_until = now() - interval '1s', offered_until = now() + interval '1h' "
        "WHERE state = 'running'"
    )
    assert bench.run(effect_id).startswith("circuit open since 20")
    assert bench.row(effect_id).offered_until is None
    bench.execute("UPDATE effects SET due_at = now() + interval '1h' WHERE state = 'pending'")
    let_probe(bench)
    assert offered(bench) == [effect_id]


def test_other_services_go_on(bench: Bench) -> None:
    opened(bench)
    bench.apply(c.create("B", "42", taking_as_proctored=True), c.update("B", "submitted", "42"))
    [mail] = bench.ids(EffectKind.SEND_STATUS_EMAIL)
    assert offered(bench, EMAIL) == [mail]
    assert bench.run(mail).endswith("done")
    assert circuit(bench) == (CIRCUIT_FAILURES, True, False)


@pytest.mark.parametrize(
    "error",
    [
        Transient("the mail server refused the recipient for now (451)"),
        Refused("LMS answered 404"),
        Permanent("the effect's payload has no status"),
        NotCalled("LMS answered 503 to GET /credit/state"),
        Crowded("the mail server refused the conversation for now (421)", others=3),
        ZeroDivisionError(),
    ],
    ids=["greylisting", "refused", "never asked", "not called", "crowded", "unexpected"],
)
def test_what_is_no_failure_of_the_service_does_not_count(bench: Bench, error: ServiceError) -> None:
    fail(bench, *owed(bench, 2 * CIRCUIT_FAILURES), error=error)
    assert circuit(bench) is None


def test_a_service_is_left_alone_for_as_long_as_it_asks(bench: Bench) -> None:
    ids = owed(bench, CIRCUIT_FAILURES)
    fail(bench, *ids, error=Unavailable("LMS answered 429", retry_after_s=1000))
    with bench.engine.begin() as connection:
        left = connection.exec_driver_sql(
            "SELECT extract(epoch FROM open_until - clock_timestamp()) FROM circuits"
        ).scalar_one()
    assert 900 < left <= 1000


def test_a_call_that_began_before_it_opened_says_nothing_new(bench: Bench) -> None:
    # Given calls that began before the circuit opened
    failing, succeeding = None, None

    class Slow(type(bench.credit)):  # type: ignore[misc]
        def set_status(self, *args: Any) -> None:
            if args[2].effect_id in (failing, succeeding):
                bench.credit = fast
                fail(bench, *ids[2:])
                if args[2].effect_id == failing:
                    raise DOWN
                return
            super().set_status(*args)

    fast = bench.credit
    ids = owed(bench, CIRCUIT_FAILURES + 2)
    failing, succeeding = ids[:2]
    for effect_id in (failing, succeeding):
        bench.execute("DELETE FROM circuits")
        bench.make_due()
        bench.credit = Slow()
        # When they end after it
        if effect_id == failing:
            with pytest.raises(TryFailedError):
                bench.run(effect_id)
        else:
            bench.run(effect_id)
        # Then it is as open as before
        assert circuit(bench) == (CIRCUIT_FAILURES, True, False)


# --- settings that are wrong -------------------------------------------------------------------------------


def warnings(logged: list[EventDict]) -> list[EventDict]:
    """All that were given since the last look."""
    given = [line for line in logged if line["log_level"] == "warning"]
    logged.clear()
    return given


def test_a_wrong_setting_opens_it_at_once_and_is_named(bench: Bench, logged: list[EventDict]) -> None:
    refused, other = owed(bench, 2)
    fail(bench, refused, error=WRONG_TOKEN)
    # The warning names the service, the reason and the setting
    [warning] = warnings(logged)
    assert (warning["queue"], warning["circuit"], warning["reason"]) == (CREDIT, "open", "LMS answered 401")
    assert warning["hint"] == "check INVIGILATOR_LMS_TOKEN; one call at a time probes the service"
    # Nobody else need try, and the effect itself is tried again
    assert circuit(bench) == (CIRCUIT_FAILURES, True, False)
    assert bench.run(other).startswith("circuit open since ")
    assert (bench.row(refused).state, bench.row(refused).tries) == ("pending", 1)
    assert bench.tries(refused) == [(1, "retry", "LMS answered 401")]


def test_a_wrong_setting_is_named_when_the_service_was_away_before(
    bench: Bench, logged: list[EventDict]
) -> None:
    # Given a service that does not answer
    first, second, third = opened(bench, 3)
    runner = bench.runner
    warnings(logged)

    def probe(effect_id: UUID) -> None:
        let_probe(bench)
        bench.credit.fail_with(WRONG_TOKEN)
        with pytest.raises(TryFailedError):
            runner.run(effect_id, EffectKind.SET_CREDIT_STATUS)

    # When it comes back, and does not know our token any more
    probe(first)
    assert [line for line in warnings(logged) if "INVIGILATOR_LMS_TOKEN" in line["hint"]]
    # Then that is said once
    probe(second)
    assert warnings(logged) == []
    # by each process
    runner = bench.runner
    probe(third)
    assert [line for line in warnings(logged) if "INVIGILATOR_LMS_TOKEN" in line["hint"]]
    # until it is mended
    let_probe(bench)
    bench.make_due()
    assert str(runner.run(third, EffectKind.SET_CREDIT_STATUS)).startswith("credit submitted")
    bench.credit.fail_with(WRONG_TOKEN)
    with pytest.raises(TryFailedError):
        runner.run(second, EffectKind.SET_CREDIT_STATUS)
    assert [line for line in warnings(logged) if "INVIGILATOR_LMS_TOKEN" in line["hint"]]


def test_a_wrong_setting_counts_for_what_was_wrong_before_it_too(bench: Bench) -> None:
    first, second, third = owed(bench, 3)
    fail(bench, first, second)
    fail(bench, third, error=WRONG_TOKEN)
    assert circuit(bench) == (CIRCUIT_FAILURES, True, False)


# --- probing ---------------------------------------------------------------------------------------------


def test_a_half_open_circuit_is_offered_the_oldest_only(bench: Bench) -> None:
    ids = opened(bench, 3)
    bench.apply(c.remove("A", "0"))  # another kind on the same queue, younger
    let_probe(bench)
    assert offered(bench) == ids[:1]


def test_the_oldest_may_be_of_any_kind_of_the_service(bench: Bench) -> None:
    ids = opened(bench)
    bench.apply(c.remove("A", "0"))
    [removal] = bench.ids(EffectKind.REMOVE_CREDIT_STATUS)
    bench.execute("UPDATE effects SET due_at = now() + interval '1h' WHERE id = :id", id=ids[0])
    let_probe(bench)
    assert offered(bench) == [removal]


def test_a_queue_whose_workers_are_away_is_not_flooded_with_probes(bench: Bench) -> None:
    opened(bench)
    let_probe(bench)
    dispatcher = FakeDispatcher(lengths={CREDIT: 500})
    relay(bench.engine, dispatcher).offer_once()
    assert dispatcher.offers == []


def race(jobs: Sequence[Callable[[], object]]) -> list[object]:
    """Run all of them at once; what they returned or raised."""
    barrier = threading.Barrier(len(jobs))
    results: list[object] = [None] * len(jobs)

    def one(number: int) -> None:
        barrier.wait()
        try:
            results[number] = jobs[number]()
        except Exception as error:  # noqa: BLE001 - handed to the test
            results[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_exactly_one_of_many_probes(bench: Bench) -> None:
    # Given workers that all come at the moment when a probe is allowed
    ids = opened(bench, PROBES)
    let_probe(bench)
    claims = race([lambda one=one: bench.runner.claim(one, EffectKind.SET_CREDIT_STATUS) for one in ids])  # type: ignore[misc]
    # Then one has it, and the tries of the others were not counted
    [probe] = [claim for claim in claims if claim is not None]
    assert probe.probe  # type: ignore[attr-defined]
    rows = [bench.row(one) for one in ids]
    assert sorted((row.state, row.tries) for row in rows) == [("pending", 0)] * (PROBES - 1) + [
        ("running", 1)
    ]
    assert sum(len(bench.tries(one)) for one in ids) == 1
    assert circuit(bench) == (CIRCUIT_FAILURES, True, False)


def test_when_the_prober_dies_another_one_follows_after_its_lease(bench: Bench) -> None:
    first, second = opened(bench, 2)
    let_probe(bench)
    assert bench.claim(first)
    assert bench.run(second).startswith("circuit open since 20")
    with bench.engine.begin() as connection:
        left = connection.exec_driver_sql(
            "SELECT extract(epoch FROM open_until - clock_timestamp()) FROM circuits"
        ).scalar_one()
    assert 0 < left <= LEASE_S
    let_probe(bench)
    bench.expire_leases()
    assert bench.run(second).endswith("done")
    assert circuit(bench) is None


def test_a_probe_that_fails_opens_it_for_longer_without_another_warning(
    bench: Bench, logged: list[EventDict]
) -> None:
    [effect_id] = opened(bench)
    let_probe(bench)
    warnings(logged)
    fail(bench, effect_id)
    assert circuit(bench) == (CIRCUIT_FAILURES + 1, True, False)
    assert [(line["event"], line["log_level"]) for line in logged] == [("try failed for now", "info")]


@pytest.mark.parametrize(
    "error",
    [Permanent("the effect's payload has no status"), NotCalled("no name"), ZeroDivisionError()],
    ids=type,
)
def test_a_probe_that_never_reached_the_service_leaves_it_to_the_next(
    bench: Bench, error: ServiceError
) -> None:
    first, second = opened(bench, 2)
    let_probe(bench)
    fail(bench, first, error=error)
    assert circuit(bench) == (CIRCUIT_FAILURES, True, True)
    assert bench.run(second).endswith("done")


def test_a_probe_that_is_overtaken_leaves_it_to_the_next(bench: Bench) -> None:
    # Given the oldest effect, which a newer one on its target has overtaken
    first, second = opened(bench, 2)
    bench.apply(c.update("A", "verified", str(CIRCUIT_FAILURES)))
    let_probe(bench)
    dispatcher = FakeDispatcher()
    with running(relay(bench.engine, dispatcher, poll_s=3600).run):
        assert dispatcher.on_dispatch.wait(30)
        dispatcher.on_dispatch.clear()
        # When it was to probe, then the relay offers the next one at once
        assert bench.run(first) == "overtaken by a newer effect on its target"
        assert dispatcher.on_dispatch.wait(30)
    assert bench.row(first).state == "superseded"
    assert [offer.id for offer in dispatcher.offers] == [first, second]


# --- closing ---------------------------------------------------------------------------------------------


def test_a_probe_that_succeeds_closes_it_and_wakes_the_relay(bench: Bench, logged: list[EventDict]) -> None:
    # Given a relay that looks once an hour, and has offered the probe
    ids = opened(bench, 4)
    let_probe(bench)
    dispatcher = FakeDispatcher()
    with running(relay(bench.engine, dispatcher, poll_s=3600).run):
        assert dispatcher.on_dispatch.wait(30)
        dispatcher.on_dispatch.clear()
        # When that succeeds
        assert bench.run(ids[0]).endswith("done")
        # Then the rest is offered at once, oldest first
        assert dispatcher.on_dispatch.wait(30)
    assert circuit(bench) is None
    [line] = [one for one in logged if one["event"] == "try done"]
    assert (line["queue"], line["circuit"]) == (CREDIT, "closed")
    assert [offer.id for offer in dispatcher.offers] == ids


@pytest.mark.parametrize(
    "error",
    [Refused("LMS answered 404"), Transient("greylisted (451)"), Crowded("too many (421)", others=3)],
    ids=type,
)
def test_any_answer_of_the_service_closes_it(bench: Bench, error: ServiceError) -> None:
    [effect_id] = opened(bench)
    let_probe(bench)
    fail(bench, effect_id, error=error)
    assert circuit(bench) is None


def test_the_backlog_drains_in_the_order_in_which_it_came_to_be_owed(bench: Bench) -> None:
    # Given a backlog, part of which was already with the workers when the circuit opened
    ids = opened(bench, 30)
    for effect_id in reversed(ids[:10]):
        assert bench.run(effect_id).startswith("circuit open since 20")
    called = len(bench.credit.calls)
    # When the service is back, and a worker does what it is offered
    let_probe(bench)
    while offers := offered(bench):
        for effect_id in offers:
            bench.run(effect_id)
    # Then those that were never tried went in the order in which they came to be owed
    assert [one for one in calls(bench)[called:] if one in ids] == ids


def test_a_poisoned_effect_keeps_nobody_out_for_longer_than_one_opening(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.effects.runner.random.random", lambda: 0.0)
    # Given an effect whose own calls always fail, and that is due again at once
    [poisoned, *others] = owed(bench, 4)
    for _ in range(CIRCUIT_FAILURES):
        fail(bench, poisoned)
    assert circuit(bench) == (CIRCUIT_FAILURES, True, False)
    # When others come to be owed while it is open
    bench.execute("UPDATE effects SET due_at = clock_timestamp() WHERE id != :id", id=poisoned)
    # and then everything is due
    bench.execute("UPDATE circuits SET open_until = open_until - interval '1h'")
    bench.execute("UPDATE effects SET due_at = due_at - interval '1h'")
    # Then one of them is the probe, not the poisoned one
    [probe] = offered(bench)
    assert probe in others
    assert bench.run(probe).endswith("done")
    assert circuit(bench) is None


# --- locks, and what it costs ----------------------------------------------------------------------------


def test_racing_workers_end_without_a_deadlock(bench: Bench) -> None:
    # Given a service that fails and answers by turns, and many threads of two processes that try it at once
    ids = owed(bench, 2 * PROBES)
    bench.retry = type(bench.retry)(0.001, 0.002, 604_800)
    fails = iter([True] * 12 + [True, False] * 1000)
    lock = threading.Lock()

    class Flaky(type(bench.credit)):  # type: ignore[misc]
        def set_status(self, *args: Any) -> None:
            with lock:
                failing = next(fails)
            if failing:
                raise DOWN

    bench.credit = Flaky()
    runners = [bench.runner, bench.runner]

    def work(number: int) -> None:
        runner = runners[number % 2]
        mine = ids[number::PROBES]
        while mine:
            for effect_id in mine:
                with suppress(TryFailedError):
                    runner.run(effect_id, EffectKind.SET_CREDIT_STATUS)
            mine = [one for one in mine if bench.row(one).state != "done"]

    # When they go on until all is done
    before = deadlocks(bench)
    assert race([lambda number=number: work(number) for number in range(PROBES)]) == [None] * PROBES  # type: ignore[misc]
    # Then nobody was in anybody's way
    assert {state for _, state in bench.states()} == {"done"}
    assert deadlocks(bench) == before


def deadlocks(bench: Bench) -> int:
    with bench.engine.begin() as connection:
        connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")
    with bench.engine.begin() as connection:
        query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        return int(connection.exec_driver_sql(query).scalar_one())


@pytest.fixture
def statements(bench: Bench, database_url: str) -> Iterator[list[str]]:
    """The beginning of every statement that is executed from now on, none of them prepared."""
    seen: list[str] = []

    def see(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        seen.append(" ".join(statement.split()[:2]).rstrip(","))

    with engines.disposed(database_url) as bench.engine:
        event.listen(bench.engine, "before_cursor_execute", see)
        event.listen(bench.engine, "commit", lambda _: seen.append("COMMIT"))
        yield seen


HEALTHY = [
    "SELECT coalesce(array_agg(id)",  # the lock
    "WITH seen",  # the claim
    "COMMIT",
    "WITH ended",  # the record
    "WITH freed",  # who waits for the target
    "COMMIT",
]


def test_a_healthy_effect_costs_four_statements_and_nothing_for_the_circuit(
    bench: Bench, statements: list[str]
) -> None:
    [effect_id] = owed(bench)
    runner = bench.runner
    statements.clear()
    runner.run(effect_id, EffectKind.SET_CREDIT_STATUS)
    assert statements == HEALTHY


def test_several_at_once_cost_as_much_as_one(bench: Bench, statements: list[str]) -> None:
    ids = owed(bench, PROBES)
    runner = bench.runner
    statements.clear()
    run_together(runner, [(one, EffectKind.SET_CREDIT_STATUS) for one in ids])
    assert statements == HEALTHY
    assert {state for _, state in bench.states()} == {"done"}


def test_one_and_several_cost_the_same_round_trips(bench: Bench, database_url: str) -> None:
    ids = [(one, EffectKind.SET_CREDIT_STATUS) for one in owed(bench, 2 + PROBES)]
    # As `worker.effects_wiring.effects_engine` makes it
    with counted(database_url, pre_ping=False, session_settings=SESSION_SETTINGS) as (bench.engine, trips):
        run_together(bench.runner, ids[:1])  # connects, and prepares
        for group in (ids[1:2], ids[2:]):
            trips()
            run_together(bench.runner, group)
            # BEGIN, the lock and the claim; COMMIT; BEGIN and the end; who waits for the target, and COMMIT
            assert trips() == 4


def test_a_failure_that_comes_late_does_not_wait_for_the_probes_lease(bench: Bench) -> None:
    # Given a call that began before the circuit opened, and another one that probes
    late, *rest = owed(bench, CIRCUIT_FAILURES + 2)
    claim = bench.claim(late)
    assert claim
    fail(bench, *rest[:CIRCUIT_FAILURES])
    let_probe(bench)
    assert bench.claim(rest[-1])
    # When it fails
    bench.credit.fail_with(DOWN)
    with pytest.raises(TryFailedError):
        bench.runner.run_claimed(claim)
    # Then it is due after its own delay
    assert bench.row(late).due_at < bench.row(rest[-1]).lease_until


def test_what_is_blocked_does_not_keep_the_probe_from_the_others(bench: Bench) -> None:
    # Given a circuit to be probed, and an effect whose worker has died
    lost, *others = owed(bench, 3)
    assert bench.claim(lost)
    bench.apply(c.update("A", "verified", "0"))
    blocked = bench.ids(EffectKind.SET_CREDIT_STATUS)[-1]
    bench.execute("UPDATE effects SET due_at = now() - interval '50s' WHERE id = :id", id=blocked)
    bench.execute("INSERT INTO circuits VALUES (:queue, 9, now())", queue=CREDIT)
    bench.expire_leases()
    # When a newer one on its target is the first to be offered
    assert offered(bench) == [blocked]
    assert bench.run(blocked) == "another has its target, which changes one at a time"
    # Then the others get their turn: nobody waits for what will never come
    assert {offered(bench)[0], offered(bench)[0], offered(bench)[0]} == {lost, *others}


def test_a_locked_effect_does_not_keep_the_probe_from_the_others(bench: Bench) -> None:
    locked, other = opened(bench, more=2)
    let_probe(bench)
    with bench.engine.connect() as connection, connection.begin():
        connection.execute(select(Effect.id).where(Effect.id == locked).with_for_update())
        assert offered(bench) == [other]


def test_who_has_no_target_waits_for_nobody(bench: Bench) -> None:
    # Given two mails that are under way, and a circuit that is open
    for exam in ("A", "B", "C"):
        bench.apply(c.create(exam, taking_as_proctored=True), c.update(exam, "submitted"))
    first, second, third = bench.ids(EffectKind.SEND_STATUS_EMAIL)
    assert bench.claim(first)
    assert bench.claim(second)
    bench.execute("INSERT INTO circuits VALUES (:queue, 5, now() + interval '1h')", queue=EMAIL)
    bench.execute("UPDATE effects SET offered_until = now() + interval '9s' WHERE id = :id", id=third)
    # When the third is looked at
    assert bench.run(third).startswith("circuit open since 20")
    # Then its offer is taken back, until the circuit lets somebody call
    assert bench.row(third).offered_until is None


def test_the_open_circuits_are_listed(bench: Bench) -> None:
    with bench.engine.begin() as connection:
        assert offers.find_due(connection, [EffectKind.SET_CREDIT_STATUS]).opened == {}
    opened(bench)
    with bench.engine.begin() as connection:
        assert offers.find_due(connection, [EffectKind.SET_CREDIT_STATUS]).opened == {CREDIT: False}
    let_probe(bench)
    with bench.engine.begin() as connection:
        assert offers.find_due(connection, [EffectKind.SET_CREDIT_STATUS]).opened == {CREDIT: True}
