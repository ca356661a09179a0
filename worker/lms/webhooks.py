"""The HTTP adapter for webhooks (Standard Webhooks 1.0; docs/webhooks.md)."""

import json
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from ssl import create_default_context
from uuid import uuid4

import anyio
import httpcore

from events.cloudevent import Event, as_object
from events.envelope import CONTENT_TYPE
from events.event_types import WebhookTest
from events.webhooks import sign_webhook
from worker.errors import Gone, NotCalled, Transient, Unavailable
from worker.lms.guard import GuardedNetwork
from worker.lms.http_answers import Answer, reason, retry_after_s
from worker.lms.http_client import MAX_BODY_BYTES, first_cause, within
from worker.lms.loop import LoopThread
from worker.lms.ports import Deadline, Delivery
from worker.logs import warn_once
from worker.subscribers import Webhook

BODY_S = 1.0
"""Seconds for the body of an answer. The status says what became of the call, whatever becomes of the body."""

BROKEN = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError)
"""What a connection that does not work raises."""

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
        self._webhooks = webhooks
        self._start_lock = threading.Lock()
        self._running: _Running | None = None

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
        if delivery.definition not in (None, webhook.definition()):
            warn_once(f"{delivery.subscriber}: this process has another file of subscriptions than the relay")
        deadline.check(delivery.subscriber)
        running = self._started()
        pool = running.pools[delivery.subscriber]
        answer = running.loop.run(_answer(pool, webhook, delivery, deadline))
        judge(answer, delivery.subscriber, [webhook.read_url.raw_path.decode(), *webhook.signing_secrets()])

    def close(self) -> None:
        """Close the connections and end the thread. No call may be running."""
        with self._start_lock:
            if self._running is not None:
                for pool in self._running.pools.values():
                    self._running.loop.run(pool.aclose())
                self._running.loop.close()
                self._running = None

    def _started(self) -> "_Running":
        with self._start_lock:
            if self._running is None:
                tls = create_default_context()
                pools = {
                    name: httpcore.AsyncConnectionPool(
                        ssl_context=tls,
                        max_connections=None,  # as many as there are threads that call
                        keepalive_expiry=5,
                        network_backend=GuardedNetwork(webhook.may_reach, f"url and allow_private of {name}"),
                    )
                    for name, webhook in self._webhooks.items()
                }
                self._running = _Running(LoopThread("webhooks"), pools)
            return self._running


@dataclass(frozen=True, slots=True)
class _Running:
    loop: LoopThread
    pools: Mapping[str, httpcore.AsyncConnectionPool]


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


async def _answer(
    pool: httpcore.AsyncConnectionPool, webhook: Webhook, delivery: Delivery, deadline: Deadline
) -> Answer:
    return await within(deadline, delivery.subscriber, _exchange(pool, webhook, delivery))


async def _exchange(pool: httpcore.AsyncConnectionPool, webhook: Webhook, delivery: Delivery) -> Answer:
    url = webhook.read_url
    target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    headers = [("Host", url.netloc.decode("ascii")), *request_headers(webhook, delivery).items()]
    try:
        async with pool.stream("POST", target, headers=headers, content=delivery.body) as response:
            return await _read(response)
    except BROKEN as error:
        # Only the class is shown: the text may quote a header.
        cause = type(first_cause(error)).__name__
        raise Unavailable(f"no answer from {delivery.subscriber} ({cause})") from None


def request_headers(webhook: Webhook, delivery: Delivery) -> dict[str, str]:
    """Return the headers of a delivery that is sent now."""
    secrets = webhook.signing_secrets()
    trace = {} if delivery.traceparent is None else {"traceparent": delivery.traceparent}
    return {
        "Content-Type": CONTENT_TYPE,
        "User-Agent": "invigilator",
        "Accept-Encoding": "identity",  # MAX_BODY_BYTES then bounds the memory of an answer
        **sign_webhook(delivery.body, str(delivery.event_id), int(time.time()), secrets),
        **trace,
    }


async def _read(response: httpcore.Response) -> Answer:
    body = bytearray()
    with suppress(*BROKEN), anyio.move_on_after(BODY_S):
        async for chunk in response.aiter_stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                break
    headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
    return Answer(response.status, headers.get(b"retry-after"), bytes(body[:MAX_BODY_BYTES]))


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
