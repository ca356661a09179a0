"""An LMS and a mail server with moods: slow, failing, refusing, late, and forgetful of their answers."""

import asyncio
import random
import threading
import time
from collections import Counter
from http import HTTPStatus

from aiosmtpd.smtp import SMTP, Envelope, Session

from invigilator.demo.reference import HttpRequest, HttpResponse, MailSink, ReferenceLms

SLOW_S = 0.4
LATE_S = 2.2
"""Longer than a try may take: the call times out, and is carried out after that."""
SHARE = 0.5
"""The share of the calls that a mood touches."""


class MoodyLms(ReferenceLms):
    """The reference LMS; `mood` is one of the faults of `lms` in the plan, or None."""

    def __init__(self, token: str, seed: int) -> None:
        super().__init__(token=token, seed=seed)
        self.mood: str | None = None
        self.touched: Counter[str] = Counter()
        self.refusals: list[str] = []
        """Calls that are not as the contract says."""
        self._moods = random.Random(f"lms {seed}")
        self._moods_lock = threading.Lock()

    def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer a POST as the mood says, and a GET as always."""
        if request.method == "GET":
            return super().answer(request)
        mood = self._touch()
        if mood == "failing":
            return HttpResponse(HTTPStatus.SERVICE_UNAVAILABLE, {})
        if mood == "refusing":
            return HttpResponse(HTTPStatus.UNPROCESSABLE_ENTITY, {})
        if mood in ("slow", "late"):
            time.sleep(SLOW_S if mood == "slow" else LATE_S)
        response = super().answer(request)
        if response.status != HTTPStatus.OK:
            self.refusals.append(f"{response} to {request.path}: {request.body!r}")
        if mood == "losing_answers":
            raise ConnectionAbortedError  # hangs up without a word
        return response

    def _touch(self) -> str | None:
        with self._moods_lock:
            mood = self.mood if self._moods.random() < SHARE else None
            if mood:
                self.touched[mood] += 1
            return mood


class MoodyMailSink(MailSink):
    """The mail sink; `mood` is one of the faults of `mail_server` in the plan, or None."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self.mood: str | None = None
        self.touched: Counter[str] = Counter()
        self._moods = random.Random(f"mail {seed}")

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """As the mood says."""
        mood = self.mood if self._moods.random() < SHARE else None
        if mood is None:
            return await super().handle_DATA(server, session, envelope)
        self.touched[mood] += 1
        if mood == "rejecting":
            return "451 4.3.0 try again later"
        if mood == "refusing":
            return "554 5.7.1 no"
        if mood == "losing_answers":
            await super().handle_DATA(server, session, envelope)
        if isinstance(server.transport, asyncio.WriteTransport):
            server.transport.abort()
        return "421 4.3.0 gone"  # nobody hears it
