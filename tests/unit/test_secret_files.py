"""Secrets in files of their own."""

from pathlib import Path
from typing import Any

import pytest

from worker.errors import ConfigurationError
from worker.settings import Settings, as_variables, load


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


SECRETS = {
    "DATABASE_URL": "postgresql://u:s3cret@h/x",
    "BROKER_URL": "redis://:s3cret@h",
    "LMS_TOKEN": "s3cret",
    "LMS_OAUTH_CLIENT_SECRET": "s3cret",
    "LMS_HEADERS": '{"X-Key": "s3cret"}',
    "LMS_PROXY": "http://u:s3cret@h",
    "SMTP_URL": "smtp://u:s3cret@h",
    "FLOWER_BROKER_API": "http://u:s3cret@h/api/",
}


def refusal() -> str:
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert "s3cret" not in str(caught.value)
    return str(caught.value)


def test_a_home_that_nobody_has_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVIGILATOR_LMS_TOKEN_FILE", "~nobodyhere/x")
    assert "cannot be read: No such file or directory" in refusal()


@pytest.mark.parametrize("name", sorted(SECRETS.keys() - {"LMS_OAUTH_CLIENT_SECRET"}))
def test_a_file_holds_the_secret(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("secret").write_text(f"{SECRETS[name]}\n")
    monkeypatch.setenv(f"INVIGILATOR_{name}_FILE", "secret")
    of_the_file = load()
    monkeypatch.delenv(f"INVIGILATOR_{name}_FILE")
    monkeypatch.setenv(f"INVIGILATOR_{name}", SECRETS[name])
    assert as_variables(of_the_file) == as_variables(load())
    assert "s3cret" not in repr(of_the_file)


def test_only_one_line_break_at_the_end_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("secret").write_bytes(b" s3cret \n\r\n")
    monkeypatch.setenv("INVIGILATOR_LMS_TOKEN_FILE", "secret")
    token = load().lms_token
    assert token is not None
    assert token.get_secret_value() == " s3cret \n"


def test_both_forms_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("secret").write_text("s3cret")
    Path(".env").write_text("INVIGILATOR_LMS_TOKEN_FILE=secret")
    monkeypatch.setenv("INVIGILATOR_LMS_TOKEN", "s3cret")
    assert refusal() == (
        "INVIGILATOR_LMS_TOKEN and INVIGILATOR_LMS_TOKEN_FILE are both set: take one of them away"
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "cannot be read: No such file"), (b"", "is empty"), (b"s3cret\xff", "line 1")],
)
def test_a_file_that_cannot_be_used_is_named(
    content: bytes | None, problem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if content is not None:
        Path("secret").write_bytes(content)
    monkeypatch.setenv("INVIGILATOR_SMTP_URL_FILE", "secret")
    said = refusal()
    assert said.startswith(f"INVIGILATOR_SMTP_URL_FILE: {tmp_path}/secret")
    assert problem in said


def test_the_parts_of_oauth_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("secret").write_text("s3cret")
    monkeypatch.setenv("INVIGILATOR_LMS_OAUTH_CLIENT_SECRET_FILE", "secret")
    assert "set all three or none" in refusal()
    monkeypatch.setenv("INVIGILATOR_LMS_OAUTH_TOKEN_URL", "https://id.invalid")
    monkeypatch.setenv("INVIGILATOR_LMS_OAUTH_CLIENT_ID", "me")
    assert load().lms_oauth_client_id == "me"
    monkeypatch.setenv("INVIGILATOR_LMS_TOKEN", "s3cret")
    assert "INVIGILATOR_LMS_TOKEN and INVIGILATOR_LMS_OAUTH_… are both set" in refusal()


@pytest.mark.parametrize(
    ("name", "problem"), [("OAUTH_SCOPE", "set all three or none"), ("KEY", "belongs to")]
)
def test_a_part_alone_is_refused(name: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"INVIGILATOR_LMS_{name}", "x")
    assert problem in refusal()


def test_every_secret_is_listed_here() -> None:
    with_all: dict[str, Any] = {name.lower(): value for name, value in SECRETS.items() if name != "LMS_TOKEN"}
    settings = Settings(
        _env_file=None, **with_all, lms_oauth_token_url="https://id.invalid", lms_oauth_client_id="me"
    )
    hidden = {name.upper() for name, value in settings if "**" in str(value)}
    assert hidden | {"LMS_TOKEN"} == set(SECRETS)
