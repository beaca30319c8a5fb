"""What a task's connections may take of this machine: file descriptors, and bytes of headers."""

import errno
import functools
import logging
import os
import resource
import socket
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import LineTooLong

logger = logging.getLogger(__name__)

#: Bytes of the header of an answer, which is what browsers allow: a site's cookies can be long.
HEADER_BYTES = 256 * 2**10
DNS_CACHE_SECONDS = 300
#: How long a connection is kept that nobody uses.
KEPT_SECONDS = 5.0

#: Descriptors of a task beside its connections: Spark's own, resolver threads, files of shards.
_OTHER_DESCRIPTORS = 256
#: For each connection in use there may be one that is kept for the host's next image.
_DESCRIPTORS_PER_CONNECTION = 2
#: Errors that say nothing about a host: this machine has no descriptors or memory left.
_OF_THIS_MACHINE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class MachineError(OSError):
    """This machine has no descriptors or memory left, which is not a host's fault."""


SocketFactory = Callable[[tuple[int, int, int, str, tuple[object, ...]]], socket.socket]


def fit_connections(wanted: int) -> int:
    """How many connections this process has descriptors for, at most `wanted`.

    Its limit is raised first, as far as it may be without privileges.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _OTHER_DESCRIPTORS + _DESCRIPTORS_PER_CONNECTION * wanted
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    # Where the limit is very low, half of it is all that can be hoped for.
    fitting = max(1, (soft - min(_OTHER_DESCRIPTORS, soft // 2)) // _DESCRIPTORS_PER_CONNECTION)
    logger.warning(
        "fetch: connections=%d, but a process may open %d files here: %d images are asked for at "
        "once; raise the limit (ulimit -n %d) or set connections=%d",
        wanted,
        soft,
        fitting,
        needed,
        fitting,
    )
    return fitting


def refuse_machine_fault(error: Exception) -> None:
    """Raises: MachineError where an error of the HTTP library is this machine's, not the host's."""
    if isinstance(error, OSError) and error.errno in _OF_THIS_MACHINE:
        raise MachineError(
            error.errno,
            f"{os.strerror(error.errno)}; raise the limit of open files (ulimit -n), or lower "
            "connections",
        ) from error


class BoundedHandler(ResponseHandler):
    """A connection that breaks off where the header of an answer has more than `HEADER_BYTES`."""

    _header_bytes = 0
    _in_header = False

    def set_response_params(self, **parameters: Any) -> None:
        """Called before each answer."""
        self._header_bytes, self._in_header = 0, True
        super().set_response_params(**parameters)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Called when a header is complete."""
        self._in_header = False
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        """Called with bytes from the network."""
        super().data_received(data)
        if self._in_header:
            self._header_bytes += len(data)
            if self._header_bytes > HEADER_BYTES and self.transport is not None:
                self.transport.abort()
                self.set_exception(LineTooLong(b"header", HEADER_BYTES))


def connector(resolver: AbstractResolver, socket_factory: SocketFactory) -> aiohttp.TCPConnector:
    """A pool of connections without a limit of its own; `hosts.Slots` has one."""
    pool = aiohttp.TCPConnector(
        limit=0,
        ttl_dns_cache=DNS_CACHE_SECONDS,
        keepalive_timeout=KEPT_SECONDS,
        resolver=resolver,
        socket_factory=socket_factory,
    )
    # aiohttp bounds each field of a header and their number, not the whole: 32 MB at 256 kB each.
    pool._factory = functools.partial(BoundedHandler, loop=pool._loop)  # type: ignore[assignment]
    return pool
