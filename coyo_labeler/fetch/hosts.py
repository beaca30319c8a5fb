"""How a task treats each host: simultaneous requests, pace, requested pauses, failures."""

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count

from coyo_labeler.fetch.status import FetchError, Status

#: A host that could not be connected to this many times in a row is left alone for a while.
FAILURES_IN_A_ROW = 20
DOWN_SECONDS = 300.0
#: Hosts with failures or pauses that a task remembers; those asked longest ago go first.
REMEMBERED_HOSTS = 10_000

#: Position in the queue, lowest first: the shard's in the task, then the row's in the shard.
Rank = tuple[int, int]

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
    """The seconds that an image has left. Waiting for a turn is free; work and pauses cost.

    rank: its position in the queue for a turn.
    """

    def __init__(self, seconds: float, rank: Rank = (0, 0)) -> None:
        self.seconds = seconds
        self.left = seconds
        self.rank = rank

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


class Slots:
    """A limited number of slots; a free slot goes to the lowest rank that waits."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: list[tuple[Rank, int, asyncio.Future[None]]] = []
        self._arrivals = count()

    @asynccontextmanager
    async def hold(self, rank: Rank) -> AsyncIterator[None]:
        """Wait for a slot, and keep it inside the block."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(rank)
        try:
            yield
        finally:
            self._release()

    async def _wait(self, rank: Rank) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (rank, next(self._arrivals), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()
            raise

    def _release(self) -> None:
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


@dataclass
class Host:
    """The state of a host in a task; times are the event loop's."""

    slots: asyncio.Semaphore
    pace: asyncio.Lock = field(default_factory=asyncio.Lock)  # held by the request that starts next
    users: int = 0  # requests that wait or run
    next_time: float = 0.0
    blocked_until: float = 0.0
    failures: int = 0  # in a row
    down_until: float = 0.0
    # Status and error; not the exception, which would keep the frames that it passed through.
    last_failure: tuple[Status, str] | None = None


class Hosts:
    """The hosts that a task is talking to.

    connections: simultaneous requests to one host. interval_seconds: between the starts of two.
    """

    def __init__(self, connections: int, interval_seconds: float = 0.0) -> None:
        self._connections = connections
        self._interval = interval_seconds
        self._hosts: OrderedDict[str, Host] = OrderedDict()

    @asynccontextmanager
    async def turn(self, name: str, budget: Budget) -> AsyncIterator[Host]:
        """Wait until the host may be asked; a FetchError in the block counts against the host.

        Raises: FetchError at once where the host is down, or asks for a longer pause than is left.
        """
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = Host(asyncio.Semaphore(self._connections))
        self._hosts.move_to_end(name)
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
            elif len(self._hosts) > REMEMBERED_HOSTS:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        oldest = next((name for name, host in self._hosts.items() if not host.users), None)
        if oldest is not None:
            del self._hosts[oldest]

    async def _wait(self, host: Host, budget: Budget) -> None:
        """Wait until the interval since the last start is over, however late that start was."""
        loop = asyncio.get_running_loop()
        async with host.pace if self._interval else nullcontext():
            await _respect(host, budget)
            while (early := host.next_time - loop.time()) > 0:
                await asyncio.sleep(early)
                await _respect(host, budget)  # a pause may have been asked for meanwhile
            host.next_time = loop.time() + self._interval


async def _respect(host: Host, budget: Budget) -> None:
    """Make the pauses that a host asked for. Raises: FetchError as `Hosts.turn` does."""
    loop = asyncio.get_running_loop()
    if host.down_until > loop.time():
        assert host.last_failure is not None
        status, error = host.last_failure
        raise FetchError(status, f"{error}; not asked again for now")
    while (blocked := host.blocked_until - loop.time()) > 0:
        if blocked >= budget.left:
            raise FetchError(Status.HTTP_THROTTLED, f"the host asked to wait {blocked:.0f} s")
        await budget.pause(blocked)


def _note(host: Host, error: FetchError) -> None:
    now = asyncio.get_running_loop().time()
    if error.retry_after is not None:
        host.blocked_until = max(host.blocked_until, now + error.retry_after)
    if error.status not in _NO_ANSWER:
        host.failures = 0
        return
    host.failures += 1
    host.last_failure = (error.status, error.error)
    # A name that does not exist is not looked up again.
    if error.status is Status.DNS_NOT_FOUND or host.failures >= FAILURES_IN_A_ROW:
        host.down_until = now + DOWN_SECONDS


def _is_remembered(host: Host) -> bool:
    now = asyncio.get_running_loop().time()
    return host.failures > 0 or host.blocked_until > now or host.next_time > now
