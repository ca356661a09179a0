"""Both brokers over TLS: who is believed, and that nothing is said to anybody else."""

import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from events import publisher as publisher_module
from events.broker_url import Kind
from invigilator.local.server import free_port
from tests.tls import HOST, PATIENCE_S, Authority, Proxy
from tests.waysin import QUEUE, celery_on, every_refusal, every_way_in
from worker.celery.dispatcher import CeleryDispatcher
from worker.commands.sources import BrokerAwayError
from worker.commands.sources.brokers import BROKERS, queued
from worker.errors import ConfigurationError, Transient
from worker.settings import load


@dataclass(frozen=True)
class Broker:
    """A broker behind TLS."""

    plain_url: str
    port: int

    def url(self, *, host: str = HOST, **parameters: str) -> str:
        plain = urlsplit(self.plain_url)
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"{plain.scheme}s://{plain.username}:{plain.password}@{host}:{self.port}{plain.path}?{query}"


@dataclass(frozen=True)
class Overheard(Broker):
    """A broker behind a proxy that ends the TLS."""

    proxy: Proxy


@contextmanager
def overheard(plain_url: str, tls: ssl.SSLContext) -> Iterator[Overheard]:
    with Proxy(port_of(plain_url), tls) as proxy:
        yield Overheard(plain_url, proxy.port, proxy)


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


@pytest.fixture
def valkey(valkey_url: str, authority: Authority) -> Iterator[Overheard]:
    with overheard(valkey_url, authority.server_context()) as broker:
        yield broker


@pytest.fixture
def rabbitmq_overheard(tls_rabbitmq: tuple[str, int], authority: Authority) -> Iterator[Overheard]:
    with overheard(tls_rabbitmq[0], authority.server_context()) as broker:
        yield broker


@pytest.fixture
def rabbitmq(tls_rabbitmq: tuple[str, int]) -> Broker:
    return Broker(*tls_rabbitmq)


@pytest.fixture(params=["valkey", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Broker:
    broker: Broker = request.getfixturevalue(request.param)
    return broker


@pytest.fixture(params=["valkey", "rabbitmq_overheard"])
def impostor(request: pytest.FixtureRequest) -> Overheard:
    """A broker whose certificate does not match the URL that a test makes of it."""
    broker: Overheard = request.getfixturevalue(request.param)
    return broker


@pytest.fixture
def system_trusts(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", authority.ca)


@pytest.mark.usefixtures("system_trusts")
def test_the_systems_authorities_are_believed(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    every_way_in(broker.url(), monkeypatch)


def test_an_authority_named_in_the_url_is_believed(
    broker: Broker, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    every_way_in(broker.url(ssl_ca_certs=authority.ca), monkeypatch)


def test_nothing_is_checked_when_the_url_says_so(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    every_way_in(broker.url(host="127.0.0.1", ssl_cert_reqs="none"), monkeypatch)


def test_the_host_name_alone_may_go_unchecked(
    broker: Broker, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = {"ssl_ca_certs": authority.ca, "ssl_check_hostname": "false"}
    every_way_in(broker.url(host="127.0.0.1", **parameters), monkeypatch)


def test_the_name_is_that_of_the_node_that_answers(
    rabbitmq: Broker, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two nodes, of which the first is away, and a certificate that is good for one of their names
    away = free_port()
    url = rabbitmq.url(ssl_ca_certs=authority.ca)
    address = f"@{HOST}:{rabbitmq.port}"
    assert address in url
    # Then it is taken from the one of that name
    every_way_in(url.replace(address, f"@127.0.0.1:{away},{HOST}:{rabbitmq.port}"), monkeypatch)
    # And from no other one, whatever the first one's name
    other = url.replace(address, f"@{HOST}:{away},127.0.0.1:{rabbitmq.port}")
    refused_everywhere(other, "IP address mismatch, certificate is not valid for '127.0.0.1'", monkeypatch)


def refused_everywhere(url: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way in says in one line, without the password, what is wrong."""
    monkeypatch.setitem(publisher_module.RETRIES, "max_retries", 1)
    for line in every_refusal(url, monkeypatch):
        assert reason in line
        assert f":{urlsplit(url).password}" not in line
        assert "\n" not in line


def test_another_authority_is_refused_before_anything_is_said(
    impostor: Overheard, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused_everywhere(impostor.url(), "unable to get local issuer certificate", monkeypatch)
    assert impostor.proxy.heard == b""


@pytest.mark.usefixtures("system_trusts")
def test_another_host_is_refused_before_anything_is_said(
    impostor: Overheard, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = impostor.url(host="127.0.0.1")
    refused_everywhere(url, "IP address mismatch, certificate is not valid for '127.0.0.1'", monkeypatch)
    assert impostor.proxy.heard == b""


@pytest.mark.usefixtures("system_trusts")
def test_a_broker_that_asks_is_shown_our_certificate(
    valkey_url: str, tls_rabbitmq: tuple[str, int], authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    for plain_url in (valkey_url, tls_rabbitmq[0]):
        with overheard(plain_url, authority.server_context(asks_clients=True)) as broker:
            with pytest.raises(BrokerAwayError):
                queued(broker.url(), 1)
            ours = {"ssl_certfile": authority.certificate, "ssl_keyfile": authority.key}
            every_way_in(broker.url(**ours), monkeypatch)


def test_the_password_is_heard_when_the_certificate_is_right(
    impostor: Overheard, authority: Authority
) -> None:
    """What the tests above would see if anything were said."""
    queued(impostor.url(ssl_ca_certs=authority.ca), 1)
    assert (urlsplit(impostor.plain_url).password or "").encode() in impostor.proxy.heard


def test_a_frozen_rabbitmq_holds_nobody(
    tls_rabbitmq: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a connection that is in use
    with (
        ThreadPoolExecutor() as threads,
        Proxy(port_of(tls_rabbitmq[0])) as proxy,
        celery_on(f"amqp://guest:guest@127.0.0.1:{proxy.port}//", monkeypatch) as app,
    ):
        app.conf.broker_transport_options |= dict.fromkeys(BROKERS[Kind.AMQP].celery_options, 1)
        dispatcher = CeleryDispatcher(app)
        dispatcher.queue_length(QUEUE)
        # When nobody answers any more
        proxy.freeze()
        # Then the relay hears of it, instead of waiting for ever
        with pytest.raises(Transient, match="the broker is away: "):
            threads.submit(dispatcher.queue_length, QUEUE).result(PATIENCE_S)


# Settings


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("rediss://:s3cret@mq/0?ssl_cert_req=none", "has an unknown parameter ssl_cert_req; known are"),
        ("amqps://u:s3cret@mq//?ssl_cert_reqs=perhaps", "must have one of required, "),
        ("amqp://u:s3cret@mq//?ssl_cert_reqs=required", "has parameters of TLS without TLS"),
        ("rediss://:s3cret@mq/0?ssl_ca_certs=/nowhere.pem", "names a file in ssl_ca_certs that does not"),
    ],
)
def test_a_wrong_parameter_is_named_at_the_start(
    url: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", url)
    with pytest.raises(ConfigurationError, match=f"^INVIGILATOR_BROKER_URL {complaint}") as wrong:
        load()
    assert "s3cret" not in str(wrong.value)
