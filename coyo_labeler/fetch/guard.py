"""The addresses that may be connected to: never those of the network that runs the job.

The addresses of a name are checked when it is resolved, and each address once more where its socket
is made, so that the address connected to is one that was checked, on every redirect too.
"""

import errno
import ipaddress
import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Cloud metadata and platform services that no general rule refuses, or that `allow_private` would
#: let through. On IPv6 the clouds keep whole networks for such services.
METADATA = tuple(
    ipaddress.ip_network(network)
    for network in (
        "169.254.169.254/32",  # most clouds
        "168.63.129.16/32",  # Azure's platform, a public address
        "100.100.100.200/32",  # Alibaba
        "192.0.0.192/32",  # Oracle
        "fd00:ec2::/32",  # AWS: metadata ::254, credentials of containers ::23, names, time
        "fd20:ce::/32",  # Google
        "fd00:42::/32",  # Scaleway
        "fd00:c1::/32",  # Oracle
    )
)

#: Networks whose addresses end in the IPv4 address that they lead to; the second is for use inside
#: a network, and stays private whatever it leads to.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PRIVATE_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")


class ForbiddenAddressError(PermissionError):
    """An address that must not be connected to."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "the address is not a public one")


class Guard:
    """Decides which addresses may be connected to.

    allow_private: allow private and loopback addresses. loopback_only: allow nothing but loopback.
    Link-local, multicast, reserved and cloud metadata addresses are never allowed.
    """

    def __init__(self, allow_private: bool = False, loopback_only: bool = False) -> None:
        self._allow_private = allow_private
        self._loopback_only = loopback_only

    def allows(self, address: str) -> bool:
        """Whether a connection to a numeric address may be made."""
        try:
            numeric = ipaddress.ip_address(address)
        except ValueError:
            return False
        return all(self._allows(target) for target in _targets(numeric))

    def _allows(self, address: IPAddress) -> bool:
        if (
            any(address in network for network in METADATA)
            or address.is_link_local
            or address.is_multicast
        ):
            return False
        if self._loopback_only and not address.is_loopback:
            return False
        if address.is_loopback:
            return self._allow_private
        if address.is_unspecified or address.is_reserved:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.is_site_local:
            return self._allow_private  # fec0::/10, which Python counts as global
        return address.is_global or (self._allow_private and address.is_private)

    def socket_factory(self, info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        """A socket for an address that may be connected to; called right before the connect.

        Raises: ForbiddenAddressError.
        """
        family, kind, protocol, _, (host, *_) = info
        if not self.allows(str(host)):
            raise ForbiddenAddressError()
        return socket.socket(family, kind, protocol)


def _targets(address: IPAddress) -> list[IPAddress]:
    """The addresses that a connection would reach: itself, and IPv4 addresses embedded in it."""
    targets: list[IPAddress] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return [address.ipv4_mapped]
        if address.sixtofour is not None:
            targets.append(address.sixtofour)
        if address.teredo is not None:
            targets.extend(address.teredo)
        last = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address in _NAT64:
            targets = [last]
        if address in _PRIVATE_NAT64:
            targets.append(last)
    return targets


class GuardedResolver(AbstractResolver):
    """Resolves names, and refuses a name where any of its addresses is forbidden."""

    def __init__(self, guard: Guard, resolver: AbstractResolver | None = None) -> None:
        self._guard = guard
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Addresses of a name. Raises: ForbiddenAddressError, OSError."""
        if self._resolver is None:  # made here, because it belongs to the running event loop
            self._resolver = ThreadedResolver()
        addresses = await self._resolver.resolve(host, port, family)
        if not all(self._guard.allows(address["host"]) for address in addresses):
            raise ForbiddenAddressError()
        return addresses

    async def close(self) -> None:
        """Release the resolver."""
        if self._resolver is not None:
            await self._resolver.close()
