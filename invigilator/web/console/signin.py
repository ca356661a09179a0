"""The ways to sign in that look at the request alone: none on this machine, and the headers of a proxy."""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request

from invigilator.acts.actor import Role
from invigilator.web.access import is_forwarded
from invigilator.web.console.people import Person, is_name, role_of

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

USER_HEADER = "X-Forwarded-User"
GROUPS_HEADER = "X-Forwarded-Groups"
NO_ROLE = "None of your groups has a role here. Ask for invigilator-viewer, -operator or -admin."


class SignIn(Protocol):
    """A way to sign in."""

    @property
    def notice(self) -> str | None:
        """What each page says of it. None where there is nothing to say."""
        ...

    def person(self, request: Request) -> Person | None:
        """Return who has sent a request. None for somebody who is to sign in first.

        Raises:
            HTTPException: whoever it is may not look at the console.
        """
        ...


class Nobody:
    """Everybody on this machine is an administrator, and nobody else can come."""

    notice = "Nobody has to sign in: whoever can use this machine is an administrator."

    def person(self, request: Request) -> Person:
        """Return the person `local`."""
        if is_forwarded(request):
            raise HTTPException(
                HTTPStatus.FORBIDDEN,
                "The request came through a proxy, so it may be anybody's. Configure a sign-in: docs/console.md.",
            )
        return Person("local", Role.ADMIN, _address(request), is_claimed=True)


@dataclass(frozen=True, slots=True)
class ProxyHeaders:
    """A proxy signs people in, and says in headers who they are.

    Parameters:
        proxies: the networks from which the headers are believed.
        roles: groups that give a role besides ours.
    """

    proxies: Sequence[Network]
    roles: Mapping[str, Role]
    notice: str | None = None

    def person(self, request: Request) -> Person:
        """Return the person whom the headers name."""
        if not self._is_trusted(_address(request)):
            raise HTTPException(
                HTTPStatus.FORBIDDEN, "Come through the proxy: requests from elsewhere are not believed."
            )
        name = _only(request, USER_HEADER)
        if not is_name(name):
            raise HTTPException(HTTPStatus.FORBIDDEN, f"The proxy names nobody in {USER_HEADER}.")
        role = role_of(map(str.strip, _only(request, GROUPS_HEADER).split(",")), self.roles)
        if role is None:
            raise HTTPException(HTTPStatus.FORBIDDEN, NO_ROLE)
        # A proxy adds the address that it has seen at the end. What stands before is what the browser claims.
        seen = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
        return Person(name, role, seen if _parsed(seen) else _address(request))

    def _is_trusted(self, address: str | None) -> bool:
        found = _parsed(address or "")
        return found is not None and any(found in network for network in self.proxies)


def _only(request: Request, header: str) -> str:
    # Two of them are one of the proxy's and one of somebody who pretends.
    values = request.headers.getlist(header)
    if len(values) > 1:
        raise HTTPException(HTTPStatus.FORBIDDEN, f"The request has {header} more than once.")
    return values[0] if values else ""


def _address(request: Request) -> str | None:
    return request.client.host if request.client else None


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return None
    # A socket that takes both kinds shows IPv4 addresses so.
    return getattr(found, "ipv4_mapped", None) or found
