"""Settings: what is refused, and that nothing secret is told."""

from datetime import timedelta
from pathlib import Path

import pytest
from structlog.typing import EventDict

from db.quarantine import Bounds
from worker import wiring
from worker.errors import ConfigurationError
from worker.logs import warn_once
from worker.settings import Settings, host_and_port, load


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warn_once.cache_clear()
    monkeypatch.chdir(tmp_path)


def test_the_defaults() -> None:
    settings = load()
    assert (settings.database_url, settings.broker_url, settings.lms_url) == (None, None, "log:")
    assert (settings.batch_size, settings.lease_s, settings.call_timeout_s) == (100, 60, 10)


@pytest.mark.parametrize("driver", ["", "+psycopg2", "+asyncpg", "+psycopg"])
def test_any_driver_suffix_is_accepted(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVIGILATOR_DATABASE_URL", f"postgresql{driver}://u:p%40@h:5/x")
    url = load().database_url
    assert url is not None
    assert url.get_secret_value() == "postgresql+psycopg2://u:p%40@h:5/x"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("DATABASE_URL", "mysql://u:secret@h/x", "must start with postgresql://"),
        ("DATABASE_URL", "postgresql://u:sec@ret:secret@h/x", "is no database URL"),
        ("DATABASE_URL", "secret", "is no database URL"),
        ("BROKER_URL", "http://u:secret@h", "must start with redis://"),
        ("BROKER_URL", "redis", "must start with redis://"),
        ("BROKER_URL", "redis://:secret/x@h", "cannot be read"),
        ("BROKER_URL", "amqp://u:p[secret]x@h//", "cannot be read"),
        ("LMS_URL", "ftp://h", "must be log: or start with http://"),
        ("SMTP_URL", "http://u:secret@h", "must be log: or start with smtp://"),
        ("SMTP_URL", "smtp://", "must name a host"),
        ("SMTP_URL", "smtps://:25", "must name a host"),
        ("SMTP_URL", "smtp://u:secret@", "must name a host"),
        ("SMTP_URL", "smtp://u:secret@:25/", "must name a host"),
        ("BATCH_SIZE", "0", "greater than or equal to 1"),
        ("SMTP_MAX_CONNECTIONS", "0", "greater than or equal to 1"),
        ("LEASE_S", "soon", "valid number"),
        ("RETRY_BASE_S", "7200", "must not be above INVIGILATOR_RETRY_CAP_S"),
        ("CALL_TIMEOUT_S", "30", "must be below half of INVIGILATOR_LEASE_S"),
        ("INSTRUCTOR", "maybe", "'on' or 'off'"),
        ("WEB_ADDRESS", "secret", "must be HOST:PORT, such as 127.0.0.1:8080"),
        ("WEB_ADDRESS", "secret:70000", "must be HOST:PORT"),
        ("WEB_ADDRESS", "::1:8080", "must be HOST:PORT, such as 127.0.0.1:8080 or "),
        ("API_RATE", "0", "greater than or equal to 1"),
        ("CREDIT", "maybe", "'on' or 'off'"),
        ("QUARANTINE_MAX", "0", "greater than or equal to 1"),
        ("QUARANTINE_MAX_MB", "0", "greater than or equal to 1"),
        ("INSTANCE", "a b", "should match pattern"),
        ("EVENTS_KEEP", "90", "must be a number of days, hours or minutes such as 90d"),
        ("PRUNE_OLDER_THAN", "90", "must be a number of days, hours or minutes such as 90d"),
    ],
)
def test_what_is_wrong_is_named_in_one_line_without_secrets(
    name: str, value: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"INVIGILATOR_{name}", value)
    with pytest.raises(ConfigurationError, match=problem) as caught:
        load()
    message = str(caught.value)
    assert message.startswith(f"INVIGILATOR_{name} ")
    assert "\n" not in message
    assert "sec" not in message


def test_every_mistake_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVIGILATOR_LEASE_S", "x")
    monkeypatch.setenv("INVIGILATOR_POLL_S", "-1")
    with pytest.raises(ConfigurationError, match=r"INVIGILATOR_LEASE_S .*; INVIGILATOR_POLL_S "):
        load()


def test_a_file_fills_in_what_the_environment_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("INVIGILATOR_POLL_S=7\nINVIGILATOR_LEASE_S=70\n")
    monkeypatch.setenv("INVIGILATOR_LEASE_S", "80")
    assert (load().poll_s, load().lease_s) == (7, 80)
    # unless another file, or none, is named
    monkeypatch.setenv("INVIGILATOR_ENV_FILE", "")
    assert load().poll_s == 2


def test_secrets_are_not_printed() -> None:
    settings = Settings(
        database_url="postgresql://u:s3cret@h/x",
        lms_oauth_token_url="https://id.invalid",
        lms_oauth_client_id="me",
        lms_oauth_client_secret="s3cret",
        lms_headers='{"X-Api-Key": "s3cret"}',
        lms_proxy="http://u:s3cret@h",
    )
    assert "s3cret" not in repr(settings)


