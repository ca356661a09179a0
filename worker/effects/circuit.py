"""Opens and closes the circuit of a service, by how the calls to it end."""

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
    """A change of a circuit."""

    queue: str
    is_open: bool
    is_new: bool
    """Whether it was in the other state before."""
    wrong: Misconfigured | None = None
    """The error, if a wrong setting of ours keeps the circuit open."""


def note_answer(connection: Connection, claim: Claim, ended: RecordedTry) -> Change | None:
    """Note that the service has answered. That costs no statement while its circuit has no failures."""
    if claim.queue in ended.failing and circuits.close(connection, claim.queue, probe=claim.probe):
        return Change(claim.queue, is_open=False, is_new=True)
    return None


def note_error(
    connection: Connection, claim: Claim, ended: RecordedTry, error: ServiceError | None, policy: RetryPolicy
) -> Change | None:
    """Note that a try has failed.

    A failure of the service counts at once for the tries that are recorded after it in the same transaction, so
    its queue joins `ended.failing`.

    Parameters:
        error: None if the service did not cause the failure.
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
    # Every call would be refused in the same way, so the first refusal opens the circuit.
    at_least = CIRCUIT_FAILURES if wrong else 1
    failures = circuits.count_failure(
        connection, claim.queue, probe=claim.probe, at_least=at_least, reason=str(error)
    )
    if not failures:
        return None
    open_s = circuit_open_s(policy, failures=failures, retry_after_s=error.retry_after_s)
    if not open_s:
        return None
    circuits.open_for(connection, claim.queue, open_s)
    await_circuit(connection, claim.id, claim.queue)
    return Change(claim.queue, is_open=True, is_new=failures == CIRCUIT_FAILURES, wrong=wrong)


class Reporter:
    """Logs changes of circuits that are committed: new states, and settings that are wrong.

    Each process complains about a wrong setting once, so a process that is started with it complains as well.
    """

    def __init__(self) -> None:
        self._complained: set[str] = set()

    def __call__(self, change: Change) -> None:
        """Log a change if it is news."""
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
