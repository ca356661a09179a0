"""A receiver of webhooks that verifies what it gets with the public package, and answers as it is told."""

import threading
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from standardwebhooks import Webhook as Verifier

from invigilator.demo.reference.http_server import HttpRequest, HttpResponse, HttpServer
from worker.subscribers import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"

TAKEN = HttpResponse(HTTPStatus.OK, {})


class Receiver(HttpServer):
    """Keeps every event that it has taken, in the order of arrival."""

    def __init__(self, secret: str = SECRET) -> None:
        super().__init__()
        self.requests: list[HttpRequest] = []
        self.events: list[dict[str, Any]] = []
        self.answers: Callable[[dict[str, Any]], HttpResponse] = lambda _: TAKEN
        self._verifier = Verifier(secret)
        self._lock = threading.Lock()

    def answer(self, request: HttpRequest) -> HttpResponse:
        """Verify, keep and answer. A signature that does not fit raises."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        event = self._verifier.verify(request.body, headers)
        assert headers["webhook-id"] == event["id"]
        response = self.answers(event)
        with self._lock:
            self.requests.append(request)
            if response.status < HTTPStatus.MULTIPLE_CHOICES:
                self.events.append(event)
        return response

    def webhook(self, **more: Any) -> Webhook:
        """Its table in the file of subscriptions."""
        return Webhook.model_validate({"url": f"{self.url}/hooks?token=s3cret", "secrets": [SECRET], **more})

    def copies(self) -> Counter[str]:
        """How often each event has come, by id."""
        return Counter(event["id"] for event in self.events)


def always(status: int, document: object = None, **headers: str) -> Callable[[dict[str, Any]], HttpResponse]:
    """Answer everything in one way."""
    response = HttpResponse(HTTPStatus(status), document or {}, headers)
    return lambda _: response
