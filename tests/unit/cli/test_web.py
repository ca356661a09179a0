"""`invigilator token`: what it prints can be used."""

import re
from pathlib import Path

from invigilator.web.tokens import Scope, digest, load_tokens
from tests.commandline import CommandLine


def test_the_table_that_is_printed_knows_the_token(cli: CommandLine, tmp_path: Path) -> None:
    # Given a token with a name that needs care in TOML
    ran = cli("token", "new", 'front "end" é')
    assert ran.status == 0
    first, *rest = ran.out.splitlines()
    token = first.removeprefix("token: ")
    # When the table is pasted into a file
    table = "\n".join(rest[rest.index(next(line for line in rest if line.startswith("["))) :])
    file = tmp_path / "tokens.toml"
    file.write_text(table)
    # Then the token is known, and may look
    caller = load_tokens(file).find(token)
    assert caller is not None
    assert (caller.name, caller.scopes) == ('front "end" é', frozenset({Scope.READ}))
    # And with the lines that are commented out, it may send
    sending = re.sub("^# ", "", table, flags=re.MULTILINE).replace('["read"]', '["command"]')
    file.write_text(sending)
    sender = load_tokens(file).find(token)
    assert sender is not None
    assert sender.sender is not None
    assert sender.sender.source == "/lms/acme"


def test_every_token_is_new(cli: CommandLine) -> None:
    one, other = (cli("token", "new", "x", "--json").json for _ in range(2))
    assert one["token"] != other["token"]
    assert one["sha256"] == digest(one["token"])


def test_without_tokens_others_are_not_let_in(cli: CommandLine) -> None:
    cli.monkeypatch.setenv("INVIGILATOR_DATABASE_URL", "postgresql://127.0.0.1:1/none")
    cli.monkeypatch.setenv("INVIGILATOR_BROKER_URL", "redis://127.0.0.1:1")
    cli.monkeypatch.setenv("INVIGILATOR_WEB_ADDRESS", "0.0.0.0:8080")
    ran = cli("web")
    assert ran.status == 1
    assert ran.err.startswith("invigilator: INVIGILATOR_WEB_ADDRESS: others can reach it")
    assert len(ran.err.splitlines()) == 1
