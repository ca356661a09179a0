"""The limit of calls to one service at once, and what was mended about retries."""

import re
import threading
from contextlib import nullcontext
from typing import Any
from uuid import UUID

import pytest
from structlog.typing import EventDict

from db import operators
from tests import sample_commands as c
from tests.integration.effects.conftest import LEASE_S, Bench
from tests.integration.effects.test_relay import owed
from worker.effects import slots as module
from worker.effects.runner import LOST_TRIES
from worker.errors import Transient, TryFailedError
from worker.kinds import EffectKind
from worker.rules.retry import RetryPolicy

LIMIT = 2
THREADS = 8


class Gate:
    """A credit service whose calls wait until it lets them go, and that counts those that wait at once."""

    def __init__(self, credit: Any) -> None:
        self.credit = credit
        self.inside = 0
        self.most = 0
        self.changed = threading.Condition()
        self.open = False

    def set_status(self, *args: Any) -> None:
        with self.changed:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.open, 60)
            self.inside -= 1
        self.credit.set_status(*args)

    def let_go(self) -> None:
        with self.changed:
            self.open = True
            self.changed.notify_all()


def test_no_more_calls_at_once_than_allowed_and_other_kinds_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given more threads than calls that are allowed, and a service that is slow
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    monkeypatch.setattr(module, "LINE_S", 0.01)
    bench.max_calls = LIMIT
    bench.credit = gate = Gate(bench.credit)  # type: ignore[assignment]
    ids = owed(bench, THREADS)
    bench.apply(c.create("B", "0"), c.update("B", "declined", "0"))
    [cascade] = bench.ids(EffectKind.CASCADE_DECLINE)
    shared = bench.runner
    answers: dict[UUID, str] = {}

    def work(effect_id: UUID) -> None:
        answers[effect_id] = shared.run(effect_id, EffectKind.SET_CREDIT_STATUS).text

    threads = [threading.Thread(target=work, args=(one,)) for one in ids]
    for thread in threads:
        thread.start()
    with gate.changed:
        assert gate.changed.wait_for(lambda: gate.inside == LIMIT, 60)
    # When they have found no slot
    for thread, effect_id in zip(threads, ids, strict=True):
        if bench.row(effect_id).state == "pending":
            thread.join()
    # Then they have not claimed anything, and will be offered again soon
    busy = [one for one, answer in answers.items() if answer == "every slot of the service is taken"]
    assert len(busy) == THREADS - LIMIT
    for effect_id in busy:
        row = bench.row(effect_id)
        assert (row.state, row.tries) == ("pending", 0)
        assert row.offered_until is not None
    # and what calls nobody has its turn
    assert shared.run(cascade, EffectKind.CASCADE_DECLINE).text.endswith("done")
    gate.let_go()
    for thread in threads:
        thread.join()
    assert gate.most == LIMIT
    # and the slots are free again
    for effect_id in busy:
        assert shared.run(effect_id, EffectKind.SET_CREDIT_STATUS).text.endswith("done")


def test_a_failed_call_frees_its_slot(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0)
    bench.max_calls = 1
    first, second = owed(bench, 2)
    shared = bench.runner
    bench.credit.fail_with(Transient("no"))
    with pytest.raises(TryFailedError):
        shared.run(first, EffectKind.SET_CREDIT_STATUS)
    assert shared.run(second, EffectKind.SET_CREDIT_STATUS).text.endswith("done")


@pytest.mark.parametrize("is_served", [True, False])
def test_a_slot_is_free_while_a_success_is_recorded_and_not_a_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, is_served: bool
) -> None:
    """Until a failure is recorded its circuit is not open, and a free slot would have another thread call."""
    monkeypatch.setattr(module, "PATIENCE_S", 0)
    monkeypatch.setattr(module, "LINE_S", 0)
    bench.max_calls = 1
    [effect_id] = owed(bench)
    if not is_served:
        bench.credit.fail_with(Transient("down"))
    shared = bench.runner
    free: list[bool] = []

    def look() -> None:
        with shared.tools.slots.taken(EffectKind.SET_CREDIT_STATUS) as slot:
            free.append(slot is not None)

    shared.claims.on_lead = shared.results.on_lead = look
    with nullcontext() if is_served else pytest.raises(TryFailedError):
        shared.run(effect_id, EffectKind.SET_CREDIT_STATUS)
    assert free == [False, is_served]


