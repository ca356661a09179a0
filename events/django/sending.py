"""Publishes what is in the outbox, oldest first, and removes it.

Several processes may do this. One of them holds the lock, and the others find nothing to do. A process that is
killed has published some commands and not removed them: they are published again, with the same ids.

SQLite has no SKIP LOCKED. There two senders would publish a command twice, which is harmless, but not out of order.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connections, transaction

from ..envelope import parse
from ..errors import InvigilatorError
from .config import publisher_of, read_config
from .models import OutboxCommand, SenderLock

logger = logging.getLogger(__name__)

BATCH = 100
"""Commands that are published in one turn."""

PAUSE_S = 0.5
"""Seconds between two looks at an outbox that is empty, or that another process sends."""

PAUSE_AFTER_FAILURE_S = 2.0
"""Seconds until the next try when the broker or the database is away."""


def send_pending(using: str) -> int:
    """Publish all commands that were committed. Return how many.

    Parameters:
        using: the alias of the database.

    Raises:
        InvigilatorError: the broker did not take a command, which stays in the outbox with those behind it.
        ImproperlyConfigured: the setting `INVIGILATOR` is wrong.
    """
    total = 0
    while sent := _send_batch(using):
        total += sent
    return total


def send_until(stopped: Event, using: str) -> None:
    """Publish commands as they are committed. When the broker or the database is away, wait and try again.

    Parameters:
        stopped: when it is set, the batch that is under way is the last one.
        using: the alias of the database.

    Raises:
        ImproperlyConfigured: the setting `INVIGILATOR` is wrong.
    """
    while not stopped.is_set():
        try:
            if not _send_batch(using):
                stopped.wait(PAUSE_S)
        except (InvigilatorError, Error) as error:
            logger.warning("commands wait in the outbox: %s", reason_of(error))
            connections[using].close()
            stopped.wait(PAUSE_AFTER_FAILURE_S)


def reason_of(error: Exception) -> str:
    """Return why commands wait, for the log. What a database says may quote a row, so only its kind is told."""
    return str(error) if isinstance(error, InvigilatorError | ImproperlyConfigured) else type(error).__name__


def _send_batch(using: str) -> int:
    publisher = publisher_of(read_config())
    sent: list[int] = []
    failure: InvigilatorError | None = None
    with _turn(using) as is_ours:
        try:
            for command in _oldest(using) if is_ours else ():
                publisher.publish(parse(bytes(command.body)))
                sent.append(command.pk)
        except InvigilatorError as error:
            failure = error  # raised after the commit, so that what was published before is removed
        OutboxCommand.objects.using(using).filter(pk__in=sent).delete()
    if failure is not None:
        raise failure
    return len(sent)


def _oldest(using: str) -> list[OutboxCommand]:
    return list(OutboxCommand.objects.using(using).order_by("pk")[:BATCH])


@contextmanager
def _turn(using: str) -> Iterator[bool]:
    """Yield whether it is our turn, and hold the lock meanwhile."""
    if not connections[using].features.has_select_for_update_skip_locked:
        yield True  # without a transaction: on SQLite it would keep requests from writing while we publish
        return
    locks = SenderLock.objects.using(using)
    locks.get_or_create(pk=SenderLock.ROW)  # not by the migration: tests of an LMS empty all tables
    with transaction.atomic(using=using, durable=True):
        yield locks.select_for_update(skip_locked=True).first() is not None
