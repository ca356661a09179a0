"""From a message to a typed command, once, at the edge; or to the quarantine, with everything that it had."""

from collections.abc import Mapping
from typing import Any

from db.ids import stamp
from db.inbox import Unreadable
from events.commands import Command
from events.envelope import parse
from events.errors import InvalidMessageError
from events.vocabulary import QuarantineCode
from worker.commands.handler import Received
from worker.commands.sources import Message

MAX_HEADERS = 50
MAX_HEADER_CHARS = 1000


def decode(message: Message) -> Received | Unreadable:
    """Parse a message. Whatever its bytes are, it becomes one of the two."""
    moment = stamp()
    headers = storable_headers(message)
    try:
        command = _parse(message)
    except InvalidMessageError as error:
        return Unreadable(error.reason, storable(error.detail), headers, message.body, moment.at)
    return Received(command, moment, headers, message.body, command.fingerprint())


def _parse(message: Message) -> Command:
    if message.headers.get("compression"):
        # The limit on the size would have to hold for what comes out of it, too.
        raise InvalidMessageError(QuarantineCode.NOT_JSON, "compressed bodies are not accepted")
    return parse(message.body, message.content_type)


def storable_headers(message: Message) -> dict[str, Any]:
    """What the message said about itself, as text that PostgreSQL can store, within bounds."""
    stated: Mapping[str, Any] = {"content-type": message.content_type} if message.content_type else {}
    items = [*stated.items(), *message.headers.items()][:MAX_HEADERS]
    return {storable(str(name)): storable(str(value)) for name, value in items}


def storable(text: str) -> str:
    """Text without what PostgreSQL cannot store: NUL, and lone surrogates."""
    return text[:MAX_HEADER_CHARS].encode("utf-8", "replace").decode("utf-8").replace("\x00", "�")
