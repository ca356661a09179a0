"""What a sender may ask for, as two files say: that of the command keys, and that of the API's tokens."""

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from events.commands import COMMAND_TYPES, AttemptUpdateStatus, CommandData
from events.errors import InvalidMessageError
from events.vocabulary import QuarantineCode, Status
from worker.textfiles import NotTextError, read_text

ANY = ["*"]


class MistakeError(ValueError):
    """The message says what is wrong in a file, and what is allowed there."""


@dataclass(frozen=True, slots=True)
class Permit:
    """What a sender may ask for.

    Parameters:
        types: the command types.
        to_status: the statuses that its update-status commands may ask for; None is any, whatever it says.
        file: what the file is called that says so.
    """

    types: Collection[str]
    to_status: Collection[str] | None
    file: str

    def check(self, data: CommandData) -> None:
        """Refuse what the sender may not ask for.

        Raises:
            InvalidMessageError: `not_allowed`.
        """
        if data.type not in self.types:
            raise self._not_allowed(f"type: its source may not use {data.type}", "types")
        if self.to_status is None or not isinstance(data, AttemptUpdateStatus):
            return
        if data.to_status not in self.to_status:
            raise self._not_allowed("to_status: its source may not ask for this status", "to_status")

    def _not_allowed(self, what: str, member: str) -> InvalidMessageError:
        return InvalidMessageError(
            QuarantineCode.NOT_ALLOWED, f"{what}; if it should, add it to its {member} in the {self.file}"
        )


def read_document(path: Path) -> dict[str, Any]:
    """Read a TOML file that holds secrets.

    Raises:
        MistakeError: it cannot be read, or is no TOML. The message quotes nothing of it.
    """
    try:
        return tomllib.loads(read_text(path))
    except OSError as error:
        raise MistakeError(f"cannot be read: {error.strerror}") from None
    except NotTextError as error:
        raise MistakeError(str(error)) from None
    except RecursionError:
        raise MistakeError("is no TOML: it is nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        # Only the place is shown, because the rest of the text may quote a secret.
        [place] = re.findall(r"\(at .*\)", str(error)) or [""]
        raise MistakeError(f"is no TOML {place}") from None


def read_permit(table: Mapping[str, Any], file: str) -> Permit:
    """Read the members `types` and `to_status` of a table.

    Parameters:
        file: what the file is called.

    Raises:
        MistakeError: one is missing or wrong.
    """
    types = _choice(table, "types", list(COMMAND_TYPES)) or tuple(COMMAND_TYPES)
    return Permit(types, _to_status(table, AttemptUpdateStatus.type in types), file)


def _to_status(table: Mapping[str, Any], may_update: bool) -> list[str] | None:
    if may_update:
        return _choice(table, "to_status", list(Status))
    if "to_status" in table:
        raise MistakeError(f"to_status: is only for a source whose types have {AttemptUpdateStatus.type}")
    return []


def _choice(table: Mapping[str, Any], member: str, allowed: Collection[str]) -> list[str] | None:
    chosen = strings(table, member)
    if chosen == ANY:
        return None
    if not set(chosen) <= set(allowed):
        raise MistakeError(f'{member}: must be ["*"], or a list out of {", ".join(allowed)}')
    return chosen


def strings(table: Mapping[str, Any], member: str) -> list[str]:
    """Return a member of a table that must be a list of strings.

    Raises:
        MistakeError: it is none, or is empty, or has the same string twice.
    """
    value = table.get(member)
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise MistakeError(f"{member}: must be a list of strings, with at least one")
    if len(set(value)) < len(value):
        raise MistakeError(f"{member}: has the same one twice")
    return value
