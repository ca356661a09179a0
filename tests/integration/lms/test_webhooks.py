"""The HTTP adapter for webhooks against receivers that are right, wrong, rude and slow."""

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import UUID

import httpcore
import pytest
from standardwebhooks import Webhook as Verifier
from structlog.typing import EventDict

from events.webhooks import verify_webhook
from tests.fakes.receiver import OTHER_SECRET, SECRET, Receiver, always
from tests.fakes.servers import drip, serving
from tests.tls import Authority, Proxy
from worker.errors import Gone, Misconfigured, NotCalled, ServiceError, Transient, Unavailable
from worker.lms import webhooks as module
from worker.lms.guard import Guard
from worker.lms.http_answers import Answer
from worker.lms.ports import Deadline, Delivery
from worker.lms.transport import DeadlineBackend
from worker.lms.webhooks import HttpWebhooks, trial_delivery
from worker.subscribers import Webhook

NAME = "webhook.acme"
BODY = json.dumps({"id": str(UUID(int=7)), "data": {"user_id": "4ö"}}, ensure_ascii=False).encode()
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DELIVERY = Delivery(NAME, UUID(int=7), BODY, TRACE)


def soon() -> Deadline:
    return Deadline.after(30)


@contextmanager
def sender(webhook: Webhook) -> Iterator[HttpWebhooks]:
    webhooks = HttpWebhooks({NAME: webhook})
    try:
        yield webhooks
    finally:
        webhooks.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        yield server


def test_an_event_arrives_as_it_is_and_signed_with_every_live_secret(receiver: Receiver) -> None:
    with sender(receiver.webhook(secrets=[OTHER_SECRET, SECRET])) as webhooks:
        webhooks.send(DELIVERY, soon())
    (request,) = receiver.requests
    assert (request.method, request.path, request.query) == ("POST", "/hooks", "token=s3cret")
    assert request.body == BODY
    headers = dict(request.headers.items())
    assert headers["Content-Type"] == "application/cloudevents+json"
    assert (headers["webhook-id"], headers["traceparent"]) == (str(UUID(int=7)), TRACE)
    for secret in (SECRET, OTHER_SECRET):
        assert verify_webhook(request.body, headers, [secret]) == json.loads(BODY)
        assert Verifier(secret).verify(request.body, headers) == json.loads(BODY)


def test_the_event_of_a_trial_is_a_cloud_event(receiver: Receiver) -> None:
    delivery = trial_delivery("acme", "/invigilator/main")
    with sender(receiver.webhook()) as webhooks:
        webhooks.send(delivery, soon())
    (event,) = receiver.events
    assert event.pop("time")
    assert event == {
        "specversion": "1.0",
        "id": str(delivery.event_id),
        "source": "/invigilator/main",
        "type": "exam.webhook.test.v1",
        "datacontenttype": "application/json",
        "data": {"webhook": "acme"},
    }


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_any_2xx_is_done(status: int) -> None:
    module.judge(Answer(status, None, b""), NAME)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (410, Gone),
        *((status, Transient) for status in (400, 409, 413, 422)),
        *((status, Unavailable) for status in (301, 302, 307, 401, 403, 404, 405, 407, 418, 429, 500, 503)),
    ],
)
def test_every_other_answer_is_tried_again(
    receiver: Receiver, status: int, error: type[ServiceError]
) -> None:
    receiver.answers = always(
        status,
        {"code": "no_room", "detail": "ada@example.org"},
        **{"Retry-After": "7", "Location": "http://x/s3cret"},
    )
    with sender(receiver.webhook()) as webhooks, pytest.raises(ServiceError) as caught:
        webhooks.send(DELIVERY, soon())
    assert type(caught.value) is error
    assert str(caught.value) == f"{NAME} answered {status} (no_room)"
    assert isinstance(caught.value, Transient)
    assert caught.value.retry_after_s == (None if error is Gone else 7)
    assert len(receiver.requests) == 1  # nobody follows a redirect


def test_a_process_that_does_not_know_the_webhook_calls_nobody() -> None:
    with pytest.raises(NotCalled, match=f"^{NAME} is not in the file of subscriptions of this process$"):
        HttpWebhooks({}).send(DELIVERY, soon())


def test_another_file_than_that_of_the_relay_is_warned_of(
    receiver: Receiver, logged: list[EventDict]
) -> None:
    webhook = receiver.webhook()
    with sender(webhook) as webhooks:
        webhooks.send(replace(DELIVERY, definition=webhook.definition()), soon())
        assert logged == []
        webhooks.send(replace(DELIVERY, definition=receiver.webhook(order="learner").definition()), soon())
    [line] = logged
    assert (line["event"], line["subscribers"]) == ("the file of subscriptions differs", NAME)


def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/s3cret"
        with (
            sender(Webhook.model_validate({"url": url, "secrets": [SECRET]})) as webhooks,
            pytest.raises(Unavailable, match=rf"^no answer from {NAME} \(ConnectionRefusedError\)$"),
        ):
            webhooks.send(DELIVERY, soon())


