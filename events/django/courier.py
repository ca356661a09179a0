"""Sends in a thread what was just committed, so that no request waits for the broker."""

import logging
import os
from threading import Lock, Thread

from django.db import connections

logger = logging.getLogger(__name__)


class Courier:
    """Empties the outbox of one database when it is woken.

    It tries once. What it cannot send waits for the next commit, or for `manage.py publish_commands`.

    Parameters:
        using: the database's alias.
    """

    def __init__(self, using: str) -> None:
        self._using = using
        self._lock = Lock()
        self._is_wanted = False
        self._has_warned = False
        self.is_running = False
        """Whether its thread is at work."""

    def wake(self) -> None:
        """Have the outbox emptied. It does not wait for that."""
        with self._lock:
            self._is_wanted = True
            if self.is_running:
                return
            # A daemon, because a broker that does not answer must not keep the process from ending.
            Thread(target=self._run, name="invigilator-outbox", daemon=True).start()
            self.is_running = True

    def _run(self) -> None:
        while self._is_needed():
            self._send()

    def _is_needed(self) -> bool:
        with self._lock:
            self.is_running, self._is_wanted = self._is_wanted, False
            return self.is_running

    def _send(self) -> None:
        from .sending import reason_of, send_pending

        try:
            send_pending(self._using)
            self._has_warned = False
        except Exception as error:  # noqa: BLE001 - nobody else would tell of it
            if not self._has_warned:
                logger.warning("commands wait in the outbox for `publish_commands`: %s", reason_of(error))
            self._has_warned = True
        finally:
            connections[self._using].close()  # it is this thread's own


_couriers: dict[str, Courier] = {}
os.register_at_fork(after_in_child=_couriers.clear)  # their threads are the parent's


def courier_of(using: str) -> Courier:
    """Return this process's courier for a database.

    Parameters:
        using: the database's alias.
    """
    return _couriers.setdefault(using, Courier(using))
