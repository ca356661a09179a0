"""The TLS parameters of a broker URL."""

import ssl
from pathlib import Path
from typing import Any

import pytest

from events.broker_url import read_broker_url
from events.publisher import Publisher
from events.tls import refused_certificate


def options(url: str) -> dict[str, Any]:
    return read_broker_url(url).ssl


@pytest.mark.parametrize("url", ["redis://:pw@mq:6379/0", "amqp://u:pw@mq//", "sentinel://mq"])
def test_without_tls_there_are_no_options(url: str) -> None:
    assert options(url) == {}


def test_both_check_certificate_and_host_name_by_default() -> None:
    for url in ("rediss://:p%3Fw@mq:6380/1", "sentinels://:p%3Fw@mq:6380/1"):
        assert options(url) == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    # None stands for the name of the host that is connected to
    assert options("amqps://u:pw@mq.example.org//") == {
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": None,
    }


@pytest.mark.parametrize("none", ["none", "CERT_NONE"])
def test_checks_can_be_turned_off(none: str) -> None:
    assert options(f"rediss://mq?ssl_cert_reqs={none}") == {
        "ssl_cert_reqs": ssl.CERT_NONE,
        "ssl_check_hostname": False,
    }
    assert options(f"amqps://mq?ssl_cert_reqs={none}") == {"cert_reqs": ssl.CERT_NONE}
    assert options("amqps://mq?ssl_check_hostname=false") == {"cert_reqs": ssl.CERT_REQUIRED}
    assert options("rediss://mq?ssl_cert_reqs=CERT_REQUIRED")["ssl_cert_reqs"] == ssl.CERT_REQUIRED


def test_the_sentinels_are_asked_as_the_server_is() -> None:
    broker = read_broker_url("sentinels://mq?ssl_check_hostname=false")
    sentinel = broker.sentinel_arguments(10)
    assert {name: value for name, value in sentinel.items() if name.startswith("ssl")} == {
        "ssl": True,
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": False,
    }


def test_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a file.pem"
    file.touch()
    encoded = str(file).replace(" ", "%20")
    files = "&".join(f"{name}={encoded}" for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"))
    assert options(f"amqps://mq//?{files}") == {
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": None,
        "ca_certs": str(file),
        "certfile": str(file),
        "keyfile": str(file),
    }


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis://:s3cret@mq?ssl_cert_reqs=none", "parameters of TLS without TLS"),
        ("rediss://:s3cret@mq?ssl_cert_req=none", "unknown parameter ssl_cert_req;"),
        ("rediss://:s3cret@mq?ssl_cert_reqs=optional", "one of required, CERT_REQUIRED, none, CERT_NONE in"),
        ("rediss://:s3cret@mq?ssl_check_hostname=no", "one of true, false in ssl_check_hostname"),
        ("amqps://u:s3cret@mq?ssl_ca_certs=/nowhere.pem", "names a file in ssl_ca_certs that does not exist"),
        ("amqps://u:s3cret@[mq", "cannot be read"),
    ],
)
def test_what_is_wrong_is_named_without_the_password(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^broker_url .*{complaint}") as wrong:
        Publisher(url, source="/tests")
    assert "s3cret" not in str(wrong.value)


def test_a_refused_certificate_is_found_among_the_causes() -> None:
    refusal = ssl.SSLCertVerificationError(1, "certificate verify failed")
    refusal.verify_message = "it has expired"
    wrapped = OSError()
    wrapped.__context__ = refusal
    outermost = RuntimeError()
    outermost.__cause__ = wrapped
    assert refused_certificate(outermost) == "its certificate is refused: it has expired"
    assert refused_certificate(OSError()) is None
