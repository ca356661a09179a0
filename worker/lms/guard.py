"""Keeps requests away from private networks (server-side request forgery).

A name is resolved once, each address is judged, and the connection goes to an address that was judged. So it
changes nothing if the name stands for another address a moment later (DNS rebinding). TLS still checks the name.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterable, Sequence
from ipaddress import ip_address
from typing import Any

import httpcore

from worker.addresses import Address, host_of, literal
from worker.errors import Misconfigured

CONNECT_S = 3.0
"""Seconds for a connection to one address. The next one of the same name is tried after that."""

Resolve = Callable[[str, int], Coroutine[Any, Any, Sequence[str]]]


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host, in the order of preference of the system.

    Raises:
        OSError: the name is not known.
    """
    # As bytes: the text would go through a codec that raises UnicodeError for a label that is too long.
    name = host.encode("ascii")
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(host_of(address) for *_, address in found))


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to addresses that are allowed, and to no others."""

    def __init__(
        self,
        may_reach: Callable[[Address], bool],
        setting: str,
        resolve: Resolve = resolve,
        network: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        """Connect to nothing yet.

        Parameters:
            may_reach: judges an address.
            setting: what a person changes to allow more.
            resolve: finds the addresses of a host.
            network: makes the connections.
        """
        self._may_reach = may_reach
        self._setting = setting
        self._resolve = resolve
        self._network = network or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline of the call covers all of it
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of a host that is allowed and answers.

        Raises:
            Misconfigured: none of its addresses is allowed.
            OSError: the name is not known.
            httpcore.ConnectError: no address answers.
        """
        written = literal(host)
        found = await self._resolve(host, port) if written is None else [str(written)]
        allowed = [address for address in found if self._may_reach(ip_address(address))]
        if not allowed:
            raise Misconfigured("the URL leads to a private or reserved address", setting=self._setting)
        *others, last = allowed
        for address in others:
            try:
                return await self._network.connect_tcp(
                    address, port, CONNECT_S, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._network.connect_tcp(last, port, None, local_address, socket_options)
