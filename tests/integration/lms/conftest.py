"""What the tests of several adapters need: an authority that is trusted, and a name server that hangs."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority that the process trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Every look-up of `dead.test` so far. They hang until the test has ended."""
    answers, asked, system = threading.Event(), [], socket.getaddrinfo

    def getaddrinfo(host: str | bytes, *args: Any, **more: Any) -> Any:
        if host != b"dead.test":  # text when it is only asked whether it is an address
            return system(host, *args, **more)
        asked.append(host)
        answers.wait()
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield asked
    answers.set()
