"""What the end of a try says about the service, and what that does to its circuit."""

import logging
from dataclasses import dataclass

from sqlalchemy import Connection

from db import circuits
from db.effects import Claim, RecordedTry, await_circuit
from worker.errors import Misconfigured, NotCalled, Refused, ServiceError, Transient, Unavailable
from worker.rules.retry import CIRCUIT_FAILURES, RetryPolicy, circuit_open_s

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """What has become of a circuit."""

    queue: str
    is_open: bool
    is_new: bool
    """Whether it was the other way before."""
    wrong: Misconfigured | None = None
    """What keeps it open, where that is a setting of ours."""


def note_answer(connection: Connection, claim: Claim, ended: RecordedTry) -> Change | None:
    """The service has answered. Costs nothing while all is well."""
    if claim.queue in ended.failing and circuits.close(connection, claim.queue, probe=claim.probe):
        return Change(claim.queue, is_open=False, is_new=True)
    return None


def note_error(
    connection: Connection, claim: Claim, ended: RecordedTry, error: ServiceError | None, policy: RetryPolicy
) -> Change | None:
    """The try has failed; `error` is None when that was no error of the service.

    That the service is in trouble (`ended.failing`) counts for those who end after it in the same transaction.
    """
    if isinstance(error, Unavailable):
        ended.failing.add(claim.queue)
        return _note_failure(connection, claim, error, policy)
    if isinstance(error, (Transient, Refused)) and not isinstance(error, NotCalled):
        return note_answer(connection, claim, ended)
    if claim.probe:
        circuits.end_probe(connection, claim.queue)
    return None


def _note_failure(
    connection: Connection, claim: Claim, error: Unavailable, policy: RetryPolicy
) -> Change | None:
    wrong = error if isinstance(error, Misconfigured) else None
    # Whoever calls next will be told the same: there is nothing to wait for.
    at_least = CIRCUIT_FAILURES if wrong else 1
    failures = circuits.count_failure(connection, claim.queue, probe=claim.probe, at_least=at_least)
    open_s = failures and circuit_open_s(policy, failures=failures, retry_after_s=error.retry_after_s)
    if not open_s:
        return None
    circuits.open_for(connection, claim.queue, open_s)
    await_circuit(connection, claim.id, claim.queue)
    return Change(claim.queue, is_open=True, is_new=failures == CIRCUIT_FAILURES, wrong=wrong)


class Reporter:
    """Says what becomes of circuits, once it is committed: what is new, and what setting is wrong.

    The latter once in each process, so that one that starts with a setting that is still wrong says so, too.
    """

    def __init__(self) -> None:
        self._complained: set[str] = set()

    def __call__(self, change: Change) -> None:
        """Log a change, if that is worth a line."""
        if not change.is_open:
            self._complained.discard(change.queue)
            logger.info("the service of %s answers again: its circuit is closed", change.queue)
        elif change.wrong is not None:
            self._complain(change, change.wrong)
        elif change.is_new:
            logger.warning(
                "the service of %s does not answer: its circuit is open, one call at a time probes it",
                change.queue,
            )

    def _complain(self, change: Change, wrong: Misconfigured) -> None:
        if change.is_new or change.queue not in self._complained:
            self._complained.add(change.queue)
            logger.warning(
                "the service of %s does not accept our settings (%s): check %s; its circuit is open, "
                "one call at a time probes it",
                change.queue,
                wrong,
                wrong.setting,
            )
