"""Judges addresses: which of them a URL that somebody chose may lead to."""

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

LOCALHOST = "localhost"

_NAT64 = IPv6Network("64:ff9b::/96")
"""A gateway turns these into the IPv4 address in their last 32 bits (RFC 6052)."""

# From IANA's registries of special-purpose addresses: where `is_global` differs between Python 3.11 and 3.14, or
# lets through what leads to no public host. So the verdict is the same in all of them.
_SPECIAL = tuple(
    ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments; 192.0.0.192 has been a cloud's metadata address
        "192.88.99.0/24",  # relays of 6to4, given up
        "64:ff9b:1::/48",  # NAT64 of a local network
        "100::/32",  # discard only, and dummy prefix
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
    )
)

Address = IPv4Address | IPv6Address


def literal(host: str) -> Address | None:
    """Return the address that a host is written as, in any form that the system takes for one. None for a name.

    Example:
        >>> literal("2130706433"), literal("0x7f.1"), literal("hooks.example")
        (IPv4Address('127.0.0.1'), IPv4Address('127.0.0.1'), None)
    """
    try:
        # The dot that ends a name ends an address for some systems, too.
        found = socket.getaddrinfo(host.removesuffix("."), None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None
    return ip_address(host_of(found[0][4]))


def host_of(address: tuple[Any, ...]) -> str:
    """Return the address of a socket address; one of a single link (fe80::/10) with the number of the link."""
    host, _, *rest = address
    scope = rest[1] if rest else 0
    return f"{host}%{scope}" if scope else str(host)


def is_loopback(address: Address) -> bool:
    """Return whether an address is that of this machine, whatever it is wrapped in."""
    return _unwrapped(address).is_loopback


def is_public(address: Address) -> bool:
    """Return whether an address is one of the Internet, and neither private nor reserved.

    An IPv6 address that stands for an IPv4 address is judged by that one.

    Example:
        >>> [is_public(ip_address(one)) for one in ("203.0.114.7", "169.254.169.254", "::ffff:10.0.0.1")]
        [True, False, False]
    """
    inner = _unwrapped(address)
    if any(inner in network for network in _SPECIAL):
        return False
    if isinstance(inner, IPv6Address) and (inner.is_site_local or inner.is_reserved):
        return False
    return inner.is_global and not inner.is_multicast


def _unwrapped(address: Address) -> Address:
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    # Mapped addresses and those of 6to4 (2002::/16) lead to the IPv4 address that they hold.
    return address.ipv4_mapped or address.sixtofour or address
