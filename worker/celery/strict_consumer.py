"""Lets a Celery worker accept only messages as our relay sends them.

A message says "look at this effect", and no more. Celery would do more with one: hold it in memory until a time
far ahead, send other messages afterwards, run its own tasks that run any other, decompress it, and print one that
it does not understand into the log, with a learner's name. Some malformed messages end the worker (seen with Celery
5.7 and kombu 5.7). So every message is reduced to a task's name, its id, one effect's id and a label, or refused.
"""

import base64
import itertools
import math
from collections.abc import Callable
from typing import Any
from uuid import UUID

import orjson
from celery.worker.consumer import Consumer
from tenacity import retry, retry_if_exception_type, stop_after_attempt

from worker.kinds import QUEUES, EffectKind, task_name
from worker.logs import get_logger
from worker.threads import Turning

logger = get_logger(__name__)

TASKS = [task_name(kind) for kind in EffectKind]  # a list, because a message may name something unhashable
CONTENT_TYPE, CONTENT_ENCODING = "application/json", "utf-8"
MAX_BODY_BYTES = 4096  # ours have some 50
MAX_LABEL_CHARS = 1000
CLOSE_TRIES = 100
EVENTS_PERIOD_S = 0.5  # between two messages to Flower
_delivery_tags = itertools.count()
TURN_S = 1.0
"""Seconds between two turns of the event loop that are noted."""


class Blueprint(Consumer.Blueprint):  # type: ignore[misc]
    """What a consumer starts. See Celery, which makes 28 queues more for tasks with a delay. We have none."""

    default_steps = (
        *(step for step in Consumer.Blueprint.default_steps if "delayed_delivery" not in step),
        "worker.celery.task_events:TaskEvents",
    )


class StrictConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer. `worker_consumer` in celeryconfig.py names it."""

    Blueprint = Blueprint

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.turning = Turning()
        """Whether the event loop turns. It does not while the broker is away."""

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], None]:
        """Return the function that handles each message. See Celery."""
        handle = super().create_task_handler(*arguments, **options)

        def on_message(message: Any) -> None:
            try:
                reduce_message(message)
            except ValueError as error:
                self.refuse(message, str(error))
            else:
                handle(message)

        return on_message

    def register_with_event_loop(self, hub: Any) -> None:
        """Prepare the event loop of a new connection. See Celery."""
        super().register_with_event_loop(hub)
        if self.event_dispatcher:
            # Celery would send from the task's thread once the buffer is full. That thread would then read from the
            # loop's socket.
            self.event_dispatcher.buffer_limit = math.inf
        hub.call_repeatedly(EVENTS_PERIOD_S, self.send_buffered_events)
        hub.call_repeatedly(TURN_S, self.turning.expect)

    def on_send_event_buffered(self) -> None:
        """Do nothing for an event of a task. See Celery, which would send a message for nearly each event."""

    def send_buffered_events(self) -> None:
        """Send Flower the tasks' events since the last time, in one message."""
        if self.event_dispatcher:
            self.event_dispatcher.flush()

    def stop(self) -> None:
        """Stop when the worker ends. See Celery."""
        self.send_buffered_events()
        super().stop()

    @retry(retry=retry_if_exception_type(RuntimeError), stop=stop_after_attempt(CLOSE_TRIES), reraise=True)
    def on_close(self) -> None:
        """Forget the messages of a lost connection. See Celery.

        Celery goes through the tasks in hand while threads end some of them. When the set changes meanwhile, Python
        raises RuntimeError, which would end the worker (seen with Celery 5.7). Doing all of it again does no harm.
        """
        super().on_close()

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Refuse a message that kombu could not open. See Celery."""
        self.refuse(message, f"cannot be opened: {type(exc).__name__}")

    def add_task_queue(self, queue: str, *arguments: Any, **options: Any) -> None:
        """Consume from one more queue, by remote control. See Celery."""
        if queue in QUEUES.values():
            super().add_task_queue(queue, *arguments, **options)
        else:
            # It may be a queue of commands.
            logger.warning("a queue was refused", reason="it is none of effects")

    def refuse(self, message: Any, reason: str) -> None:
        """Reject a message, and log it in one line that quotes nothing of it."""
        stated = (message.delivery_info or {}).get("routing_key")
        queue = stated if stated in QUEUES.values() else "an effects queue"
        logger.warning(
            "a message was discarded",
            queue=queue,
            reason=reason,
            hint="effects are in the database, and none is lost",
        )
        message.reject_log_error(logger, self.connection_errors)


def reduce_message(message: Any) -> None:
    """Rewrite a task's message so that it has only the parts that our relay sends. Its body is then decoded.

    Raises:
        ValueError: our relay cannot have sent it. The text says why, and quotes nothing.
    """
    headers = message.headers
    if not isinstance(headers, dict) or headers.get("task") not in TASKS:
        raise ValueError("it asks for no task of ours")
    task_id = _uuid(headers.get("id"), "it has no id")
    effect_id = _uuid(_argument(message.body), "its argument is no effect's id")
    label = headers.get("argsrepr")
    message.headers = {
        "lang": "py",
        "task": headers["task"],
        "id": task_id,
        "argsrepr": label[:MAX_LABEL_CHARS] if isinstance(label, str) else effect_id,
        "kwargsrepr": "{}",
        "headers": {},  # or Celery goes through the names of all that it knows, to find that there are no others
    }
    message.properties = {}
    message.content_type = message.content_encoding = None  # nothing is left to decode
    message.body = _call(effect_id)


def body_of(effect_id: str) -> bytes:
    """Return the body of a task's message."""
    return orjson.dumps(_call(effect_id))


def _call(effect_id: str) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
    """Celery's arguments, keywords and embedded options."""
    return [effect_id], {}, {}


def read_envelope(raw: str) -> Any:
    """Read kombu's envelope on Redis. Anything else becomes an empty envelope, which `reduce_message` refuses.

    kombu would raise. That ends the worker, and the message has left the list by then.
    """
    try:
        envelope = orjson.loads(raw)  # kombu's own reader makes objects of types that a message names
        _check_body(envelope["body"], envelope["properties"].get("body_encoding"))
        {**envelope["headers"], **envelope["properties"]["delivery_info"]}  # raises unless both are mappings
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        envelope = {"body": "", "headers": {}, "properties": {"delivery_info": {}}}
    envelope["properties"]["delivery_tag"] = str(next(_delivery_tags))  # a sender may use the same one twice
    return envelope


def _check_body(body: str, encoding: object) -> None:
    if encoding == "base64":
        base64.b64decode(body)
    elif encoding in (None, "", "utf-8"):
        body.encode("utf-8")
    else:
        raise ValueError("an encoding that kombu does not know")


def _argument(body: Any) -> object:
    if not isinstance(body, bytes | str) or len(body) > MAX_BODY_BYTES:
        raise ValueError("its body is missing, or too large")
    try:
        (argument,), keywords, _ = orjson.loads(body)
    except (ValueError, TypeError, RecursionError):
        argument, keywords = None, None
    if keywords != {}:
        raise ValueError("its body is not that of a task with one argument")
    return argument


def _uuid(value: object, otherwise: str) -> str:
    try:
        return str(UUID(value))  # type: ignore[arg-type]
    except (ValueError, TypeError, AttributeError):
        raise ValueError(otherwise) from None
