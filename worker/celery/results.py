"""Makes Celery log and Flower show how a task ended, with the reason and the ids.

A task is SUCCESS when the other side has the effect, RETRY when the try will be made again, FAILURE when it
failed for good, and IGNORED when the offer found nothing to do. Celery sends no event for an ignored task, and
Flower would show it as STARTED for ever; so we send one. Celery's `task-rejected` does not work here, because
Celery 5.7 ignores it after `task-started`.
"""

from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery import Task
from celery.exceptions import Ignore
from celery.worker.request import Request, create_request_cls
from celery.worker.state import task_reserved

from worker.errors import TryFailedError

IGNORED_EVENT = "task-ignored"
MAX_RESULT_CHARS = 4096


class NothingToDo(Ignore):  # type: ignore[misc]
    """There was nothing to do. The message says why. Celery logs the `repr`."""

    def __repr__(self) -> str:
        return str(self)


class EffectRequest(Request):  # type: ignore[misc]
    """One message that a worker has taken. Celery documents that `Task.Request` names its class."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Send events of a task that was ignored, rejected, is to be retried, or has failed. See Celery."""
        error = _raised(exc_info)
        if isinstance(error, NothingToDo):
            self.send_event(IGNORED_EVENT, result=str(error))
        if isinstance(error, TryFailedError):
            # Without the traceback, which says nothing useful.
            self.send_event("task-failed", exception=str(error), result=str(error))
            send_failed_event = False
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_retry(self, exc_info: Any) -> None:
        """Send the event of a task that is to be retried. See Celery, which would send a traceback."""
        reason = str(_raised(exc_info))
        self.send_event("task-retried", exception=reason, result=reason)


def strategy(task: Any, app: Any, consumer: Any, **_: Any) -> Callable[..., None]:
    """Return what hands the messages of a task to the pool. `Task.Strategy` names it.

    Celery's own would decode each message twice more, and look for what `worker.celery.strict_consumer` has taken
    out: a time to run at, an expiry, older forms of messages.
    """
    eventer = consumer.event_dispatcher
    request_class = create_request_cls(
        EffectRequest, task, consumer.pool, consumer.hostname, eventer, app=app
    )
    revoked = consumer.controller.state.revoked

    def hand_over(message: Any, _: Any, ack: Any, reject: Any, callbacks: Any) -> None:
        request = request_class(
            message,
            on_ack=ack,
            on_reject=reject,
            app=app,
            hostname=consumer.hostname,
            eventer=eventer,
            task=task,
            connection_errors=consumer.connection_errors,
            body=message.body,
            headers=message.headers,
            decoded=True,
        )
        if request.id in revoked and request.revoked():
            return
        request.send_event(
            "task-received", name=request.name, args=request.argsrepr, kwargs=request.kwargsrepr, retries=0
        )
        task_reserved(request)
        for callback in callbacks:
            callback(request)
        consumer.on_task_request(request)

    return hand_over


class EffectTask(Task):  # type: ignore[misc]
    """A task that runs an effect."""

    Request = EffectRequest
    Strategy = f"{__name__}:{strategy.__name__}"
    # A failed try is recorded and shown in Flower; a traceback in the log would add nothing.
    throws = (TryFailedError,)
    resultrepr_maxsize = MAX_RESULT_CHARS


def _raised(exc_info: Any) -> Any:
    error = exc_info.exception
    return error.exc if isinstance(error, ExceptionWithTraceback) else error
