"""`invigilator publish`: publishes commands from a file."""

import json
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING

import click

from events.errors import InvalidMessageError, PublishError
from invigilator.cli.options import JSON
from invigilator.cli.output import say, to_json, warn

if TYPE_CHECKING:
    from events.commands import Command
    from worker.commands.trust import Trust

MAX_PROBLEMS = 20

Signed = list[tuple[int, "Command", str | None]]
"""Triples of line number, command, and the key that signs the command (None where commands are not signed)."""


@click.command("publish")
@click.argument("file", type=click.File("rb"), metavar="FILE|-")
@JSON
def publish(file: IO[bytes], as_json: bool) -> None:
    """Publish commands from a file of JSON lines, or from standard input: a CloudEvent on each line.

    id, source, time and specversion may be left out and are filled in. If one line is wrong, nothing is
    published. Where commands must be signed, each is signed with a key of its source.
    """
    from invigilator.cli.broker import open_publisher
    from worker.commands.trust import load_trust
    from worker.engines import resolve
    from worker.settings import load

    settings = load()
    commands = _read(file, load_trust(settings.command_keys_file))
    with open_publisher(resolve(settings, database=False)) as publisher:
        for done, (number, command, key) in enumerate(commands):
            try:
                publisher.publish(command, signing_key=key)
            except PublishError as error:
                raise PublishError(
                    f"line {number}, id {command.id}: {error}; the {done} before it are published", command.id
                ) from error
    say(to_json({"published": len(commands)}) if as_json else f"published: {len(commands)}")


def _read(lines: Iterable[bytes], trust: "Trust | None") -> Signed:
    commands: Signed = []
    problems = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            command = read_command(line)
            commands.append((number, command, trust.signing_key(command) if trust else None))
        except InvalidMessageError as error:
            problems += 1
            if problems <= MAX_PROBLEMS:
                warn(f"line {number}: {error}")
    if problems > MAX_PROBLEMS:
        warn(f"and {problems - MAX_PROBLEMS} more lines")
    if problems:
        raise click.exceptions.Exit(1)
    return commands


def read_command(line: bytes) -> "Command":
    """Parse one line as a command, after the members that may be left out are filled in.

    Raises:
        InvalidMessageError: the line is not a valid command. `events.envelope.parse` says why.
    """
    from events.envelope import parse

    return parse(_filled(line.strip()))


def _filled(line: bytes) -> bytes:
    from events.envelope import filled_in
    from invigilator.cli.broker import SOURCE

    try:
        event = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return line  # `parse` reports the error
    if not isinstance(event, dict):
        return line
    missing = {name: value for name, value in filled_in(SOURCE).items() if name not in event}
    if not missing:
        return line
    # The members are inserted into the text. Parsing and serialising it would hide a member that occurs twice.
    head = json.dumps(missing).removesuffix("}").encode("ascii")
    return head + (b"," if event else b"") + line[1:]