def test_a_message_about_another_kind_is_nothing_to_do(bench: Bench) -> None:
    [effect_id] = owed(bench)
    assert (
        bench.runner.run(effect_id, EffectKind.SEND_STATUS_EMAIL).text
        == "it is no send_status_email but a set_credit_status"
    )
    assert bench.row(effect_id).tries == 0


# --- retries ---------------------------------------------------------------------------------------------


def test_a_try_that_always_ends_its_worker_is_given_up(bench: Bench, logged: list[EventDict]) -> None:
    # Given an effect whose workers were never heard of again, for longer than anything is retried
    bench.retry = RetryPolicy(2, 3600, 50)
    [effect_id] = owed(bench)
    for _ in range(LOST_TRIES):
        assert bench.claim(effect_id)
        bench.expire_leases()
    bench.execute("UPDATE effects SET retrying_since = now() - interval '51s'")
    # When it is looked at again
    with pytest.raises(TryFailedError, match="never reported back"):
        bench.run(effect_id)
    # Then it waits for a person, and nothing was called
    row = bench.row(effect_id)
    assert row.state == "failed"
    assert re.fullmatch(r"its worker never reported back \(retried for \d+ s\)", row.last_error)
    assert [result for _, result, _ in bench.tries(effect_id)] == [*["lost"] * LOST_TRIES, "failed"]
    assert bench.credit.calls == []
    lost, failed = (line for line in logged if line["log_level"] == "warning")
    assert (lost["event"], lost["effect"], lost["lost"]) == ("the try before was lost", effect_id, LOST_TRIES)
    assert (failed["event"], failed["effect"], failed["reason"]) == (
        "effect failed",
        effect_id,
        row.last_error,
    )


def test_a_lost_try_is_made_again_while_there_is_time(bench: Bench) -> None:
    [effect_id] = owed(bench)
    assert bench.claim(effect_id)
    bench.expire_leases()
    assert bench.run(effect_id).endswith("try 2: done")


def test_one_lost_try_is_no_reason_to_give_up_however_old_it_is(bench: Bench) -> None:
    # Given a worker that died, and no other one for longer than anything is retried
    bench.retry = RetryPolicy(2, 3600, 50)
    [effect_id] = owed(bench)
    assert bench.claim(effect_id)
    bench.expire_leases()
    bench.execute("UPDATE effects SET retrying_since = now() - interval '51s'")
    assert bench.run(effect_id).endswith("try 2: done")


def test_an_effect_that_was_not_lost_is_tried_however_old_it_is(bench: Bench) -> None:
    bench.retry = RetryPolicy(2, 3600, 50)
    [effect_id] = owed(bench)
    bench.execute("UPDATE effects SET tries = 1, retrying_since = now() - interval '51s'")
    assert bench.run(effect_id).endswith("done")


def test_after_a_persons_retry_delays_start_small_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.effects.runner.random.random", lambda: 0.5)
    # Given an effect that was tried so often that the next delay would be the longest
    [effect_id] = owed(bench)
    bench.execute("UPDATE effects SET tries = 30")
    # When a person retries it, and it fails
    with bench.engine.begin() as connection:
        assert operators.retry(connection, [effect_id]).refused == {}
    bench.credit.fail_with(Transient("LMS answered 503"))
    with pytest.raises(TryFailedError):
        bench.run(effect_id)
    # Then it is due again within the first delay
    row = bench.row(effect_id)
    [(number, _, _)] = bench.tries(effect_id)
    assert (number, row.tries_forgiven) == (31, 30)
    delay_s = (row.due_at - row.retrying_since).total_seconds()
    assert delay_s < LEASE_S
