"""The `.env` file: no line is ignored, and no value is changed."""

import os
from pathlib import Path

import pytest
from structlog.typing import EventDict

from worker.errors import ConfigurationError
from worker.logs import warn_once
from worker.settings import load


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    warn_once.cache_clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "expanded")
    return tmp_path


def token(line: str) -> str | None:
    Path(".env").write_text(line)
    value = load().lms_token
    return value.get_secret_value() if value else None


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("pa${HOME}ss", "pa${HOME}ss"),
        ('"pa${HOME}ss"', "pa${HOME}ss"),
        ("'pa${HOME}ss'", "pa${HOME}ss"),
        ("${NOWHERE}", "${NOWHERE}"),
        ("${NOWHERE:-other}", "${NOWHERE:-other}"),
        ("pa$HOME", "pa$HOME"),
        ("p#a%s=s", "p#a%s=s"),
        ("'p #a'", "p #a"),
        (r"p\a", r"p\a"),
        (r"'p\a'", r"p\a"),
        ("pass # a comment", "pass"),
        ("pass\r", "pass"),
        ("  pass  ", "pass"),
        ("pässwörd", "pässwörd"),
        ("", None),
    ],
)
def test_a_value_is_what_is_written(written: str, value: str | None) -> None:
    assert token(f"INVIGILATOR_LMS_TOKEN={written}\n") == value


@pytest.mark.parametrize(
    "line",
    [
        "\ufeffINVIGILATOR_LMS_TOKEN=it",
        "export INVIGILATOR_LMS_TOKEN=it",
        "  invigilator_lms_token = it",
        "# a comment\r\n\r\nINVIGILATOR_LMS_TOKEN='it'\r\nOTHER=1\r\n",
        "OF_ANOTHER_PROGRAM\nINVIGILATOR_LMS_TOKEN=it",
    ],
)
def test_ways_to_write_it(line: str) -> None:
    assert token(line) == "it"


@pytest.mark.parametrize("byte", [b"\xe9", b"\x80", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\0"])
def test_a_byte_that_is_not_utf8_is_told_by_file_and_line(byte: bytes, folder: Path) -> None:
    secret = b"INVIGILATOR_LMS_TOKEN=se" + byte + b"cret"
    for before in (b"", b"# one\n\n", b"\xef\xbb\xbfOTHER=1\n", b"# one\r\n"):
        # Given a file with it in a certain line
        Path(".env").write_bytes(before + secret + b"\nINVIGILATOR_POLL_S=7\n")
        # When the settings are read
        with pytest.raises(ConfigurationError) as caught:
            load()
        # Then it is named, and nothing is quoted
        line = before.count(b"\n") + 1
        assert str(caught.value) == f"{folder}/.env: line {line} is not UTF-8: save the file in that encoding"


def test_utf16_is_refused(folder: Path) -> None:
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32-le"):
        Path(".env").write_text("INVIGILATOR_POLL_S=7\n", encoding=encoding)
        with pytest.raises(ConfigurationError, match=f"^{folder}/.env: line 1 is not UTF-8"):
            load()


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("\n\nINVIGILATOR_LMS_TOKEN: secret\n", 3, "is no assignment"),
        ("OTHER=1\r\nINVIGILATOR_LMS_TOKEN secret\r\n", 2, "is no assignment"),
        ("INVIGILATOR_LMS_TOKEN='secret\nINVIGILATOR_POLL_S=7\n", 1, "is no assignment"),
        ("INVIGILATOR_LMS_TOKEN='secret' secret\n", 1, "is no assignment"),
        ("if true; then\n", 1, "is no assignment"),
        ("# one\n\nINVIGILATOR_LMS_TOKEN\n", 3, "has no value"),
        ("export invigilator_lms_token", 1, "has no value"),
        ("\nOTHER='secret\nINVIGILATOR_POLL_S=7\nMORE=' \n", 2, "begins a value that goes on over the next"),
        ("INVIGILATOR_LMS_TOKEN='secret\nINVIGILATOR_POLL_S=7\n'", 1, "begins a value that goes on over"),
    ],
)
def test_a_line_that_would_be_passed_over_is_refused(
    text: str, line: int, problem: str, folder: Path
) -> None:
    Path(".env").write_bytes(text.encode())
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert str(caught.value).startswith(f"{folder}/.env: line {line} {problem}")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_value_of_another_program_may_have_many_lines() -> None:
    assert token("KEY='one\ntwo'\nINVIGILATOR_LMS_TOKEN=it\n") == "it"


def test_of_a_name_that_comes_twice_the_last_counts_with_a_warning(
    folder: Path, logged: list[EventDict]
) -> None:
    text = "OTHER=1\nINVIGILATOR_LMS_TOKEN=old\nOTHER=2\n\ninvigilator_lms_token=new\n"
    assert [token(text), token(text)] == ["new", "new"]
    [line] = logged
    assert (line["event"], line["setting"]) == ("a setting is set more than once", "INVIGILATOR_LMS_TOKEN")
    assert (line["file"], line["line"]) == (f"{folder}/.env", 5)


def test_a_file_that_is_named_must_be_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given no file: none is needed
    assert load().poll_s == 2
    # When one is named that is missing
    monkeypatch.setenv("INVIGILATOR_ENV_FILE", "prod.env")
    with pytest.raises(ConfigurationError, match=f"^{folder}/prod.env cannot be read: No such file"):
        load()
    # Then it is refused, until it is there
    Path("prod.env").write_text("INVIGILATOR_POLL_S=7")
    assert load().poll_s == 7


def test_the_name_of_the_file_may_be_written_in_small_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("prod.env").write_text("INVIGILATOR_POLL_S=7")
    monkeypatch.setenv("invigilator_env_file", "prod.env")
    assert load().poll_s == 7


def test_the_home_folder_may_be_written_as_a_tilde(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("prod.env").write_text("INVIGILATOR_POLL_S=7")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("INVIGILATOR_ENV_FILE", "~/prod.env")
    assert load().poll_s == 7
    monkeypatch.setenv("INVIGILATOR_ENV_FILE", "~nobody-of-that-name/prod.env")
    with pytest.raises(ConfigurationError, match=r"^.*~nobody-of-that-name/prod\.env cannot be read: "):
        load()


def test_what_is_there_and_cannot_be_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a link to nowhere, then a folder, where the file should be
    Path(".env").symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match=f"^{folder}/.env cannot be read: No such file"):
        load()
    Path(".env").unlink()
    Path(".env").mkdir()
    with pytest.raises(
        ConfigurationError, match=f"^{folder}/.env cannot be read: Is a directory; INVIGILATOR_ENV"
    ):
        load()
    # When no file is wanted, then none is looked at
    monkeypatch.setenv("INVIGILATOR_ENV_FILE", "")
    assert load().poll_s == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_somebody_else_is_refused(folder: Path) -> None:
    Path(".env").write_text("INVIGILATOR_POLL_S=7")
    Path(".env").chmod(0)
    with pytest.raises(ConfigurationError, match=f"^{folder}/.env cannot be read: Permission denied"):
        load()


def test_the_file_cannot_name_another_one() -> None:
    Path(".env").write_text("INVIGILATOR_ENV_FILE=prod.env\n")
    with pytest.raises(ConfigurationError, match="INVIGILATOR_ENV_FILE is read from the environment only"):
        load()


def test_an_empty_variable_leaves_it_to_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVIGILATOR_LMS_TOKEN", "")
    assert token("INVIGILATOR_LMS_TOKEN=it") == "it"
