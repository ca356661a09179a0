"""The reference LMS: an HTTP server in memory that follows the LMS's side of docs/contract.md."""

import json
import random
import threading
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from invigilator.demo.reference.http_server import HttpRequest, HttpResponse, HttpServer
from invigilator.demo.reference.store import FIELDS, Call, Result, Store, Target, is_well_formed

STATE = "/credit/state"


class ReferenceLms(HttpServer):
    """An LMS on a free port of 127.0.0.1, in this process.

    It runs between `start` and `stop`, or in a `with` block. The attributes `fail_fraction`, `latency_s`
    and `token` may be changed while it runs.
    """

    def __init__(
        self, *, fail_fraction: float = 0.0, latency_s: float = 0.0, seed: int = 0, token: str | None = None
    ) -> None:
        """Prepare the server. It does not listen yet.

        Parameters:
            fail_fraction: the fraction of calls (0 to 1) that are answered 503 before anything changes.
            latency_s: seconds that each answer is delayed.
            seed: the seed of the generator that chooses the calls to fail.
            token: if set, a call without it is answered 401.
        """
        super().__init__()
        self.fail_fraction = fail_fraction
        self.latency_s = latency_s
        self.token = token
        self._chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._chance_lock = threading.Lock()
        self._store = Store()

    @property
    def credit(self) -> Mapping[Target, str]:
        """The credit status by (user, course, namespace, name)."""
        return dict(self._store.credit)

    @property
    def deletions(self) -> list[Mapping[str, str | None]]:
        """The bodies of the resets that were carried out, in order."""
        return self._store.deletions

    @property
    def calls(self) -> list[Call]:
        """Every POST that followed the contract, in order."""
        return list(self._store.calls)

    @property
    def counts(self) -> Counter[Result]:
        """The number of calls by result. `counts.total()` is the number of all calls."""
        return Counter(self._store.counts)

    def name_course(self, course_id: str, name: str) -> None:
        """Set the course's name in the credit state. Without a name, a GET of the credit state is answered 404."""
        self._store.course_names[course_id] = name

    def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer a call, after the latency."""
        response = self._problem(request) or self._answer(request)
        self.pause(self.latency_s)
        return response

    def _answer(self, request: HttpRequest) -> HttpResponse:
        return self._state(request) if request.method == "GET" else self._change(request)

    def _state(self, request: HttpRequest) -> HttpResponse:
        """Answer a GET: the credit state of one learner in one course."""
        asked = parse_qs(request.query)
        if request.path != STATE or asked.keys() != {"user_id", "course_id"}:
            return self._refuse(HTTPStatus.NOT_FOUND, "ask /credit/state with user_id and course_id")
        self._store.count(Result.ASKED)
        name = self._store.course_names.get(asked["course_id"][0])
        if name is None:
            return HttpResponse(HTTPStatus.NOT_FOUND, {"error": "no credit state"})
        return HttpResponse(HTTPStatus.OK, {"course_name": name})

    def _change(self, request: HttpRequest) -> HttpResponse:
        """Answer a POST: one of the three calls that change something."""
        path, headers = request.path, request.headers
        if path not in FIELDS or request.query:
            return self._refuse(HTTPStatus.NOT_FOUND, "no such call")
        effect_id, sequence = headers.get("Idempotency-Key"), headers.get("Invigilator-Sequence", "")
        if not effect_id or not sequence.isdecimal():
            return self._refuse(HTTPStatus.BAD_REQUEST, "Idempotency-Key or Invigilator-Sequence is missing")
        fields = _parsed(request.body)
        if not is_well_formed(path, fields):
            return self._refuse(
                HTTPStatus.BAD_REQUEST, "the body must have exactly the fields of the contract"
            )
        self._store.write(path, fields, effect_id, int(sequence))
        return HttpResponse(HTTPStatus.OK, {})

    def _problem(self, request: HttpRequest) -> HttpResponse | None:
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            return self._refuse(HTTPStatus.UNAUTHORIZED, "wrong token")
        with self._chance_lock:
            fails = self._chance.random() < self.fail_fraction
        if not fails:
            return None
        self._store.count(Result.FAILED)
        return HttpResponse(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "down, as asked"})

    def _refuse(self, status: HTTPStatus, why: str) -> HttpResponse:
        self._store.count(Result.REFUSED)
        return HttpResponse(status, {"error": why})


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
