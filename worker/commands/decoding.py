"""Parses a message into a typed command, once, at the edge. What cannot be parsed is kept whole for quarantine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.ids import Receipt, new_receipt
from db.inbox import Arrival, Key
from db.quarantine import Unreadable
from db.texts import storable
from events.commands import Command, Fingerprint
from events.envelope import identify, parse
from events.errors import InvalidMessageError
from events.signing import SIGNATURE_HEADER
from events.vocabulary import QuarantineCode
from worker.commands.slices import Slice
from worker.commands.sources import Message
from worker.commands.trust import Trust

MAX_HEADERS = 20
MAX_HEADER_CHARS = 255
MAX_DETAIL_CHARS = 1000
MAX_KEPT_BYTES = 64 * 1024 * 1024
"""The most that quarantine keeps of a body. PostgreSQL takes statements below 1 GiB, and a byte is two digits."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message that was understood. It is kept whole for quarantine, in case another command has had its id."""

    command: Command
    receipt: Receipt
    message: Message
    fingerprint: Fingerprint

    @property
    def key(self) -> Key:
        """(source, id)."""
        return self.command.source, self.command.id

    @property
    def body(self) -> bytes:
        """The message's."""
        return self.message.body

    def arrival(self) -> Arrival:
        """Return what the inbox keeps of it."""
        return Arrival(self.key, self.command.type, self.fingerprint)

    def unreadable(self, code: QuarantineCode, detail: str) -> Unreadable:
        """Return the message for the quarantine.

        Parameters:
            code: why it goes there.
            detail: the same in words, with what to do.
        """
        return Unreadable(
            code,
            detail,
            storable_headers(self.message),
            self.body,
            self.receipt.at,
            *self.key,
            self.command.data.learner_id,
        )


def decode(
    message: Message, trust: Trust | None = None, accepted: Slice | None = None
) -> Received | Unreadable:
    """Parse a message. Any bytes give one of the two, and no error but this one.

    Parameters:
        trust: whose commands are accepted; None accepts everybody's.
        accepted: the learners whose commands are accepted; None accepts all.

    Raises:
        NotDrainedError: the message cannot be handled yet, because the number of shards changes.
    """
    receipt = new_receipt()
    try:
        command = _parse(message)
        if trust is not None:
            trust.check(command, message.body, _signature(message))
        if accepted is not None:
            accepted.check(command)
    except InvalidMessageError as error:
        detail, body = error.detail, message.body
        if len(body) > MAX_KEPT_BYTES:
            detail = f"{detail}; of {len(body)} bytes, only the first {MAX_KEPT_BYTES} are kept"
            body = body[:MAX_KEPT_BYTES]
        return Unreadable(
            error.reason,
            storable(detail, MAX_DETAIL_CHARS),
            storable_headers(message),
            body,
            receipt.at,
            *identify(message.body),
        )
    return Received(command, receipt, message, command.fingerprint())


def _parse(message: Message) -> Command:
    if message.headers.get("compression"):
        # The limit on the size would not hold for what is unpacked.
        raise InvalidMessageError(QuarantineCode.NOT_JSON, "compressed bodies are not accepted")
    return parse(message.body, message.content_type)


def _signature(message: Message) -> str | None:
    stated = message.headers.get(SIGNATURE_HEADER)
    if isinstance(stated, bytes):
        return stated.decode("ascii", "replace")
    return stated if isinstance(stated, str) else None


def storable_headers(message: Message) -> dict[str, Any]:
    """Return the headers as text that PostgreSQL can store, bounded in number and length."""
    # What a replay needs comes first.
    needed = {"content-type": message.content_type, SIGNATURE_HEADER: _signature(message)}
    stated: Mapping[str, Any] = {name: value for name, value in needed.items() if value}
    others = [(name, value) for name, value in message.headers.items() if name not in stated]
    items = [*stated.items(), *others][:MAX_HEADERS]
    return {
        storable(str(name), MAX_HEADER_CHARS): storable(_text(value), MAX_HEADER_CHARS)
        for name, value in items
    }


def _text(value: object) -> str:
    try:
        return str(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        return f"a {type(value).__name__} that cannot be shown"
