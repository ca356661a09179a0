"""The other side: the reference LMS behind a door of our own, which can fail in every way that we like."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from invigilator.demo.reference import Call, HttpRequest, HttpResponse, HttpServer, ReferenceLms, Result

TOKEN = "acceptance-token"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer given instead of the LMS's own."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    code: str | None = None
    """Why, in the body."""


@dataclass(frozen=True, slots=True)
class Request:
    """A call as it came in; `at` is monotonic, in seconds."""

    path: str
    effect_id: str | None
    body: bytes
    at: float
    traceparent: str | None = None

    @property
    def fields(self) -> Any:
        """What the body says."""
        return json.loads(self.body) if self.body else {}


Script = Callable[[Request], Answer | None]


class Lms(HttpServer):
    """An LMS that can be stopped and started again. What it remembers outlives that."""

    def __init__(self) -> None:
        super().__init__()
        self.reference = ReferenceLms(token=TOKEN)
        self.requests: list[Request] = []
        self.script: Script = lambda _request: None
        """Answers instead of the LMS, or says None."""
        self.latency_s = 0.0
        """Seconds between a call's arrival and the moment when the LMS carries it out."""

    @property
    def calls(self) -> list[Call]:
        """Every call that the LMS has understood, in order."""
        return self.reference.calls

    @property
    def refused(self) -> int:
        """How many calls were not as the contract says."""
        return self.reference.counts[Result.REFUSED]

    def credit(self, user_id: str, course_id: str, content_id: str) -> str | None:
        """What the LMS believes in the end."""
        return self.reference.credit.get((user_id, course_id, "proctored_exam", content_id))

    def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer as the script says, or else as the LMS does."""
        effect_id = request.headers.get("Idempotency-Key")
        traceparent = request.headers.get("traceparent")
        seen = Request(request.path, effect_id, request.body, time.monotonic(), traceparent)
        self.requests.append(seen)
        scripted = self.script(seen)
        self.pause(self.latency_s)
        if scripted is None:
            return self.reference.answer(request)
        return HttpResponse(HTTPStatus(scripted.status), {"code": scripted.code}, scripted.headers)
