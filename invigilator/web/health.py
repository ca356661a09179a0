"""Whether the process lives, and whether it can do its work. Nobody signs in, and nothing here is personal."""

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
from invigilator.web.shared_answer import SharedAnswer
from worker.commands.sources.brokers import depths
from worker.health.facts import Asking

KEPT_S = 2.0
"""Seconds for which an answer is given again: whoever asks must not be able to keep engines busy."""
ANSWER_S = 8.0
"""Seconds after which an engine counts as silent. The probes of `deploy/` wait for 10 s."""
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
        self._asking = Asking()
        self._answer = SharedAnswer(self._look)

    async def reasons(self) -> list[str]:
        """Return why calls would fail now. Nothing when they would not.

        One thread looks, for everybody who asks meanwhile. Those who wait hold no thread, and are told after
        `ANSWER_S` which engine is silent.
        """
        try:
            return await self._answer.within(ANSWER_S, KEPT_S)
        except TimeoutError:
            return [f"{self._asking.engine} does not answer"]

    def _look(self) -> list[str]:
        return [reason for reason in (self._of_database(), self._of_broker()) if reason]

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
            with self._asking.the_broker():
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
    async def ready(response: Response) -> Health:
        """Whether calls can be answered. 503 with the reasons when they cannot."""
        reasons = await readiness.reasons()
        if reasons:
            response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        return Health(ready=not reasons, reasons=reasons)

    return router
