"""The entry point: exit statuses, and errors on one line."""

import pytest
from sqlalchemy.exc import InterfaceError

from invigilator.cli.output import one_line, to_json
from tests.commandline import CommandLine

GROUPS = ("attempts", "commands", "effects", "quarantine")


def test_the_version(cli: CommandLine) -> None:
    ran = cli("--version")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("invigilator ")


@pytest.mark.parametrize("group", [(), *((name,) for name in GROUPS), ("effects", "retry"), ("publish",)])
def test_help(cli: CommandLine, group: tuple[str, ...]) -> None:
    ran = cli(*group, "--help")
    assert (ran.status, ran.err) == (0, "")
    assert "Usage: invigilator" in ran.out


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("frobnicate",),
        ("attempts",),
        ("attempts", "show", "--exam", "7"),
        ("attempts", "list", "--status", "verifed"),
        ("attempts", "list", "--limit", "0"),
        ("commands", "list", "--outcome", "lost"),
        ("effects", "list", "--state", "lost"),
        ("effects", "list", "--kind", "mail"),
        ("effects", "show", "7"),
        ("effects", "retry"),
        ("effects", "retry", "7"),
        ("effects", "retry", "--state", "done"),
        ("effects", "cancel", "--kind", "send_status_email", "--state", "done"),
        ("effects", "retry", "--since", "yesterday"),
        ("effects", "retry", "--since", "2026-03-01T09:00:00"),
        ("effects", "retry", "0198c0de-0000-7000-8000-000000000000", "--dry-run"),
        ("pause", "mail"),
        ("pause", "send_status_email", "--until", "soon"),
        ("resume", "mail"),
        ("audit", "verify", "--kept", "7"),
        ("effects", "retry", "0198c0de-0000-7000-8000-000000000000", "--state", "failed"),
        ("effects", "cancel"),
        ("quarantine", "show", "x"),
        ("quarantine", "replay"),
        ("quarantine", "discard", "99999999999999999999"),
        ("publish",),
        ("publish", "no-such-file"),
        ("consume", "--shard", "x"),
        ("status", "--jsno"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(cli: CommandLine, arguments: tuple[str, ...]) -> None:
    ran = cli(*arguments)
    assert ran.status == 2
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("invigilator: ")
    assert "see `invigilator" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("migrate",),
        ("consume",),
        ("relay",),
        ("status",),
        ("attempts", "list"),
        ("effects", "list"),
        ("quarantine", "replay", "1"),
    ],
)
def test_with_nothing_configured_the_error_says_what_to_do(
    cli: CommandLine, arguments: tuple[str, ...]
) -> None:
    ran = cli(*arguments)
    assert ran.status == 1
    assert ran.out == ""
    assert ran.err.startswith("invigilator: no database configured: set INVIGILATOR_DATABASE_URL, or run")
    assert ran.err.count("\n") == 1


def test_publish_needs_only_a_broker(cli: CommandLine) -> None:
    ran = cli("publish", "-")
    assert ran.status == 1
    assert ran.err.startswith("invigilator: no broker configured: set INVIGILATOR_BROKER_URL")


def test_a_wrong_setting(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVIGILATOR_DATABASE_URL", "mysql://root:secret@db/x")
    ran = cli("effects", "list")
    assert ran.status == 1
    assert "INVIGILATOR_DATABASE_URL must start with postgresql://" in ran.err
    assert "secret" not in ran.err


def test_a_database_that_is_away(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVIGILATOR_DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/x")
    ran = cli("effects", "list")
    assert ran.status == 1
    assert ran.err.count("\n") == 1
    assert "check that the database is up and that INVIGILATOR_DATABASE_URL is right" in ran.err
    assert "secret" not in ran.err


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, ""),
        (KeyError("ada@example.org"), 1, "unexpected KeyError at "),
        (PermissionError(13, "Permission denied", "/x"), 1, "Permission denied: /x"),
        (InterfaceError("SELECT 1", {}, ValueError("odd")), 1, "odd; see the database's log"),
    ],
)
def test_what_else_may_go_wrong(
    cli: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    message: str,
) -> None:
    def failing() -> None:
        raise error

    monkeypatch.setattr("invigilator.cli.database.load", failing)
    ran = cli("effects", "list")
    assert ran.status == status
    assert message in ran.err
    assert "ada@example.org" not in ran.err
    assert ran.err.count("\n") == (1 if message else 0)


def test_text_that_drives_a_terminal_is_made_harmless() -> None:
    assert one_line("a\nb\x1b[31m\tc") == "a b�[31m c"


def test_what_cannot_be_printed_is_a_bug() -> None:
    with pytest.raises(TypeError):
        to_json(object())
