"""The file of command keys: which sources are trusted, and for what (docs/security.md, "Signed commands")."""

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from events.commands import COMMAND_TYPES, AttemptUpdateStatus, Command, CommandData
from events.errors import InvalidMessageError
from events.fields import MAX_ID
from events.signing import MIN_KEY_CHARS, SIGNATURE_HEADER, is_signed
from events.vocabulary import QuarantineCode, Status
from worker.errors import ConfigurationError
from worker.textfiles import NotTextError, read_text

ANY = ["*"]
MEMBERS = ("keys", "types", "to_status")


@dataclass(frozen=True, slots=True)
class Grant:
    """What one source may ask for.

    Parameters:
        keys: its live keys; the first one signs.
        types: the command types.
        to_status: the statuses that its update-status commands may ask for; None is any, whatever it says.
    """

    keys: Sequence[str] = field(repr=False)
    types: Collection[str]
    to_status: Collection[str] | None

    def check(self, data: CommandData) -> None:
        """Refuse what the source may not ask for.

        Raises:
            InvalidMessageError: `not_allowed`.
        """
        if data.type not in self.types:
            raise _not_allowed(f"type: its source may not use {data.type}", "types")
        if self.to_status is None or not isinstance(data, AttemptUpdateStatus):
            return
        if data.to_status not in self.to_status:
            raise _not_allowed("to_status: its source may not ask for this status", "to_status")


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
        grant.check(command.data)

    def signing_key(self, command: Command) -> str:
        """Return the key with which to sign a command.

        Raises:
            InvalidMessageError: as for `check`, because the command would be refused.
        """
        grant = self._grant(command)
        grant.check(command.data)
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
        return Trust(_read(_document(path)))
    except _MistakeError as error:
        raise ConfigurationError(f"command keys file {path}: {error}") from None


class _MistakeError(ValueError):
    """The message says what is wrong in the file, and what is allowed there."""


def _document(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path))
    except OSError as error:
        raise _MistakeError(f"cannot be read: {error.strerror}") from None
    except NotTextError as error:
        raise _MistakeError(str(error)) from None
    except tomllib.TOMLDecodeError as error:
        # Only the place is shown, because the rest of the text may quote a key.
        [place] = re.findall(r"\(at .*\)", str(error)) or [""]
        raise _MistakeError(f"is no TOML {place}") from None


def _read(document: Mapping[str, Any]) -> dict[str, Grant]:
    if not document:
        raise _MistakeError('names no source, so nothing would be accepted; add a table ["SOURCE"]')
    grants: dict[str, Grant] = {}
    owners: dict[str, str] = {}
    for source, table in document.items():
        try:
            grants[source] = _grant(source, table)
        except _MistakeError as error:
            raise _MistakeError(f'["{source}"] {error}') from None
        for key in grants[source].keys:
            other = owners.setdefault(key, source)
            if other != source:
                raise _MistakeError(
                    f'["{source}"] keys: one is also a key of ["{other}"], so each could forge the other'
                )
    return grants


def _grant(source: str, table: Any) -> Grant:
    if not isinstance(table, dict):
        raise _MistakeError('must be a table ["SOURCE"]')
    if not 1 <= len(source) <= MAX_ID:
        raise _MistakeError(f"must have 1 to {MAX_ID} characters")
    if unknown := sorted(table.keys() - set(MEMBERS)):
        raise _MistakeError(f"{unknown[0]}: is not allowed; a source has {', '.join(MEMBERS)}")
    keys = _strings(table, "keys")
    if any(len(key) < MIN_KEY_CHARS for key in keys):
        raise _MistakeError(
            f"keys: each must have at least {MIN_KEY_CHARS} characters; make one with `openssl rand -hex 32`"
        )
    types = _choice(table, "types", list(COMMAND_TYPES)) or tuple(COMMAND_TYPES)
    return Grant(keys, types, _to_status(table, AttemptUpdateStatus.type in types))


def _to_status(table: Mapping[str, Any], may_update: bool) -> list[str] | None:
    if may_update:
        return _choice(table, "to_status", list(Status))
    if "to_status" in table:
        raise _MistakeError(f"to_status: is only for a source whose types have {AttemptUpdateStatus.type}")
    return []


def _choice(table: Mapping[str, Any], member: str, allowed: Collection[str]) -> list[str] | None:
    chosen = _strings(table, member)
    if chosen == ANY:
        return None
    if not set(chosen) <= set(allowed):
        raise _MistakeError(f'{member}: must be ["*"], or a list out of {", ".join(allowed)}')
    return chosen


def _strings(table: Mapping[str, Any], member: str) -> list[str]:
    value = table.get(member)
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise _MistakeError(f"{member}: must be a list of strings, with at least one")
    if len(set(value)) < len(value):
        raise _MistakeError(f"{member}: has the same one twice")
    return value


def _bad_signature(detail: str) -> InvalidMessageError:
    return InvalidMessageError(QuarantineCode.BAD_SIGNATURE, detail)


def _not_allowed(what: str, member: str) -> InvalidMessageError:
    return InvalidMessageError(
        QuarantineCode.NOT_ALLOWED,
        f"{what}; if it should, add it to its {member} in the file of command keys",
    )
