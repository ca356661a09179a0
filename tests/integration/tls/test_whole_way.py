"""Real processes over TLS on every side: database, broker, LMS and mail."""

from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from tests import engines
from tests.acceptance.harness import Stack
from tests.acceptance.load import load
from tests.acceptance.oracle import assert_nothing_lost_or_doubled
from tests.tls import HOST, Authority, Proxy, verified

SESSIONS = """
SELECT application_name AS name, bool_and(ssl) AS encrypted FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
WHERE datname = current_database() AND application_name LIKE 'invigilator %' GROUP BY 1 ORDER BY 1
"""
LISTENING = """
SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
WHERE datname = current_database() AND query LIKE 'LISTEN %' AND ssl
"""


class TlsStack(Stack):
    """Its processes trust the authority; the test itself looks at the engines without TLS."""

    authority: Authority

    def _environment(self, settings: dict[str, object]) -> dict[str, str]:
        return super()._environment(settings) | {"SSL_CERT_FILE": self.authority.ca}


@pytest.fixture
def urls(request: pytest.FixtureRequest, authority: Authority) -> Iterator[tuple[str, str]]:
    """A broker's URL without TLS and with: RabbitMQ does it itself, Valkey behind a proxy."""
    if request.param == "rabbitmq":
        plain, port = request.getfixturevalue("tls_rabbitmq")
        yield plain, f"amqps://guest:guest@{HOST}:{port}//"
    else:
        plain = request.getfixturevalue("valkey_url")
        with proxied(plain, authority) as proxy:
            yield plain, f"rediss://:{urlsplit(plain).password}@{HOST}:{proxy.port}/0"


def proxied(url: str, authority: Authority) -> Proxy:
    port = urlsplit(url).port
    assert port is not None
    return Proxy(port, authority.server_context())


@pytest.fixture
def stack(tls_database_url: str, urls: tuple[str, str], authority: Authority) -> Iterator[TlsStack]:
    with ExitStack() as resources:
        plain, encrypted = urls
        stack = TlsStack(tls_database_url, plain)
        stack.authority = authority
        resources.enter_context(stack)
        lms, mail = (resources.enter_context(proxied(one.url, authority)) for one in (stack.lms, stack.mail))
        stack.settings |= {
            "DATABASE_URL": verified(tls_database_url, authority),
            "BROKER_URL": encrypted,
            "LMS_URL": f"https://{HOST}:{lms.port}",
            "SMTP_URL": f"smtps://{HOST}:{mail.port}",
        }
        yield stack


@pytest.mark.parametrize("urls", ["valkey", "rabbitmq"], indirect=True)
def test_the_whole_way_is_encrypted(stack: TlsStack, tls_postgres_url: str) -> None:
    stack.start_all()
    stack.client.publish(load(24, learners=6, seed=5))
    stack.settle()

    encrypted = {row.name: row.encrypted for row in stack.rows(SESSIONS)}
    assert all(encrypted.values())
    assert {"invigilator effects", "invigilator relay", "invigilator shard 0"} <= encrypted.keys()
    assert stack.number(LISTENING) == 1
    assert stack.lms.calls
    assert stack.mail.mails
    with engines.fresh_database(tls_postgres_url) as calm:
        assert_nothing_lost_or_doubled(stack, calm)
