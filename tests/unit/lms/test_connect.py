from dataclasses import fields
from typing import Any

import pytest
from pydantic import SecretStr

from worker.errors import ConfigurationError
from worker.kinds import Service
from worker.lms.connect import Services, check_services, connect
from worker.lms.http import HttpLms
from worker.lms.log import LogLms, LogMailer
from worker.lms.smtp import SmtpMailer, is_this_machine
from worker.settings import Settings


def settings(
    lms_url: str = "log:",
    lms_token: str | None = None,
    smtp_url: str = "log:",
    email_from: str = "exams@localhost",
) -> Settings:
    token = SecretStr(lms_token) if lms_token is not None else None
    return Settings(
        _env_file=None,
        lms_url=lms_url,
        lms_token=token,
        smtp_url=SecretStr(smtp_url),
        email_from=email_from,
    )


def test_log_urls_only_log() -> None:
    services = connect(settings())

    assert isinstance(services.credit, LogLms)
    assert isinstance(services.instructor, LogLms)
    assert isinstance(services.mailer, LogMailer)
    assert {service for service in Service if not services.only_logs(service)} == {Service.WEBHOOKS}
    assert not services.only_logs(None)
    services.close()


def test_real_urls_share_one_http_client_and_connect_nothing() -> None:
    services = connect(settings(lms_url="https://lms.invalid/api/", smtp_url="smtps://mail.invalid"))

    assert isinstance(services.credit, HttpLms)
    assert services.instructor is services.credit
    assert isinstance(services.mailer, SmtpMailer)
    assert not any(services.only_logs(service) for service in Service)
    services.close()


def test_services_are_named_so_that_none_takes_the_place_of_another() -> None:
    some: Any = [LogLms() for _ in fields(Services)]
    with pytest.raises(TypeError, match="positional"):
        Services(*some)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("known", "lonely"), [(["credit", "instructor"], "mailer"), ([*Service, "elsewhere"], "elsewhere")]
)
def test_a_service_without_a_field_and_a_field_without_a_service_are_refused(
    known: list[str], lonely: str
) -> None:
    with pytest.raises(TypeError, match=f"^{lonely} must be both a Service in worker/kinds.py and a field"):
        check_services(Services, known)


@pytest.mark.parametrize(
    "lms_url",
    [
        "http://",
        "http:///path",
        "https://user:s3cret@lms.invalid",
        "https://lms.invalid?key=s3cret",
        "https://lms.invalid/s3cret?",
        "https://lms.invalid/#s3cret",
        "https://lms..invalid/s3cret",
        "https://lms.invalid:99999/s3cret",
        "https://lms.invalid:s3cret",
        "https://lms.invalid/s3cret\x00",
    ],
)
def test_an_lms_url_that_cannot_work_is_refused_and_not_quoted(lms_url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^INVIGILATOR_LMS_URL must be") as caught:
        connect(settings(lms_url=lms_url))

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("token", ["s3cret\r\nX: y", "s3cret s3cret", "s3crét"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_quoted(token: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^INVIGILATOR_LMS_TOKEN must be") as caught:
        connect(settings(lms_url="https://lms.invalid", lms_token=token))

    assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize(
    "smtp_url",
    [
        "smtp://user@mail.invalid",
        "smtp://:s3cret@mail.invalid",
        "smtp://user:s3cr%C3%A9t@mail.invalid",
        "smtp://user:s3cret/1@mail.invalid",
        "smtp://user:s3cret#1@mail.invalid",
        "smtp://user:s3cret@mail.invalid:smtp",
        "smtp://user:s3cret@mail.invalid:99999",
        "smtp://user:s3cret@mail..invalid",
        "smtp://user:s3cret@[::1",
        "smtp://mail.invalid/inbox",
        "smtp://mail.invalid?x=y",
    ],
)
def test_an_smtp_url_that_cannot_work_is_refused_and_not_quoted(smtp_url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^INVIGILATOR_SMTP_URL must be") as caught:
        connect(settings(smtp_url=smtp_url))

    assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize(
    "email_from",
    ["exams", "@localhost", "exams@", "a@x, b@x", "exäms@localhost", "a@x\r\nBcc: b@x", "A <a@x> B <b@x>"],
)
def test_a_sender_that_is_not_one_address_is_refused(email_from: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^INVIGILATOR_EMAIL_FROM must be"):
        connect(settings(smtp_url="smtp://mail.invalid", email_from=email_from))


@pytest.mark.parametrize(
    "url", ["smtp://[::1]:2525", "smtp://u:p%40%3A%2F@mail.invalid", "smtps://mail.invalid/"]
)
def test_unusual_but_right_smtp_urls_are_taken(url: str) -> None:
    connect(settings(smtp_url=url, email_from="Prüfungen <exams@example.org>"))


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("192.0.2.1", False), ("fe80::1%eth0", False)],
)
def test_a_password_is_sent_in_clear_to_this_machine_only(address: str, expected: bool) -> None:
    assert is_this_machine(address) is expected
