"""How a task treats each host: connections at once, pace, pauses that it asks for, failures."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from coyo_labeler.fetch.status import FetchError, Status

#: A host with that many failures to connect in a row is left alone for a while.
FAILURES_IN_A_ROW = 20
DOWN_SECONDS = 300.0

_NO_ANSWER = frozenset(
    {
        Status.DNS_NOT_FOUND,
        Status.DNS_UNAVAILABLE,
        Status.CONNECTION_FAILED,
        Status.TLS_FAILED,
        Status.TIMEOUT,
    }
)


class Budget:
    """The seconds that an image has left. Waiting for a turn is free; work and pauses cost."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.left = seconds

    @asynccontextmanager
    async def spend(self) -> AsyncIterator[None]:
        """Count the time in the block. Raises: FetchError (timeout) when none is left."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            async with asyncio.timeout(max(0.0, self.left)):
                yield
        except TimeoutError:
            raise FetchError(Status.TIMEOUT, f"not done in {self.seconds:g} s") from None
        finally:
            self.left -= loop.time() - start

    async def pause(self, seconds: float) -> None:
        """Wait, at the image's expense."""
        await asyncio.sleep(seconds)
        self.left -= seconds


@dataclass
class Host:
    """What a task knows of a host; times are the event loop's."""

    slots: asyncio.Semaphore
    users: int = 0  # requests that wait or run
    next_time: float = 0.0
    blocked_until: float = 0.0
    failures: int = 0  # in a row
    down_until: float = 0.0
    last_failure: FetchError | None = field(default=None, repr=False)


class Hosts:
    """The hosts that a task is talking to.

    connections: requests at once to one host. interval_seconds: between the starts of two.
    """

    def __init__(self, connections: int, interval_seconds: float = 0.0) -> None:
        self._connections = connections
        self._interval = interval_seconds
        self._hosts: dict[str, Host] = {}

    @asynccontextmanager
    async def turn(self, name: str, budget: Budget) -> AsyncIterator[Host]:
        """Wait until the host may be asked; what the block raises is held against it.

        Raises: FetchError at once where the host is down, or wants a longer pause than is left.
        """
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = Host(asyncio.Semaphore(self._connections))
        host.users += 1
        try:
            async with host.slots:
                await self._wait(host, budget)
                try:
                    yield host
                except FetchError as error:
                    _note(host, error)
                    raise
                host.failures = 0
        finally:
            host.users -= 1
            if not host.users and not _is_remembered(host):
                del self._hosts[name]

    async def _wait(self, host: Host, budget: Budget) -> None:
        now = asyncio.get_running_loop().time()
        if host.down_until > now:
            assert host.last_failure is not None
            raise FetchError(
                host.last_failure.status, f"{host.last_failure.error}; not asked again for now"
            )
        blocked = host.blocked_until - now
        if blocked >= budget.left:
            raise FetchError(Status.HTTP_THROTTLED, f"the host asked to wait {blocked:.0f} s")
        if blocked > 0:
            await budget.pause(blocked)
        if self._interval:
            now = asyncio.get_running_loop().time()
            start = max(now, host.next_time)
            host.next_time = start + self._interval
            await asyncio.sleep(start - now)


def _note(host: Host, error: FetchError) -> None:
    now = asyncio.get_running_loop().time()
    if error.retry_after is not None:
        host.blocked_until = max(host.blocked_until, now + error.retry_after)
    if error.status not in _NO_ANSWER:
        host.failures = 0
        return
    host.failures += 1
    host.last_failure = error
    # A name that does not exist is not looked up again.
    if error.status is Status.DNS_NOT_FOUND or host.failures >= FAILURES_IN_A_ROW:
        host.down_until = now + DOWN_SECONDS


def _is_remembered(host: Host) -> bool:
    now = asyncio.get_running_loop().time()
    return host.failures > 0 or host.blocked_until > now or host.next_time > now
