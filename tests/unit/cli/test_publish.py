"""`invigilator publish`: which members are filled in, and which lines are refused."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from events.envelope import parse
from events.errors import InvalidMessageError
from events.publisher import Publisher
from invigilator.cli.publish import read_command
from tests.commandline import CommandLine

DATA = {"exam_id": "7", "user_id": "42", "to_status": "submitted"}
EVENT = {"type": "exam.attempt.update-status.v1", "data": DATA}
WHOLE = {
    **EVENT,
    "specversion": "1.0",
    "id": "5f0c",
    "source": "/lms/acme",
    "time": "2026-03-01T09:00:00Z",
}


def line(**changes: Any) -> bytes:
    return json.dumps({**EVENT, **changes}).encode() + b"\n"


def test_a_whole_event_stays_as_it_is() -> None:
    text = json.dumps(WHOLE).encode()
    assert read_command(text) == parse(text)


def test_what_is_left_out_is_filled_in() -> None:
    first, second = read_command(line()), read_command(line())
    assert first.id != second.id
    assert first.source == "/invigilator/cli"
    assert first.time is not None
    assert (datetime.now(UTC) - first.time).total_seconds() < 60


@pytest.mark.parametrize("name", ["specversion", "id", "source", "time"])
def test_what_is_given_counts(name: str) -> None:
    partly = {key: value for key, value in WHOLE.items() if key != name}
    command = read_command(json.dumps(partly).encode())
    assert command.type == WHOLE["type"]
    assert (command.id == "5f0c") == (name != "id")
    assert (command.source == "/lms/acme") == (name != "source")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"{}", "not_cloudevent: type: is missing"),
        (b"?", "not_json: "),
        (b"\xff", "not_json: not UTF-8"),
        (b"[]", "not_cloudevent: must be a JSON object"),
        (b"[" * 100_000, "too_large"),
        (b'{"type": "a", "type": "b"}', "not_json: type: is there twice"),
        (line(id=None), "not_cloudevent: id"),
        (line(specversion="0.3"), "not_cloudevent: specversion"),
        (line(data={**DATA, "colour": 1}), "invalid_data: colour: is not a known field"),
    ],
)
def test_a_wrong_line(text: bytes, problem: str) -> None:
    with pytest.raises(InvalidMessageError, match=problem):
        read_command(text)


def test_one_wrong_line_and_nothing_is_published(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a file with good and bad lines
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", "redis://127.0.0.1:1")
    published: list[object] = []
    monkeypatch.setattr(Publisher, "publish", lambda _, command, **__: published.append(command))
    file = tmp_path / "commands.jsonl"
    file.write_bytes(line() + b"\n" + b"?\n" + line() + b"{}\n")
    # When it is published
    ran = cli("publish", file)
    # Then each bad line is named, and none is published
    assert ran.status == 1
    first, second = ran.err.splitlines()
    assert first.startswith("invigilator: line 3: not_json: ")
    assert second.startswith("invigilator: line 5: not_cloudevent: ")
    assert published == []
    # And without the bad lines all are
    ran = cli("publish", "-", "--json", stdin=line() + b" \n" + line())
    assert (ran.status, ran.json) == (0, {"published": 2})
    assert len(published) == 2
    assert cli("publish", "-", stdin=line()).out == "published: 1\n"
    assert cli("publish", "-", "--json").json == {"published": 0}


def test_each_command_is_signed_with_the_first_key_of_its_source(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a file of command keys with two sources, ours among them
    first, older, review = ("never-printed-" + letter * 32 for letter in "abc")
    keys = tmp_path / "keys.toml"
    keys.write_text(
        f"['/invigilator/cli']\nkeys = ['{first}', '{older}']\ntypes = ['{EVENT['type']}']\n"
        f"to_status = ['submitted']\n['/review']\nkeys = ['{review}']\ntypes = ['*']\nto_status = ['*']\n"
    )
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("INVIGILATOR_COMMAND_KEYS_FILE", str(keys))
    signed: list[object] = []
    monkeypatch.setattr(Publisher, "publish", lambda _, command, signing_key: signed.append(signing_key))
    # When what they may ask for is published, then each with its source's key
    assert cli("publish", "-", stdin=line() + line(source="/review")).status == 0
    assert signed == [first, review]
    # And when one line would be refused, then it is named, and nothing is published
    verified = line(data={**DATA, "to_status": "verified"})
    ran = cli("publish", "-", stdin=line() + line(source="/lms/acme") + verified)
    assert (ran.status, len(signed)) == (1, 2)
    stranger, forbidden = ran.err.splitlines()
    assert stranger.startswith(
        "invigilator: line 2: bad_signature: source: is not in the file of command keys"
    )
    assert forbidden.startswith("invigilator: line 3: not_allowed: to_status: ")
    # And a mistake in the file is one line
    keys.write_text(f"['/review']\nkeys = ['{review}'")
    ran = cli("publish", "-", stdin=line())
    assert (ran.status, ran.err.count("\n"), len(signed)) == (1, 1, 2)
    assert ran.err.startswith(f"invigilator: command keys file {keys}: is no TOML")
    assert "never-printed" not in ran.err


def test_many_wrong_lines_are_counted(cli: CommandLine) -> None:
    ran = cli("publish", "-", stdin=b"?\n" * 25)
    assert ran.status == 1
    assert len(ran.err.splitlines()) == 21
    assert ran.err.endswith("and 5 more lines\n")


def test_a_broker_that_is_away_names_where_to_go_on(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", "redis://:secret@127.0.0.1:1")
    ran = cli("publish", "-", stdin=b"\n" + line(id="abc"))
    assert ran.status == 1
    assert ran.err.startswith("invigilator: line 2, id abc: the broker did not take the message")
    assert "the 0 before it are published" in ran.err
    assert "secret" not in ran.err
    assert ran.err.count("\n") == 1


def test_a_broker_url_that_cannot_be_right(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", "redis://:sec/ret@127.0.0.1:x")
    ran = cli("publish", "-", stdin=line())
    assert ran.status == 1
    assert ran.err.startswith("invigilator: INVIGILATOR_BROKER_URL cannot be read")
    assert "sec" not in ran.err
