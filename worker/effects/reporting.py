"""Logs how each try has ended, with the ids that lead to everything else."""

import logging
from typing import Any

from db.effects import Claim, TryEnd
from db.states import TryResult
from events.tracing import trace_of
from worker.effects.circuit import Change
from worker.logs import get_logger

logger = get_logger(__name__)

PROBING = "one call at a time probes the service"


def fields(claim: Claim) -> dict[str, Any]:
    """Return what every line about a try says: which one it is, and from which command and attempt it follows."""
    return {
        "effect": claim.id,
        "kind": claim.kind,
        "number": claim.number,
        "queue": claim.queue,
        "source": claim.source,
        "command": claim.command_id,
        "attempt": claim.attempt_code,
        "trace": trace_of(claim.traceparent),
    }


class Reporter:
    """Logs tries whose end is committed, one line each. Safe to share between threads.

    A try that opens the circuit of its service is a warning. Each process complains about a wrong setting once, so
    a process that is started with it complains as well.
    """

    def __init__(self) -> None:
        self._complained: set[str] = set()

    def __call__(self, claim: Claim, end: TryEnd, change: Change | None = None) -> None:
        """Log one try.

        Parameters:
            claim: the try.
            end: how it ended.
            change: of the circuit of its service, if it made one.
        """
        hint = self._hint(claim.queue, change)
        about = fields(claim) | {"reason": end.error, "circuit": _circuit(change), "hint": hint}
        if end.result is TryResult.FAILED:
            logger.warning("effect failed", **about)
        elif end.result is TryResult.RETRY:
            level = logging.INFO if hint is None else logging.WARNING
            logger.log(level, "try failed for now", again_in_s=end.delay_s, **about)
        else:
            logger.info("try done", result=end.result, **about)

    def _hint(self, queue: str, change: Change | None) -> str | None:
        """Say what a person should know of a circuit that is open, if that is news."""
        if change is None:
            return None
        if not change.is_open:
            self._complained.discard(queue)
            return None
        if change.wrong is None:
            return PROBING if change.is_new else None
        is_news = change.is_new or queue not in self._complained
        self._complained.add(queue)
        return f"check {change.wrong.setting}; {PROBING}" if is_news else None


def _circuit(change: Change | None) -> str | None:
    return None if change is None else "open" if change.is_open else "closed"