def test_credit_may_be_left_to_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wiring.policies(load()).credit
    monkeypatch.setenv("INVIGILATOR_CREDIT", "off")
    policies = wiring.policies(load())
    assert not policies.credit
    assert policies.default.credit_on == {"declined", "not_reviewed"}


def test_what_the_database_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load()
    assert settings.prune_older_than is None
    assert wiring.handler(settings).bounds == Bounds(messages=10_000, megabytes=1_024)
    for name, value in {"PRUNE_OLDER_THAN": "90d", "QUARANTINE_MAX": "5", "QUARANTINE_MAX_MB": "6"}.items():
        monkeypatch.setenv(f"INVIGILATOR_{name}", value)
    settings = load()
    assert settings.prune_older_than == timedelta(days=90)
    assert wiring.handler(settings).bounds == Bounds(messages=5, megabytes=6)


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("[::1]:0", "::1", 0),
        ("web.example.org:443", "web.example.org", 443),
    ],
)
def test_an_address_is_a_host_and_a_port(address: str, host: str, port: int) -> None:
    assert host_and_port(address) == (host, port)


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("INVIGILATOR_SMTP_URI", "INVIGILATOR_SMTP_URL"),
        ("INVIGILATOR_SMPT_URL", "INVIGILATOR_SMTP_URL"),
        ("INVIGILATOR_STMP_ULR", "INVIGILATOR_SMTP_URL"),
        ("INVIGILATOR_SMTPURL", "INVIGILATOR_SMTP_URL"),
        ("INVIGILATOR_SMTP_URL_2", "INVIGILATOR_SMTP_URL"),
        ("invigilator_smtp_uri", "INVIGILATOR_SMTP_URL"),
        ("INVIGLATOR_SMTP_URL", "INVIGILATOR_SMTP_URL"),
        ("INVIGILATOR__SMTP_URL", "INVIGILATOR_SMTP_URL"),
        ("INVIGILATORSMTP_URL", "INVIGILATOR_SMTP_URL"),
        ("\u200bINVIGILATOR_SMTP_URL", "INVIGILATOR_SMTP_URL"),
        ("INVIGILATOR_ENV_FIEL", "INVIGILATOR_ENV_FILE"),
        ("INVIGILATOR_QUARANTINE_MAX_M", "INVIGILATOR_QUARANTINE_MAX_MB"),
        ("INVIGILATOR_LEASES", "INVIGILATOR_LEASE_S"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_right_name(
    name: str, right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given in ("smtp://u:secret@h", ""):
        # Given a misspelt name in the environment, or in the file
        monkeypatch.setenv(name, given)
        with pytest.raises(ConfigurationError) as of_the_environment:
            load()
        monkeypatch.delenv(name)
        Path(".env").write_text(f"{name}={given}")
        # When the file is read
        with pytest.raises(ConfigurationError) as of_the_file:
            load()
        Path(".env").unlink()
        # Then both are refused, with the right name and without the value
        for caught in (of_the_environment, of_the_file):
            assert str(caught.value).startswith(f"{name.upper()} is no setting: {right} is meant")
            assert "secret" not in str(caught.value)


def test_every_misspelling_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVIGILATOR_SMTP_URI", "smtp://h")
    Path(".env").write_text("INVIGILATOR_LMS_URI=http://h")
    with pytest.raises(
        ConfigurationError, match=r"LMS_URI is no setting: .*; INVIGILATOR_SMTP_URI is no setting: "
    ):
        load()


@pytest.mark.parametrize(
    ("others", "name"),
    [
        ({}, "INVIGILATOR_FROM_THE_FUTURE"),
        ({}, "invigilator_From_the_Future"),
        ({}, "INVIGILATOR_"),
        # Near a name that is set, which is therefore not what was meant.
        ({"INVIGILATOR_SMTP_URL": "smtp://h"}, "INVIGILATOR_SMTP_URI"),
        ({"invigilator_smtp_url": "smtp://h"}, "INVIGILATOR_SMTP_URI"),
    ],
)
def test_any_other_variable_of_ours_is_warned_of_once(
    others: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    for variable, value in {**others, name: "secret"}.items():
        monkeypatch.setenv(variable, value)
    load()
    load()
    assert [(line["event"], line["setting"]) for line in logged] == [("a setting is ignored", name.upper())]


def test_a_name_that_is_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVIGILATOR_SMTP_URL", "")
    monkeypatch.setenv("INVIGILATOR_SMTP_URI", "smtp://h")
    with pytest.raises(ConfigurationError, match="INVIGILATOR_SMTP_URL is meant"):
        load()


def test_variables_of_others_are_none_of_our_business(
    monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    for name in ("LMS_URI", "SMTP_URL", "INVIGIL", "XINVIGILATOR_FROM_THE_FUTURE"):
        monkeypatch.setenv(name, "x")
        Path(".env").write_text(f"{name}=x\nOTHER_{name}=y")
        load()
    assert logged == []
