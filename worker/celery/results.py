"""How a task ends, as Celery logs it and Flower shows it: the reason and the ids, whatever came of it.

A try that will be made again is RETRY, one that failed for good FAILURE, an offer that found nothing to do IGNORED,
and SUCCESS says that the other side has it. Celery sends no event for a task that is ignored, which Flower would
show as STARTED for ever. (Its own `task-rejected` would not do: after `task-started` it does not count, seen with
Celery 5.7.)
"""

from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery import Task
from celery.exceptions import Ignore
from celery.worker.request import Request

from worker.effects.action import TryFailedError

IGNORED_EVENT = "task-ignored"
MAX_RESULT_CHARS = 4096


class NothingToDo(Ignore):  # type: ignore[misc]
    """There was nothing to do; the message says why. Celery logs the repr."""

    def __repr__(self) -> str:
        return str(self)


class EffectRequest(Request):  # type: ignore[misc]
    """One message that a worker has taken. `EffectTask.Request` names it, which Celery documents."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """See Celery: what is called when a task was ignored, rejected, is to be retried, or has failed."""
        error = _raised(exc_info)
        if isinstance(error, NothingToDo):
            self.send_event(IGNORED_EVENT, result=str(error))
        if isinstance(error, TryFailedError):
            # Without the traceback, which would say nothing.
            self.send_event("task-failed", exception=str(error), result=str(error))
            send_failed_event = False
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_retry(self, exc_info: Any) -> None:
        """See Celery: what is called when a task is to be retried. It would tell Flower a traceback."""
        reason = str(_raised(exc_info))
        self.send_event("task-retried", exception=reason, result=reason)


class EffectTask(Task):  # type: ignore[misc]
    """A task that runs an effect."""

    Request = EffectRequest
    # A failed try is recorded and shown in Flower; a traceback in the log would add nothing.
    throws = (TryFailedError,)
    resultrepr_maxsize = MAX_RESULT_CHARS


def _raised(exc_info: Any) -> Any:
    error = exc_info.exception
    return error.exc if isinstance(error, ExceptionWithTraceback) else error
