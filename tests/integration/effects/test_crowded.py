"""A mail server that takes fewer connections at once than there are threads."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import UUID

import pytest

from tests import sample_commands as c
from tests.fakes.mailer import CrowdedSink
from tests.integration.effects.conftest import Bench
from tests.integration.effects.test_circuit import EMAIL
from worker.effects import slots as module
from worker.errors import TryFailedError
from worker.kinds import EffectKind
from worker.lms.smtp import SmtpMailer
from worker.rules.retry import RetryPolicy

MAIL = EffectKind.SEND_STATUS_EMAIL
THREADS = 16
LIMIT = 3
MAILS = 32


def owed(bench: Bench) -> list[UUID]:
    """A mail for each of many learners."""
    users = [f"u{number}" for number in range(MAILS)]
    bench.apply(*[c.learner(user) for user in users])
    for user in users:
        bench.apply(c.create("A", user, taking_as_proctored=True), c.update("A", "submitted", user))
    return bench.ids(MAIL)


@pytest.mark.parametrize("code", [421, 432])
def test_few_are_refused_and_all_are_sent(bench: Bench, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    bench.retry = RetryPolicy(0.01, 0.01, 3600)
    bench.max_calls = THREADS
    circuits: Counter[bool] = Counter()
    ids = owed(bench)
    with CrowdedSink(LIMIT, latency_s=0.01, code=code) as sink:
        # Given more threads, each with a mail, than the server takes connections
        bench.mailer = SmtpMailer(sink.url, "exams@localhost")  # type: ignore[assignment]
        runner = bench.runner
        together = threading.Barrier(THREADS)

        def work(mine: list[UUID]) -> None:
            together.wait(60)
            for effect_id in mine:
                while bench.row(effect_id).state != "done":
                    with suppress(TryFailedError):
                        runner.run(effect_id, MAIL)
                    circuits[is_open(bench)] += 1

        # When they send them
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, [ids[number::THREADS] for number in range(THREADS)]))
        # Then each is sent once, and the server is never thought to be away
        assert Counter(mail.message_id for mail in sink.mails).total() == MAILS == len(sink.mails)
        assert sink.duplicates == 0
        assert set(circuits) == {False}
        # and it has refused no more than those that came before it was known how many it takes
        results = Counter(result for effect_id in ids for _, result, _ in bench.tries(effect_id))
        assert results == {"done": MAILS, "retry": sink.refused}
        assert sink.refused < 2 * THREADS


def is_open(bench: Bench) -> bool:
    with bench.engine.begin() as connection:
        query = "SELECT count(*) FROM circuits WHERE queue = %s AND open_until IS NOT NULL"
        return bool(connection.exec_driver_sql(query, (EMAIL,)).scalar())
