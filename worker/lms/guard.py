"""Keeps requests away from private networks (server-side request forgery).

A name is resolved once, each address is judged, and the connection goes to an address that was judged. So it
changes nothing if the name stands for another address a moment later (DNS rebinding). TLS still checks the name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from worker.addresses import Address
from worker.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class Guard:
    """Leaves out the addresses of a host that may not be reached.

    Parameters:
        may_reach: judges an address.
        setting: what a person changes to allow more.
    """

    may_reach: Callable[[Address], bool]
    setting: str

    def __call__(self, addresses: Sequence[str]) -> Sequence[str]:
        """Return those that may be reached, in their order.

        Raises:
            Misconfigured: none may.
        """
        allowed = [address for address in addresses if self.may_reach(ip_address(address))]
        if not allowed:
            raise Misconfigured("the URL leads to a private or reserved address", setting=self.setting)
        return allowed