@pytest.mark.parametrize("begins", [b"", b"HTTP/1.1 200 OK\r\nX: "])
def test_a_slow_receiver_ends_at_the_deadline(begins: bytes) -> None:
    def slow(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(begins)
        drip(connection, b"", b"x")

    with serving(slow) as server:
        webhook = Webhook.model_validate({"url": f"http://127.0.0.1:{server.port}/", "secrets": [SECRET]})
        with (
            sender(webhook) as webhooks,
            pytest.raises(Unavailable, match=f"^{NAME} took longer than 0.5 s$"),
        ):
            webhooks.send(DELIVERY, Deadline.after(0.5))


def test_nobody_waits_for_the_body_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BODY_S", 0.05)

    def endless(connection: socket.socket) -> None:
        connection.recv(65_536)
        drip(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x")

    deadline = soon()
    with serving(endless) as server:
        webhook = Webhook.model_validate({"url": f"http://127.0.0.1:{server.port}/", "secrets": [SECRET]})
        with sender(webhook) as webhooks:
            webhooks.send(DELIVERY, deadline)
    assert deadline.remaining_s()


def test_an_answer_counts_although_its_body_breaks_off() -> None:
    def breaking(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx")

    with serving(breaking) as server:
        webhook = Webhook.model_validate({"url": f"http://127.0.0.1:{server.port}/", "secrets": [SECRET]})
        with sender(webhook) as webhooks:
            webhooks.send(DELIVERY, soon())


# --- the guard -----------------------------------------------------------------------------------------


class Network(httpcore.NetworkBackend):
    """Connects to nothing, and notes where to."""

    def __init__(self, *refusing: str) -> None:
        self.asked: list[str] = []
        self.refusing = refusing

    def connect_tcp(self, host: str, *_: Any, **__: Any) -> httpcore.NetworkStream:
        self.asked.append(host)
        if host in self.refusing:
            raise httpcore.ConnectError
        return httpcore.MockStream([])


def connect(network: Network, webhook: Webhook, *answers: Sequence[str]) -> int:
    """Connect once, with a name server that gives these answers, one after the other. Returns how many it gave."""
    left = list(answers)

    def look_up(host: str, port: int, ends_at: float) -> Sequence[str]:
        return left.pop(0)

    guarded = DeadlineBackend(Guard(webhook.may_reach, "url of acme"), look_up, network)
    guarded.connect_tcp(webhook.read_url.host, 443, soon().ends_at)
    return len(answers) - len(left)


def public(**more: Any) -> Webhook:
    return Webhook.model_validate({"url": "https://acme.example/", "secrets": [SECRET], **more})


def test_a_name_is_resolved_once_and_the_judged_address_is_connected() -> None:
    """The name server answers with another address the second time (DNS rebinding)."""
    network = Network()
    assert connect(network, public(), ["203.0.114.7"], ["127.0.0.1"]) == 1
    assert network.asked == ["203.0.114.7"]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "fe80::1%lo",
    ],
)
def test_a_name_that_leads_to_a_private_address_is_not_connected(address: str) -> None:
    network = Network()
    with pytest.raises(Misconfigured, match=r"^the URL leads to a private or reserved address$") as caught:
        connect(network, public(), [address])
    assert caught.value.setting == "url of acme"
    assert network.asked == []
    assert connect(network, public(allow_private=True), [address]) == 1
    assert network.asked == [address]


def test_an_address_in_the_url_needs_no_look_up() -> None:
    network = Network()
    assert connect(network, public(url="https://203.0.114.7/")) == 0
    assert connect(network, public(url="https://[2001:4860::8]/")) == 0
    assert network.asked == ["203.0.114.7", "2001:4860::8"]


def test_a_name_server_that_hangs_stops_no_other_webhook(receiver: Receiver, hanging: list[bytes]) -> None:
    webhooks = HttpWebhooks(
        {
            "webhook.dead": public(url="https://dead.test/"),
            "webhook.address": receiver.webhook(),
            "webhook.name": receiver.webhook(url=receiver.url.replace("127.0.0.1", "localhost")),
        }
    )
    try:
        for _ in range(40):  # more than the default executor of a loop has threads
            with pytest.raises(Unavailable, match=r"^webhook\.dead took longer than"):
                webhooks.send(replace(DELIVERY, subscriber="webhook.dead"), Deadline.after(0.05))
        webhooks.send(replace(DELIVERY, subscriber="webhook.address"), soon())
        webhooks.send(replace(DELIVERY, subscriber="webhook.name"), soon())
        assert hanging == [b"dead.test"]
    finally:
        webhooks.close()
    assert len(receiver.events) == 2


def test_of_several_addresses_the_first_that_is_allowed_and_answers_is_taken() -> None:
    network = Network("203.0.114.7")
    connect(network, public(), ["10.0.0.1", "203.0.114.7", "203.0.114.8"])
    assert network.asked == ["203.0.114.7", "203.0.114.8"]
    with pytest.raises(httpcore.ConnectError):
        connect(network, public(), ["203.0.114.7"])


def test_a_url_of_this_machine_leads_nowhere_else() -> None:
    network, local = Network(), public(url="http://localhost:8000/")
    with pytest.raises(Misconfigured):
        connect(network, local, ["203.0.114.7"])
    connect(network, local, ["127.0.0.1"])
    assert local.may_reach(ip_address("::1"))


def test_the_guard_stands_before_every_connection(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = receiver.webhook()
    monkeypatch.setattr(Webhook, "may_reach", lambda *_: False)
    with sender(webhook) as webhooks, pytest.raises(Misconfigured) as caught:
        webhooks.send(DELIVERY, soon())
    assert caught.value.setting == f"url and allow_private of {NAME}"
    assert receiver.requests == []


def test_tls_verifies_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", authority.ca)
    port = int(receiver.url.rpartition(":")[2])
    with Proxy(port, authority.server_context()) as proxy:
        with sender(public(url=f"https://localhost:{proxy.port}/")) as webhooks:
            webhooks.send(DELIVERY, soon())
        with (
            sender(public(url=f"https://127.0.0.1:{proxy.port}/")) as webhooks,
            pytest.raises(Unavailable, match="SSLCertVerificationError"),
        ):
            webhooks.send(DELIVERY, soon())
    assert len(receiver.events) == 1
