"""Totals: whatever happens to effects, they say how many there are and were."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from db import backlog, operators, prune, samples, totals
from db.states import EffectState, TryResult
from tests import sample_commands as c
from tests.counted import DIFFERENCES
from tests.integration.effects.conftest import Bench
from worker.batch_times import BatchTimes
from worker.counting import Counting
from worker.errors import Permanent, Transient, TryAgainError, TryFailedError
from worker.kinds import EffectKind

CREDIT, MAIL = EffectKind.SET_CREDIT_STATUS, EffectKind.SEND_STATUS_EMAIL
SUBMITTED = ("started", "submitted")


@pytest.fixture
def bench(engine: Engine) -> Bench:
    bench = Bench(engine)
    bench.apply(c.course(), c.exam("A"), c.exam("B"), c.learner())
    return bench


def differences(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(DIFFERENCES))]


def by_state(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return backlog.by_state(connection, backlog.by_kind(connection))


def read(engine: Engine, name: str) -> dict[totals.Key, float]:
    with engine.connect() as connection:
        return totals.read(connection, name)


def submit(bench: Bench) -> None:
    bench.apply(c.create("A", taking_as_proctored=True))
    for status in SUBMITTED:
        bench.apply(c.update("A", status))


def test_every_end_of_an_effect_is_counted(bench: Bench) -> None:
    # Given effects that are done, retried, failed, superseded, cancelled and retried by a person
    submit(bench)
    bench.apply(c.update("A", "verified"))
    older, newer = bench.ids(CREDIT)
    bench.credit.fail_with(Transient("busy"), Permanent("no"))
    with pytest.raises(TryAgainError):
        bench.run(newer)
    bench.make_due()
    with pytest.raises(TryFailedError):
        bench.run(newer)
    assert by_state(bench.engine)["failed"] == 1
    bench.run(older)
    mail = bench.ids(MAIL)[0]
    with bench.engine.begin() as connection:
        operators.cancel(connection, [mail])
        operators.retry(connection, [newer])
    bench.run(newer)
    # Then the totals are what the rows say
    assert differences(bench.engine) == []
    states = by_state(bench.engine)
    assert (states["cancelled"], states["failed"], states["superseded"], states["done"]) == (1, 0, 1, 1)
    tries = read(bench.engine, totals.TRIES)
    assert tries[totals.TRIES, CREDIT, TryResult.RETRY] == 1
    assert tries[totals.TRIES, CREDIT, TryResult.FAILED] == 1


def test_a_lost_try_is_counted_when_it_is_found(bench: Bench) -> None:
    submit(bench)
    [mail] = bench.ids(MAIL)
    assert bench.claim(mail) is not None
    bench.expire_leases()
    bench.run(mail)
    assert read(bench.engine, totals.TRIES)[totals.TRIES, MAIL, TryResult.LOST] == 1
    assert differences(bench.engine) == []


def test_pruning_lowers_what_is_kept_and_no_total_of_what_happened(bench: Bench) -> None:
    submit(bench)
    for effect_id in bench.ids():
        bench.run(effect_id)
    happened = read(bench.engine, totals.TRIES) | read(bench.engine, totals.COMMANDS)
    done = by_state(bench.engine)["done"]
    bench.execute(
        "UPDATE effects SET created_at = now() - interval '9 days', done_at = now() - interval '9 days'"
    )
    with bench.engine.begin() as connection:
        before = datetime.now(UTC) - timedelta(days=1)
        removed = prune.remove_effects(connection, before, None).removed.effects
    assert removed > 0
    assert by_state(bench.engine)["done"] == done - removed
    assert read(bench.engine, totals.TRIES) | read(bench.engine, totals.COMMANDS) == happened


def test_a_recount_corrects_what_an_older_release_did_not_count(bench: Bench) -> None:
    # Given effects that were done while nobody counted, and a total of effects that are not there
    submit(bench)
    bench.execute("UPDATE effects SET state = 'done', done_at = now()")
    bench.execute(
        "INSERT INTO totals VALUES ('effects', ARRAY['send_status_email', 'cancelled'], gen_random_uuid(), 5)"
    )
    assert differences(bench.engine) != []
    with bench.engine.connect() as connection:
        totals.recount(connection)
        totals.recount(connection)
    kept = by_state(bench.engine)
    assert (kept["done"], kept["cancelled"]) == (len(bench.ids()), 0)


def test_a_recount_leaves_what_others_count_meanwhile(bench: Bench) -> None:
    submit(bench)
    started, go_on = threading.Event(), threading.Event()
    with bench.engine.connect() as counting, ThreadPoolExecutor(1) as pool:
        # Given a recount that has read, and has not committed
        def run() -> None:
            with bench.engine.begin() as connection:
                connection.exec_driver_sql(
                    "SELECT pg_advisory_xact_lock(%(key)s)", {"key": totals.RECOUNT_LOCK}
                )
                started.set()
                go_on.wait(60)

        holding = pool.submit(run)
        started.wait(60)
        # When another process counts at the same time, then this one leaves it to that one
        totals.recount(counting)
        for effect_id in bench.ids():
            bench.run(effect_id)
        go_on.set()
        holding.result()
    assert [one for one in differences(bench.engine) if one[0] == "effects"] == []  # type: ignore[index]


def test_writers_add_up(engine: Engine) -> None:
    key = (totals.COMMANDS, "applied", "")
    with engine.begin() as connection:
        for _ in range(3):
            totals.add(connection, {key: 2}, uuid4())
    assert read(engine, totals.COMMANDS) == {key: 6}


def test_durations_are_counted_by_bucket(engine: Engine) -> None:
    durations = BatchTimes()
    for seconds in (0.004, 0.005, 0.3, 60.0):
        durations.observe(seconds, 10)
    for _ in range(2):  # the second time there is nothing to add
        with engine.begin() as connection:
            durations.flush(connection)
    assert read(engine, totals.BATCHES) == {
        (totals.BATCHES, "0.005"): 2,
        (totals.BATCHES, "0.5"): 1,
        (totals.BATCHES, "+Inf"): 1,
    }
    assert read(engine, totals.BATCHES_MESSAGES) == {(totals.BATCHES_MESSAGES,): 40}
    assert read(engine, totals.BATCHES_SECONDS)[(totals.BATCHES_SECONDS,)] == pytest.approx(60.309)


def test_samples_tell_how_much_was_done(bench: Bench) -> None:
    counting = Counting(bench.engine)
    submit(bench)
    [mail] = bench.ids(MAIL)
    bench.run(mail)
    counting.sample()
    bench.execute("UPDATE samples SET at = at - interval '5 minutes'")
    for effect_id in bench.ids():
        bench.run(effect_id)
    counting.sample()
    counting.sample()  # of one moment one is kept
    with bench.engine.connect() as connection:
        tries = samples.increases(samples.series(connection, totals.TRIES, timedelta(hours=1)))
        pending = samples.series(connection, samples.PENDING, timedelta(hours=1))
    assert [value for _, value in tries[CREDIT, TryResult.DONE]] == [len(bench.ids(CREDIT))]
    assert all(points[-1][1] == 0 for points in pending.values())


def test_old_samples_are_forgotten(bench: Bench) -> None:
    submit(bench)
    counting = Counting(bench.engine)
    counting.sample()
    bench.execute("UPDATE samples SET at = at - interval '3 days'")
    counting.sample()
    with bench.engine.connect() as connection:
        found = samples.series(connection, samples.PENDING, timedelta(days=9))
    assert {len(points) for points in found.values()} == {1}


def test_the_backlog_names_each_kind_with_its_oldest(bench: Bench) -> None:
    submit(bench)
    bench.execute(
        "UPDATE effects SET created_at = now() - interval '1 hour' WHERE kind = 'send_status_email'"
    )
    with bench.engine.connect() as connection:
        owed = backlog.by_kind(connection)
    mails = owed[MAIL]
    assert (mails.pending, mails.running, mails.failed) == (len(bench.ids(MAIL)), 0, 0)
    assert mails.oldest_s is not None
    assert mails.oldest_s >= 3600
    assert by_state(bench.engine)[EffectState.PENDING] == len(bench.ids())
