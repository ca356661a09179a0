"""How a call shows the LMS who calls: with a token that a setting holds, or without one.

`worker.lms.oauth` has the tokens that a token server gives out.
"""

# ruff: noqa: ARG002 - what does not change needs neither a client nor to know what was refused

import re
from dataclasses import dataclass, field
from typing import Protocol

import httpcore

from worker.errors import ConfigurationError
from worker.lms.ports import Deadline

TOKEN_SETTING = "INVIGILATOR_LMS_TOKEN"  # noqa: S105 - the name of the setting, no token

_SENDABLE = re.compile(r"[\x21-\x7e]+")


class Credentials(Protocol):
    """Gives each call its bearer token. Many threads may ask at the same time."""

    @property
    def setting(self) -> str:
        """The settings to check when the LMS refuses us, as a person reads them."""
        ...

    def token(self, pool: httpcore.ConnectionPool, deadline: Deadline) -> str | None:
        """Return the token to call with, or None to call without one.

        Parameters:
            pool: the connections to fetch it with.
            deadline: of the call that needs it.

        Raises:
            Unavailable: there is no token now, and may be one later.
            Misconfigured: there is no token until a person corrects a setting.
        """
        ...

    def renew(self, refused: str | None) -> bool:
        """Forget a token that the LMS has refused. Return whether `token` may now have another one."""
        ...


@dataclass(frozen=True, slots=True)
class Anonymous:
    """No token. What shows who calls is a client certificate, or a header of the settings, or nothing.

    Parameters:
        setting: the settings to check when the LMS refuses us.
    """

    setting: str = TOKEN_SETTING

    def token(self, pool: httpcore.ConnectionPool, deadline: Deadline) -> None:
        """Return None."""

    def renew(self, refused: str | None) -> bool:
        """Return False."""
        return False


@dataclass(frozen=True, slots=True)
class BearerToken:
    """A token that does not change.

    Parameters:
        value: the token.

    Raises:
        ConfigurationError: no header can carry it.
    """

    value: str = field(repr=False)

    def __post_init__(self) -> None:
        # Other characters would make each call fail, in an error that quotes the token.
        if not is_sendable(self.value):
            raise ConfigurationError(f"{TOKEN_SETTING} must be printable ASCII without spaces")

    @property
    def setting(self) -> str:
        """The setting that holds the token."""
        return TOKEN_SETTING

    def token(self, pool: httpcore.ConnectionPool, deadline: Deadline) -> str:
        """Return the token."""
        return self.value

    def renew(self, refused: str | None) -> bool:
        """Return False."""
        return False


def is_sendable(token: str) -> bool:
    """Return whether a header can carry a token: printable ASCII without spaces."""
    return _SENDABLE.fullmatch(token) is not None
