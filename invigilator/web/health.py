"""Whether the process lives, and whether it can do its work. Nobody signs in, and nothing here is personal."""

import threading
import time
from http import HTTPStatus

from fastapi import APIRouter, Response
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db.compatibility import compare
from db.connect import limit_statements
from db.errors import UnfitDatabaseError
from events.errors import InvigilatorError
from events.sharding import queue_name
from invigilator.web.documents import Health
from worker.commands.sources.brokers import depths

KEPT_S = 2.0
"""Seconds for which an answer is given again: whoever asks must not be able to keep engines busy."""
STATEMENT_TIMEOUT_S = 5


class Readiness:
    """Finds out what a call would lack.

    Parameters:
        engine: of the database.
        broker_url: of the broker.
    """

    def __init__(self, engine: Engine, broker_url: str) -> None:
        self._engine = engine
        self._broker_url = broker_url
        self._lock = threading.Lock()
        self._looked_at = -KEPT_S
        self._reasons = ["nobody has looked yet"]

    def reasons(self) -> list[str]:
        """Return why calls would fail now. Nothing when they would not.

        It blocks one caller at a time: the others get the last answer.
        """
        if self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._reasons

    def _look(self) -> None:
        if time.monotonic() - self._looked_at >= KEPT_S:
            self._reasons = [reason for reason in (self._of_database(), self._of_broker()) if reason]
            self._looked_at = time.monotonic()

    def _of_database(self) -> str:
        try:
            with self._engine.connect() as connection:
                limit_statements(connection, STATEMENT_TIMEOUT_S)
                return compare(connection).value
        except DBAPIError:
            return "the database does not answer"
        except UnfitDatabaseError as error:
            return str(error)

    def _of_broker(self) -> str:
        try:
            depths(self._broker_url, [queue_name(0)])
        except InvigilatorError:
            return "the broker does not answer"
        return ""


def routes(readiness: Readiness) -> APIRouter:
    """Return the routes of health."""
    router = APIRouter()

    @router.get("/healthz")
    async def alive() -> dict[str, str]:
        """The process lives."""
        return {"status": "ok"}

    @router.get("/readyz", responses={503: {"model": Health}})
    def ready(response: Response) -> Health:
        """Whether calls can be answered. 503 with the reasons when they cannot."""
        reasons = readiness.reasons()
        if reasons:
            response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        return Health(ready=not reasons, reasons=reasons)

    return router
