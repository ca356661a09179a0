"""What a broker's URL says about TLS."""

import ssl
from pathlib import Path

import pytest

from events.publisher import Publisher
from events.tls import refused_certificate, split_tls


@pytest.mark.parametrize("url", ["redis://:pw@mq:6379/0", "amqp://u:pw@mq//", "memory://"])
def test_without_tls_there_are_no_options(url: str) -> None:
    assert split_tls(url) == (url, {})


def test_both_check_certificate_and_host_name_by_default() -> None:
    assert split_tls("rediss://:p%3Fw@mq:6380/1") == (
        "rediss://:p%3Fw@mq:6380/1",
        {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True},
    )
    assert split_tls("amqps://u:pw@mq.example.org//") == (
        "amqps://u:pw@mq.example.org//",
        {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": "mq.example.org"},
    )
    assert split_tls("amqps://")[1]["server_hostname"] == "localhost"


@pytest.mark.parametrize("none", ["none", "CERT_NONE"])
def test_checks_can_be_turned_off(none: str) -> None:
    assert split_tls(f"rediss://mq?ssl_cert_reqs={none}")[1] == {
        "ssl_cert_reqs": ssl.CERT_NONE,
        "ssl_check_hostname": False,
    }
    assert split_tls(f"amqps://mq?ssl_cert_reqs={none}")[1] == {"cert_reqs": ssl.CERT_NONE}
    assert split_tls("amqps://mq?ssl_check_hostname=false")[1] == {"cert_reqs": ssl.CERT_REQUIRED}
    assert split_tls("rediss://mq?ssl_cert_reqs=CERT_REQUIRED")[1]["ssl_cert_reqs"] == ssl.CERT_REQUIRED


def test_files_are_named_and_other_parameters_stay(tmp_path: Path) -> None:
    file = tmp_path / "a file.pem"
    file.touch()
    encoded = str(file).replace(" ", "%20")
    files = "&".join(f"{name}={encoded}" for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"))
    assert split_tls(f"amqps://mq//?heartbeat=5&{files}&frame_max=4096") == (
        "amqps://mq//?heartbeat=5&frame_max=4096",
        {
            "cert_reqs": ssl.CERT_REQUIRED,
            "server_hostname": "mq",
            "ca_certs": str(file),
            "certfile": str(file),
            "keyfile": str(file),
        },
    )


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
    with pytest.raises(ValueError, match=complaint) as wrong:
        split_tls(url)
    assert "s3cret" not in str(wrong.value)
    with pytest.raises(ValueError, match=f"^broker_url .*{complaint}"):
        Publisher(url, source="/tests")


def test_a_refused_certificate_is_found_among_the_causes() -> None:
    refusal = ssl.SSLCertVerificationError(1, "certificate verify failed")
    refusal.verify_message = "it has expired"
    wrapped = OSError()
    wrapped.__context__ = refusal
    outermost = RuntimeError()
    outermost.__cause__ = wrapped
    assert refused_certificate(outermost) == "its certificate is refused: it has expired"
    assert refused_certificate(OSError()) is None
