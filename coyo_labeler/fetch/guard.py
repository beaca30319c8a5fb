"""Which addresses may be connected to: never the network that runs the job.

Names are checked when they are resolved, and each address once more where its socket is made, so
that what was checked is what is connected to, on every redirect too.
"""

import errno
import ipaddress
import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Cloud metadata and platform services on addresses that no general rule refuses, or that
#: `allow_private` would let through.
METADATA = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "169.254.169.254",  # most clouds
        "fd00:ec2::254",  # AWS on IPv6
        "168.63.129.16",  # Azure's platform, a public address
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
    )
)

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class ForbiddenAddressError(PermissionError):
    """An address that must not be connected to."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "the address is not a public one")


class Guard:
    """Says which addresses may be connected to.

    allow_private: let private and loopback addresses through. loopback_only: let nothing else
    through. Link-local, multicast, reserved and cloud metadata addresses are never let through.
    """

    def __init__(self, allow_private: bool = False, loopback_only: bool = False) -> None:
        self._allow_private = allow_private
        self._loopback_only = loopback_only

    def allows(self, address: str, port: int) -> bool:
        """Whether a connection to a numeric address may be made."""
        del port
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return all(self._allows(one) for one in _meant(found))

    def _allows(self, address: IPAddress) -> bool:
        if address in METADATA or address.is_link_local or address.is_multicast:
            return False
        if self._loopback_only and not address.is_loopback:
            return False
        if address.is_loopback:
            return self._allow_private
        if address.is_unspecified or address.is_reserved:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.is_site_local:
            return self._allow_private  # fec0::/10, which Python takes for global
        return address.is_global or (self._allow_private and address.is_private)

    def socket_factory(self, info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        """A socket for an address that may be connected to; called right before the connect.

        Raises: ForbiddenAddressError.
        """
        family, kind, protocol, _, (host, port, *_) = info
        if not self.allows(str(host), int(str(port))):
            raise ForbiddenAddressError()
        return socket.socket(family, kind, protocol)


def _meant(address: IPAddress) -> list[IPAddress]:
    """The address, and the IPv4 addresses that it stands for."""
    meant: list[IPAddress] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return [address.ipv4_mapped]
        if address.sixtofour is not None:
            meant.append(address.sixtofour)
        if address.teredo is not None:
            meant.extend(address.teredo)
        if address in _NAT64:
            meant = [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    return meant


class GuardedResolver(AbstractResolver):
    """Resolves names, and refuses a name of which any address is forbidden."""

    def __init__(self, guard: Guard, resolver: AbstractResolver | None = None) -> None:
        self._guard = guard
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Addresses of a name. Raises: ForbiddenAddressError, OSError."""
        if self._resolver is None:  # made here, for it belongs to the running event loop
            self._resolver = ThreadedResolver()
        found = await self._resolver.resolve(host, port, family)
        if not all(self._guard.allows(address["host"], port) for address in found):
            raise ForbiddenAddressError()
        return found

    async def close(self) -> None:
        """Release the resolver."""
        if self._resolver is not None:
            await self._resolver.close()
