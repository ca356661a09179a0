"""A PostgreSQL that speaks TLS, and an authority that signed nothing."""

from collections.abc import Iterator

import pytest

from tests import engines, tls
from tests.tls import Authority


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signed nothing that is in use."""
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="session")
def tls_postgres_url(authority: Authority) -> Iterator[str]:
    """A PostgreSQL that speaks TLS, with the migrated template: its URL without."""
    with tls.running_tls_postgres(authority) as url:
        yield url


@pytest.fixture
def tls_database_url(tls_postgres_url: str) -> Iterator[str]:
    """A migrated database of the test's own on that server: its URL without TLS."""
    with engines.fresh_database(tls_postgres_url) as url:
        yield url
