"""Sentinels and the server behind them over TLS: both are checked."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from events.sharding import queue_name
from tests.chaos.proxy import proxying
from tests.sentinel import NAME, SENTINEL_PASSWORD, running_sentinel
from tests.tls import HOST, Authority
from tests.waysin import LIMIT, every_way_in
from worker.commands.sources import BrokerAwayError, open_source


@contextmanager
def behind_tls(valkey_url: str, authority: Authority, *, known_as: str) -> Iterator[str]:
    """A Sentinel and its server, both with TLS for us and without for each other: the URL, without a host."""
    tls = authority.server_context()
    password = urlsplit(valkey_url).password or ""
    with proxying(valkey_url, tls) as server:
        port = server.listener.getsockname()[1]
        with (
            running_sentinel(known_as, port, password) as sentinel,
            proxying(f"redis://127.0.0.1:{sentinel}", tls) as front,
        ):
            front_port = front.listener.getsockname()[1]
            yield (
                f"sentinels://:{password}@HOST:{front_port}/2"
                f"?master_name={NAME}&sentinel_password={SENTINEL_PASSWORD}&ssl_ca_certs={authority.ca}"
            )


def test_both_are_believed_by_their_names(
    valkey_url: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with behind_tls(valkey_url, authority, known_as=HOST) as url:
        every_way_in(url.replace("HOST", HOST), monkeypatch)
        # And no Sentinel by another one
        with pytest.raises(BrokerAwayError, match="no Sentinel that answers, and lets us in, knows"):
            open_source(url.replace("HOST", "127.0.0.1"), queue_name(0), LIMIT)


def test_no_server_is_believed_by_another_name(
    valkey_url: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with behind_tls(valkey_url, authority, known_as="127.0.0.1") as url:
        with pytest.raises(BrokerAwayError, match=r"certificate is not valid for '127\.0\.0\.1'"):
            open_source(url.replace("HOST", HOST), queue_name(0), LIMIT)
        unchecked = f"{url.replace('HOST', '127.0.0.1')}&ssl_check_hostname=false"
        every_way_in(unchecked, monkeypatch)
