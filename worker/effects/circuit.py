"""What the end of a try says about the service, and what that does to its circuit."""

import logging
from enum import Enum, auto

from sqlalchemy import Connection

from db import circuits
from db.effects import Claim, Ended, await_circuit
from worker.errors import Refused, ServiceError, Transient, Unavailable
from worker.rules.retry import CIRCUIT_FAILURES, RetryPolicy, circuit_open_s

logger = logging.getLogger(__name__)


class Change(Enum):
    """Of a circuit."""

    OPENED = auto()
    CLOSED = auto()


def note_answer(connection: Connection, claim: Claim, ended: Ended) -> Change | None:
    """The service has answered. Costs nothing while all is well."""
    if claim.queue in ended.troubled and circuits.close(connection, claim.queue, probe=claim.probe):
        return Change.CLOSED
    return None


def note_error(
    connection: Connection, claim: Claim, ended: Ended, error: ServiceError | None, policy: RetryPolicy
) -> Change | None:
    """The try has failed; `error` is None when that was no error of the service.

    That the service is in trouble (`ended.troubled`) counts for those who end after it in the same transaction.
    """
    if isinstance(error, Unavailable):
        ended.troubled.add(claim.queue)
        return _note_failure(connection, claim, error, policy)
    if isinstance(error, (Transient, Refused)):
        return note_answer(connection, claim, ended)
    if claim.probe:
        circuits.end_probe(connection, claim.queue)
    return None


def _note_failure(
    connection: Connection, claim: Claim, error: Unavailable, policy: RetryPolicy
) -> Change | None:
    failures = circuits.count_failure(connection, claim.queue, probe=claim.probe)
    open_s = failures and circuit_open_s(policy, failures=failures, retry_after_s=error.retry_after_s)
    if open_s:
        circuits.open_for(connection, claim.queue, open_s)
        await_circuit(connection, claim.id, claim.queue)
    return Change.OPENED if failures == CIRCUIT_FAILURES else None


def report(change: Change | None, queue: str) -> None:
    """Say that a circuit has opened or closed, once that is committed."""
    if change is Change.OPENED:
        logger.warning(
            "the service of %s does not answer: its circuit is open, one call at a time probes it", queue
        )
    elif change is Change.CLOSED:
        logger.info("the service of %s answers again: its circuit is closed", queue)
