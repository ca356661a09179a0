"""The settings about certificates, a proxy and a gateway's headers: what is refused, and that nothing is quoted."""

from pathlib import Path
from typing import Any

import pytest
import trustme

from worker.errors import ConfigurationError
from worker.lms.connect import connect
from worker.settings import Settings


def refusal(**settings: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        connect(Settings(_env_file=None, lms_url="https://lms.invalid", **settings))
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ("s3cret", "must be a JSON object"),
        ('["s3cret"]', "must be a JSON object"),
        ('{"X-Key": 7}', "'X-Key' and its value must be printable ASCII text"),
        ('{"X-Key": ""}', "'X-Key' and its value must be printable ASCII text"),
        ('{"X-Key": "s3cret\\r\\nX: y"}', "'X-Key' and its value must be printable ASCII text"),
        ('{"X-Key": "s3crét"}', "'X-Key' and its value must be printable ASCII text"),
        ('{"X Key": "s3cret"}', "'X Key' and its value must be printable ASCII text"),
        ('{"Idempotency-key": "s3cret"}', "Idempotency-key is set by the calls themselves"),
        ('{"invigilator-Attempt": "s3cret"}', "invigilator-Attempt is set by the calls themselves"),
        ('{"Host": "s3cret"}', "Host is set by the calls themselves"),
    ],
)
def test_headers_that_cannot_be_sent_are_refused(headers: str, problem: str) -> None:
    assert refusal(lms_headers=headers).startswith("INVIGILATOR_LMS_HEADERS")
    assert problem in refusal(lms_headers=headers)


def test_authorization_is_said_once() -> None:
    assert "Authorization is set by INVIGILATOR_LMS_TOKEN" in refusal(
        lms_headers='{"Authorization": "Basic s3cret"}', lms_token="s3cret"
    )


@pytest.mark.parametrize(
    "proxy",
    [
        "s3cret",
        "socks5://u:s3cret@h",
        "http://",
        "http://u:s3cret@h/path",
        "http://h?s3cret",
        "http://h:s3cret",
        "http://u:s3cret@h:99999",
    ],
)
def test_a_proxy_that_cannot_work_is_refused(proxy: str) -> None:
    assert refusal(lms_proxy=proxy).startswith("INVIGILATOR_LMS_PROXY must be http(s)://")


@pytest.mark.parametrize(
    "url", ["ftp://id.invalid", "https://u:s3cret@id.invalid", "https://id.invalid#s3cret"]
)
def test_a_token_url_that_cannot_work_is_refused(url: str) -> None:
    said = refusal(lms_oauth_token_url=url, lms_oauth_client_id="me", lms_oauth_client_secret="s3cret")
    assert said.startswith("INVIGILATOR_LMS_OAUTH_TOKEN_URL must be http(s)://")


def test_certificates_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate, other = authority.issue_cert("a.example"), authority.issue_cert("b.example")
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    other.private_key_pem.write_to_path(str(tmp_path / "other.pem"))
    for files in (
        {"lms_cert": tmp_path / "none.pem"},
        {"lms_cert": tmp_path / "cert.pem"},  # without a key
        {"lms_cert": tmp_path / "cert.pem", "lms_key": tmp_path / "other.pem"},
    ):
        assert refusal(**files).startswith("INVIGILATOR_LMS_CERT and INVIGILATOR_LMS_KEY must name")


def test_a_certificate_and_its_key_may_be_one_file(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("a.example")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    settings = Settings(_env_file=None, lms_url="https://lms.invalid", lms_cert=tmp_path / "both.pem")
    connect(settings).close()
