"""An LMS, a mail server and a webhook's endpoint with moods: slow, failing, late, forgetful of their answers."""

import asyncio
import random
import threading
import time
from collections import Counter
from http import HTTPStatus

from aiosmtpd.smtp import SMTP, Envelope, Session

from invigilator.demo.reference import HttpRequest, HttpResponse, MailSink, ReferenceLms
from tests.fakes.receiver import Receiver

SLOW_S = 0.4
LATE_S = 2.2
"""Longer than a try may take: the call times out, and is carried out after that."""
SHARE = 0.5
"""The share of the calls that a mood touches."""


class Moods:
    """How somebody feels: `now` is one of their faults in the plan, or None. A mood touches a share of the calls.

    Parameters:
        seed: decides which calls.
    """

    def __init__(self, seed: str) -> None:
        self.now: str | None = None
        self.touched: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._lock = threading.Lock()

    def touch(self) -> str | None:
        """Return the mood that touches a call that has come now."""
        with self._lock:
            mood = self.now if self._chance.random() < SHARE else None
            if mood:
                self.touched[mood] += 1
            return mood


class MoodyLms(ReferenceLms):
    """The reference LMS, with the moods of `lms` in the plan."""

    def __init__(self, token: str, seed: int) -> None:
        super().__init__(token=token, seed=seed)
        self.moods = Moods(f"lms {seed}")
        self.refusals: list[str] = []
        """Calls that are not as the contract says."""

    def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer a POST as the mood says, and a GET as always."""
        if request.method == "GET":
            return super().answer(request)
        mood = self.moods.touch()
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


class MoodyEndpoint(Receiver):
    """A webhook's endpoint, with the moods of `endpoint` in the plan."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.moods = Moods(f"endpoint {seed}")

    def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer as the mood says, or else take the event."""
        mood = self.moods.touch()
        if mood == "failing":
            return HttpResponse(HTTPStatus.SERVICE_UNAVAILABLE, {})
        if mood == "late":
            time.sleep(LATE_S)
        response = super().answer(request)
        if mood == "losing_answers":
            raise ConnectionAbortedError  # hangs up without a word
        return response


class MoodyMailSink(MailSink):
    """The mail sink, with the moods of `mail_server` in the plan."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self.moods = Moods(f"mail {seed}")

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """As the mood says."""
        mood = self.moods.touch()
        if mood is None:
            return await super().handle_DATA(server, session, envelope)
        if mood == "rejecting":
            return "451 4.3.0 try again later"
        if mood == "refusing":
            return "554 5.7.1 no"
        if mood == "losing_answers":
            await super().handle_DATA(server, session, envelope)
        if isinstance(server.transport, asyncio.WriteTransport):
            server.transport.abort()
        return "421 4.3.0 gone"  # nobody hears it
