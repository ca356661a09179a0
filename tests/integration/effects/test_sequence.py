"""`Invigilator-Sequence`: it never falls for a target, whatever becomes of the database and its clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest
from sqlalchemy import make_url

from tests import sample_commands as c
from tests.engines import disposed, fresh_database
from tests.integration.effects.conftest import Bench
from worker.errors import Transient, TryFailedError
from worker.kinds import EffectKind

AHEAD = 10**12
"""Microseconds: eleven days."""


def owed(bench: Bench, status: str = "submitted") -> UUID:
    """A credit effect of the one target that there is here."""
    if status == "submitted":
        bench.apply(c.course(), c.exam("A"), c.learner(), c.create("A"))
    bench.apply(c.update("A", status))
    return bench.ids(EffectKind.SET_CREDIT_STATUS)[-1]


def tried(bench: Bench, effect_id: UUID, times: int = 1) -> list[int]:
    """The numbers with which an effect called, `times` times; all but the last call fail."""
    for _ in range(times - 1):
        bench.credit.fail_with(Transient("LMS answered 503"))
        with pytest.raises(TryFailedError):
            bench.run(effect_id)
        bench.make_due()
    assert bench.run(effect_id).endswith("done")
    return numbers(bench)[-times:]


def numbers(bench: Bench) -> list[int]:
    """All with which the other side was called, in order."""
    calls = [*bench.credit.calls, *bench.instructor.calls]
    return [call.key.sequence for call in calls if call.key]


def now(bench: Bench) -> int:
    """The database's clock, in microseconds since 1970."""
    with bench.engine.begin() as connection:
        return int(
            connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp()) * 1000000").scalar_one()
        )


@contextmanager
def another(bench_url: str, template: str) -> Iterator[Bench]:
    """A worker on another database of the same server, made from a template."""
    with fresh_database(bench_url, template=template) as url, disposed(url) as engine:
        yield Bench(engine)


@pytest.fixture
def bench(engine: object) -> Bench:
    """Nothing is there yet."""
    return Bench(engine)  # type: ignore[arg-type]


def test_it_is_the_databases_clock(bench: Bench) -> None:
    effect_id = owed(bench)
    before = now(bench)
    [number] = tried(bench, effect_id)
    assert before <= number <= now(bench)
    assert number < 2**53  # what JavaScript can count to


def test_a_restored_database_goes_on_above_what_was_used_since(
    bench: Bench, postgres_url: str, database_url: str
) -> None:
    # Given a backup
    effect_id = owed(bench)
    bench.engine.dispose()  # nobody may be connected to what is copied
    with another(postgres_url, str(make_url(database_url).database)) as restored:
        # and calls after it
        used = tried(bench, effect_id, times=5)
        # When the backup is restored, and the call made again
        again = tried(restored, effect_id, times=2)
    # Then the LMS can tell that it comes later
    assert sorted({*used, *again}) == [*used, *again]


def test_a_new_database_begins_above_what_an_old_one_has_used(bench: Bench, postgres_url: str) -> None:
    used = tried(bench, owed(bench), times=5)
    with another(postgres_url, "template_migrated") as new:
        again = tried(new, owed(new), times=2)
    assert sorted({*used, *again}) == [*used, *again]


def set_clock_back(bench: Bench) -> int:
    """As if every try up to now had been made before the clock was set back. Returns the greatest number."""
    bench.execute("UPDATE tries SET sequence = sequence + :ahead", ahead=AHEAD)
    with bench.engine.begin() as connection:
        return int(connection.exec_driver_sql("SELECT max(sequence) FROM tries").scalar_one())


def test_when_the_clock_is_set_back_it_goes_on_above_the_last_one_of_the_target(bench: Bench) -> None:
    # Given an effect that was tried, and lost by its worker, before the clock was set back
    effect_id = owed(bench)
    assert bench.claim(effect_id)
    bench.expire_leases()
    last = set_clock_back(bench)
    # When it is tried again, and a newer one on its target, and one that brings back what was there before
    used = tried(bench, effect_id, times=3)
    used += tried(bench, owed(bench, "verified"), times=2)
    # Then each number is above all before it
    assert used == [last + number for number in range(1, 6)]


def test_an_effect_that_is_retried_by_a_person_goes_on_above_a_newer_one(bench: Bench) -> None:
    # Given a newer effect that was tried, and then cancelled by a person, before the clock was set back
    older = owed(bench)
    newer = owed(bench, "verified")
    bench.credit.fail_with(Transient("LMS answered 503"))
    with pytest.raises(TryFailedError):
        bench.run(newer)
    bench.execute("UPDATE effects SET state = 'cancelled', dropped_at = now() WHERE id = :id", id=newer)
    last = set_clock_back(bench)
    # When the older one is tried, then it comes after it
    assert tried(bench, older) == [last + 1]


def test_what_has_no_target_goes_on_above_its_own_tries(bench: Bench) -> None:
    owed(bench)
    bench.apply(c.remove("A"))
    [reset] = bench.ids(EffectKind.DELETE_STUDENT_ATTEMPT)
    assert bench.claim(reset)
    bench.expire_leases()
    last = set_clock_back(bench)
    assert bench.run(reset).endswith("done")
    assert numbers(bench) == [last + 1]


def test_another_target_does_not_count(bench: Bench) -> None:
    tried(bench, owed(bench))
    last = set_clock_back(bench)
    bench.apply(c.exam("B"), c.create("B"), c.update("B", "submitted"))
    [number] = tried(bench, bench.ids(EffectKind.SET_CREDIT_STATUS)[-1])
    assert number < last


def test_tries_of_an_older_release_had_smaller_numbers(bench: Bench) -> None:
    effect_id = owed(bench)
    assert bench.claim(effect_id)
    bench.expire_leases()
    bench.execute("UPDATE tries SET sequence = NULL")
    before = now(bench)
    assert tried(bench, effect_id)[0] > before
