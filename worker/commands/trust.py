"""The file of command keys: which sources are trusted, and for what (docs/security.md, "Signed commands")."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from events.commands import Command
from events.errors import InvalidMessageError
from events.fields import MAX_ID
from events.signing import MIN_KEY_CHARS, SIGNATURE_HEADER, is_signed
from events.vocabulary import QuarantineCode
from worker.commands.permits import MistakeError, Permit, read_document, read_permit, strings
from worker.errors import ConfigurationError

FILE = "file of command keys"
MEMBERS = ("keys", "types", "to_status")


@dataclass(frozen=True, slots=True)
class Grant:
    """What one source may ask for.

    Parameters:
        keys: its live keys; the first one signs.
        permit: what its commands may be.
    """

    keys: Sequence[str] = field(repr=False)
    permit: Permit


@dataclass(frozen=True, slots=True)
class Trust:
    """The sources whose commands are accepted, and what each may ask for."""

    grants: Mapping[str, Grant]

    def check(self, command: Command, body: bytes, signature: str | None) -> None:
        """Make sure that a command comes from its source, and that the source may ask for it.

        Parameters:
            body: the exact bytes that were signed.
            signature: as the message states it, or None.

        Raises:
            InvalidMessageError: `bad_signature` or `not_allowed`, with a detail that quotes no values.
        """
        grant = self._grant(command)
        if signature is None:
            raise _bad_signature(f"there is no {SIGNATURE_HEADER}; sign the body with a key of its source")
        if not is_signed(body, signature, grant.keys):
            raise _bad_signature(
                f"the {SIGNATURE_HEADER} is by no live key of its source; sign the exact bytes of the body"
            )
        grant.permit.check(command.data)

    def signing_key(self, command: Command) -> str:
        """Return the key with which to sign a command.

        Raises:
            InvalidMessageError: as for `check`, because the command would be refused.
        """
        grant = self._grant(command)
        grant.permit.check(command.data)
        return grant.keys[0]

    def _grant(self, command: Command) -> Grant:
        grant = self.grants.get(command.source)
        if grant is None:
            raise _bad_signature("source: is not in the file of command keys; add it, or name one that is")
        return grant


def load_trust(path: Path | None) -> Trust | None:
    """Read the file of command keys. Without a file, commands need no signature.

    Raises:
        ConfigurationError: the file cannot be read, or something in it is wrong. The message names the file, the
            source and what is allowed, and never a key.
    """
    if path is None:
        return None
    try:
        return Trust(_read(read_document(path)))
    except MistakeError as error:
        raise ConfigurationError(f"command keys file {path}: {error}") from None


def _read(document: Mapping[str, Any]) -> dict[str, Grant]:
    if not document:
        raise MistakeError('names no source, so nothing would be accepted; add a table ["SOURCE"]')
    grants: dict[str, Grant] = {}
    owners: dict[str, str] = {}
    for source, table in document.items():
        try:
            grants[source] = _grant(source, table)
        except MistakeError as error:
            raise MistakeError(f'["{source}"] {error}') from None
        for key in grants[source].keys:
            other = owners.setdefault(key, source)
            if other != source:
                raise MistakeError(
                    f'["{source}"] keys: one is also a key of ["{other}"], so each could forge the other'
                )
    return grants


def _grant(source: str, table: Any) -> Grant:
    if not isinstance(table, dict):
        raise MistakeError('must be a table ["SOURCE"]')
    if not 1 <= len(source) <= MAX_ID:
        raise MistakeError(f"must have 1 to {MAX_ID} characters")
    if unknown := sorted(table.keys() - set(MEMBERS)):
        raise MistakeError(f"{unknown[0]}: is not allowed; a source has {', '.join(MEMBERS)}")
    keys = strings(table, "keys")
    if any(len(key) < MIN_KEY_CHARS for key in keys):
        raise MistakeError(
            f"keys: each must have at least {MIN_KEY_CHARS} characters; make one with `openssl rand -hex 32`"
        )
    return Grant(keys, read_permit(table, FILE))


def _bad_signature(detail: str) -> InvalidMessageError:
    return InvalidMessageError(QuarantineCode.BAD_SIGNATURE, detail)
