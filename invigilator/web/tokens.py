"""The file of API tokens: who may call, for what, and as which source of commands."""

import hashlib
import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from events.commands import COMMAND_TYPES
from events.fields import MAX_ID
from worker.commands.permits import MistakeError, Permit, read_document, read_permit, strings
from worker.errors import ConfigurationError

FILE = "file of API tokens"
LOCAL_SOURCE = "/invigilator/api"
"""The source of commands that come without a token."""
PREFIX = "inv_"
"""A token begins with it, so that a scanner for leaked secrets can recognise one."""

_SHA256 = re.compile("[0-9a-f]{64}")
_OF_COMMANDS = ("source", "types", "to_status")
_MEMBERS = ("sha256", "scopes", *_OF_COMMANDS)


class Scope(StrEnum):
    """What a token is good for."""

    READ = "read"  # look at attempts, commands and events
    COMMAND = "command"  # send commands
    OPERATE = "operate"  # act on effects and quarantine, as an operator


@dataclass(frozen=True, slots=True)
class Sender:
    """As whom a caller sends commands, and which.

    Parameters:
        source: of all its commands.
        permit: what they may be.
    """

    source: str
    permit: Permit


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Parameters:
        name: of the token's table, for logs and limits.
        scopes: what the caller may do.
        sender: None for a caller that may not send commands.
    """

    name: str
    scopes: frozenset[Scope]
    sender: Sender | None


ANYBODY = Caller(
    name="local",
    scopes=frozenset(Scope),
    sender=Sender(LOCAL_SOURCE, Permit(tuple(COMMAND_TYPES), None, FILE)),
)
"""Whoever calls where no file of tokens is configured."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The callers, by the SHA-256 of their tokens in lowercase hex."""

    callers: Mapping[str, Caller]

    def find(self, token: str) -> Caller | None:
        """Return who a token belongs to. None for a token that is not in the file."""
        # How long the look-up takes tells something of a hash at most, and nothing of a token.
        return self.callers.get(digest(token))

    def sources(self) -> set[str]:
        """Return the sources of all that may be sent."""
        return {caller.sender.source for caller in self.callers.values() if caller.sender is not None}


def digest(token: str) -> str:
    """Return what the file holds instead of a token.

    A token is 256 random bits, so a fast hash is enough: nobody can try them all.
    """
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def new_token() -> str:
    """Return a new token."""
    return PREFIX + secrets.token_urlsafe(32)


def load_tokens(path: Path) -> Tokens:
    """Read the file of API tokens.

    Raises:
        ConfigurationError: the file cannot be read, or something in it is wrong. The message names the file, the
            table and what is allowed.
    """
    try:
        return Tokens(_read(read_document(path)))
    except MistakeError as error:
        raise ConfigurationError(f"API tokens file {path}: {error}") from None


def _read(document: Mapping[str, Any]) -> dict[str, Caller]:
    if not document:
        raise MistakeError("names no token; make one with `invigilator token new NAME`")
    callers: dict[str, Caller] = {}
    for name, table in document.items():
        try:
            hashed, caller = _caller(name, table)
        except MistakeError as error:
            raise MistakeError(f'["{name}"] {error}') from None
        if hashed in callers:
            raise MistakeError(f'["{name}"] sha256: is also that of ["{callers[hashed].name}"]')
        callers[hashed] = caller
    return callers


def _caller(name: str, table: Any) -> tuple[str, Caller]:
    if not isinstance(table, dict):
        raise MistakeError('must be a table ["NAME"]')
    if unknown := sorted(table.keys() - set(_MEMBERS)):
        raise MistakeError(f"{unknown[0]}: is not allowed; a token has {', '.join(_MEMBERS)}")
    hashed = table.get("sha256")
    if not isinstance(hashed, str) or not _SHA256.fullmatch(hashed):
        raise MistakeError("sha256: must be 64 lowercase hexadecimal digits")
    scopes = strings(table, "scopes")
    if not set(scopes) <= set(Scope):
        raise MistakeError(f"scopes: must be a list out of {', '.join(Scope)}")
    return hashed, Caller(name, frozenset(map(Scope, scopes)), _sender(table, Scope.COMMAND in scopes))


def _sender(table: Mapping[str, Any], may_send: bool) -> Sender | None:
    if not may_send:
        if stray := [member for member in _OF_COMMANDS if member in table]:
            raise MistakeError(f"{stray[0]}: is only for a token with the scope {Scope.COMMAND}")
        return None
    source = table.get("source")
    if not isinstance(source, str) or not 1 <= len(source) <= MAX_ID:
        raise MistakeError(f"source: must be a string of 1 to {MAX_ID} characters")
    return Sender(source, read_permit(table, FILE))


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's own, out of reach of others."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
