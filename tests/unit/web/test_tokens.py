"""The file of API tokens."""

from pathlib import Path

import pytest

from events.commands import COMMAND_TYPES
from events.errors import InvalidMessageError
from invigilator.web.tokens import Scope, Tokens, digest, is_loopback, load_tokens, new_token
from tests import sample_commands as c
from worker.errors import ConfigurationError

TOKEN = "inv_" + "x" * 43
HASH = digest(TOKEN)
READER = f'["reader"]\nsha256 = "{HASH}"\nscopes = ["read"]\n'
SENDER = f"""
["front end"]
sha256 = "{HASH}"
scopes = ["read", "command"]
source = "/lms/acme"
types = ["exam.attempt.update-status.v1"]
to_status = ["submitted"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def load(file: Path, text: str) -> Tokens:
    file.write_text(text)
    return load_tokens(file)


def test_a_token_is_found_by_its_hash(file: Path) -> None:
    tokens = load(file, READER)
    caller = tokens.find(TOKEN)
    assert caller is not None
    assert (caller.name, caller.scopes, caller.sender) == ("reader", frozenset({Scope.READ}), None)
    assert tokens.find(new_token()) is None
    assert tokens.find("\ud800") is None
    assert TOKEN not in file.read_text()


def test_a_sender_may_ask_for_what_its_table_says(file: Path) -> None:
    tokens = load(file, SENDER)
    caller = tokens.find(TOKEN)
    assert caller is not None
    assert caller.sender is not None
    assert caller.sender.source == "/lms/acme"
    assert tokens.sources() == {"/lms/acme"}
    caller.sender.permit.check(c.update("7", "submitted"))
    with pytest.raises(InvalidMessageError, match=r"not_allowed: to_status: .* in the file of API tokens"):
        caller.sender.permit.check(c.update("7", "verified"))
    with pytest.raises(InvalidMessageError, match="not_allowed: type: "):
        caller.sender.permit.check(c.create("7"))


def test_a_star_is_everything(file: Path) -> None:
    everything = SENDER.replace('["exam.attempt.update-status.v1"]', '["*"]')
    caller = load(file, everything.replace('["submitted"]', '["*"]')).find(TOKEN)
    assert caller is not None
    assert caller.sender is not None
    assert set(caller.sender.permit.types) == set(COMMAND_TYPES)
    caller.sender.permit.check(c.update("7", "banana"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "names no token"),
        ("x = 1", 'must be a table ["NAME"]'),
        ("[", "is no TOML"),
        (READER.replace("sha256", "sha"), "sha: is not allowed"),
        (READER.replace(HASH, TOKEN), "sha256: must be 64 lowercase"),
        (READER.replace('["read"]', '["write"]'), "scopes: must be a list out of read, command, operate"),
        (READER.replace('["read"]', "[]"), "scopes: must be a list of strings"),
        (READER + 'source = "/x"\n', "source: is only for a token with the scope command"),
        (SENDER.replace('source = "/lms/acme"', ""), "source: must be a string"),
        (SENDER.replace("exam.attempt.update-status.v1", "exam"), "types: must be"),
        (SENDER.replace('types = ["exam.attempt.update-status.v1"]', ""), "types: must be a list"),
        (SENDER + READER, "sha256: is also that of"),
    ],
)
def test_a_mistake_is_named_and_quotes_no_secret(file: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(file, text)
    message = str(caught.value)
    assert message.startswith(f"API tokens file {file}: ")
    assert complaint in message
    assert TOKEN not in message
    assert HASH not in message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_tokens(tmp_path / "none")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_who_is_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "10.0.0.1", "localhost.evil.example", "127.0.0.1.nip.io"]
)
def test_who_is_not(host: str) -> None:
    assert not is_loopback(host)
