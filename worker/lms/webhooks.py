"""The HTTP adapter for webhooks (Standard Webhooks 1.0; docs/webhooks.md)."""

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from ssl import create_default_context
from uuid import uuid4

from events.cloudevent import Event, as_object
from events.envelope import CONTENT_TYPE
from events.event_types import WebhookTest
from events.webhooks import sign_webhook
from worker import tracing
from worker.errors import Gone, NotCalled, Transient, Unavailable
from worker.lms.guard import Guard
from worker.lms.http_answers import Answer, reason, retry_after_s
from worker.lms.ports import Deadline, Delivery
from worker.lms.streams import BROKEN
from worker.lms.transport import Request, connections, exchange, first_cause
from worker.logs import warn_once
from worker.subscribers import Webhook

BODY_S = 1.0
"""Seconds for the body of an answer. The status says what became of the call, whatever becomes of the body."""

ABOUT_THE_EVENT = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.CONFLICT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)
"""Statuses that say nothing about other events, so they do not count against the endpoint."""


class HttpWebhooks:
    """Sends events to endpoints. Many threads may use it at the same time.

    Each endpoint has connections of its own, because what one may reach another may not.
    """

    def __init__(self, webhooks: Mapping[str, Webhook]) -> None:
        """Connect to nothing yet.

        Parameters:
            webhooks: by the names of their subscribers, such as `webhook.acme`.
        """
        tls = create_default_context() if webhooks else None  # reading the system's authorities takes a while
        self._webhooks = webhooks
        self._definitions = {name: webhook.definition() for name, webhook in webhooks.items()}
        self._pools = {
            name: connections(tls, choose=Guard(webhook.may_reach, f"url and allow_private of {name}"))
            for name, webhook in webhooks.items()
        }

    def send(self, delivery: Delivery, deadline: Deadline) -> None:
        """Send one event, signed with every live secret.

        Parameters:
            deadline: of the whole call: name look-up, connection, request and answer.

        Raises:
            NotCalled: this process does not know the endpoint.
            Gone: the endpoint wants no more events (410).
            Transient: another try may help. Every other answer but 2xx is one, redirects included.
        """
        webhook = self._webhooks.get(delivery.subscriber)
        if webhook is None:
            raise NotCalled(f"{delivery.subscriber} is not in the file of subscriptions of this process")
        if delivery.definition not in (None, self._definitions[delivery.subscriber]):
            warn_once(
                "the file of subscriptions differs",
                subscribers=delivery.subscriber,
                hint="what the relay has stored counts: give every process the same file, and restart the relay",
            )
        deadline.check(delivery.subscriber)
        # The path and the query of the URL are secret.
        attributes = {
            "http.request.method": "POST",
            "server.address": webhook.read_url.host,
            "messaging.message.id": str(delivery.event_id),
        }
        name = f"POST {delivery.subscriber}"
        with tracing.span(name, tracing.Kind.CLIENT, delivery.traceparent, attributes) as span:
            traced = replace(delivery, traceparent=span.traceparent)
            answer = self._answer(webhook, traced, deadline)
            span.note({"http.response.status_code": answer.status})
            if answer.status >= HTTPStatus.BAD_REQUEST:
                span.fail(str(answer.status))
        judge(answer, delivery.subscriber, [webhook.read_url.raw_path.decode(), *webhook.signing_secrets()])

    def _answer(self, webhook: Webhook, delivery: Delivery, deadline: Deadline) -> Answer:
        name = delivery.subscriber
        headers = request_headers(webhook, delivery)
        request = Request.to(webhook.read_url, "POST", headers, delivery.body)
        try:
            return exchange(self._pools[name], request, deadline, name, BODY_S)
        except BROKEN as error:
            # Only the class is shown: the text may quote a header.
            raise Unavailable(f"no answer from {name} ({type(first_cause(error)).__name__})") from None

    def close(self) -> None:
        """Close the connections. No call may be running."""
        for pool in self._pools.values():
            pool.close()


def trial_delivery(webhook: str, source: str) -> Delivery:
    """Return an event for one webhook, by which a person tries it.

    Parameters:
        webhook: the name of its table in the file of subscriptions.
        source: of the events.
    """
    data, now = WebhookTest(webhook=webhook), datetime.now(UTC)
    event = Event(uuid4(), 0, data.event_type, now, None, None, None, data.model_dump())
    document = as_object(event, source)
    del document["sequence"]  # it is not in the log
    return Delivery(f"webhook.{webhook}", event.id, json.dumps(document).encode())


def request_headers(webhook: Webhook, delivery: Delivery) -> dict[str, str]:
    """Return the headers of a delivery that is sent now."""
    secrets = webhook.signing_secrets()
    trace = {} if delivery.traceparent is None else {"traceparent": delivery.traceparent}
    return {
        "Content-Type": CONTENT_TYPE,
        "User-Agent": "invigilator",
        "Accept-Encoding": "identity",  # the bytes that are read then bound the memory of an answer
        **sign_webhook(delivery.body, str(delivery.event_id), int(time.time()), secrets),
        **trace,
    }


def judge(answer: Answer, subscriber: str, secrets: Collection[str] = ()) -> None:
    """Return when the endpoint has taken the event (a 2xx status); raise otherwise.

    Parameters:
        answer: the endpoint's.
        subscriber: its name.
        secrets: what the error must not tell any part of: path and query of the URL, and the signing secrets.

    Raises:
        Gone: it wants no more events.
        Unavailable: other events will most likely fail as well.
        Transient: it does not take this event.
    """
    if 200 <= answer.status <= 299:
        return
    why = reason(answer.body, secrets)
    message = f"{subscriber} answered {answer.status}" + (f" ({why})" if why else "")
    if answer.status == HTTPStatus.GONE:
        raise Gone(message, status=answer.status, reason=why)
    kind = Transient if answer.status in ABOUT_THE_EVENT else Unavailable
    wait_s = retry_after_s(answer.retry_after, datetime.now(UTC))
    raise kind(message, retry_after_s=wait_s, status=answer.status, reason=why)
