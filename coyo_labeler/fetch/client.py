"""Downloads over HTTP: many at once, each bounded in time, bytes and attempts.

aiohttp, because its parser is compiled, it pools connections over thousands of hosts, and its
connector lets `guard` see every address at the moment of the connect.
"""

import asyncio
import random
import socket
import ssl
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import aiohttp
from yarl import URL

from coyo_labeler.fetch.guard import ForbiddenAddressError, Guard, GuardedResolver
from coyo_labeler.fetch.status import TRANSIENT, FetchError, Status

MAX_REDIRECTS = 5
#: Names that are resolved at once; a resolver's answer can take seconds, and blocks its thread.
RESOLVER_THREADS = 64
DNS_CACHE_SECONDS = 300
CHUNK_BYTES = 64 * 2**10
#: Downloads that pass this size go on a few at a time, so that memory is bounded.
LARGE_BYTES = 4 * 2**20
LARGE_AT_ONCE = 8

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FINAL_DNS_ERRORS = frozenset(
    {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME), socket.EAI_FAIL}
)


@dataclass(frozen=True)
class Limits:
    """Bounds of every download; seconds and bytes."""

    timeout_seconds: float = 30.0
    connect_seconds: float = 10.0
    retries: int = 2
    backoff_seconds: float = 0.5
    max_bytes: int = 32 * 2**20
    connections: int = 128


@dataclass(frozen=True)
class Body:
    """What a URL gave."""

    data: bytes
    http_status: int


class Client:
    """An asynchronous context manager; `download` may be called many times at once."""

    def __init__(self, limits: Limits, guard: Guard, user_agent: str) -> None:
        self._limits = limits
        self._guard = guard
        self._headers = {
            "User-Agent": user_agent,
            "Accept": "image/*,*/*;q=0.5",
            "Accept-Encoding": "identity",
        }
        self._slots = asyncio.Semaphore(limits.connections)
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)

    async def __aenter__(self) -> "Client":
        self._resolver_threads = ThreadPoolExecutor(RESOLVER_THREADS, "resolve")
        asyncio.get_running_loop().set_default_executor(self._resolver_threads)
        connector = aiohttp.TCPConnector(
            limit=0,
            ttl_dns_cache=DNS_CACHE_SECONDS,
            resolver=GuardedResolver(self._guard),
            socket_factory=self._guard.socket_factory,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=self._limits.connect_seconds,
                sock_connect=self._limits.connect_seconds,
            ),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()
        self._resolver_threads.shutdown(wait=False, cancel_futures=True)

    async def download(self, url: str, seconds: float) -> Body:
        """The body of a URL, after as many attempts as the limits and `seconds` allow.

        Raises: FetchError.
        """
        async with self._slots:
            deadline = asyncio.get_running_loop().time() + seconds
            for attempt in range(self._limits.retries + 1):
                try:
                    async with asyncio.timeout_at(deadline):
                        return await self._follow(url)
                except TimeoutError:
                    raise FetchError(Status.TIMEOUT, f"not done in {seconds:g} s") from None
                except FetchError as error:
                    pause = self._pause(attempt, error)
                    left = deadline - asyncio.get_running_loop().time()
                    last = attempt == self._limits.retries
                    if error.status not in TRANSIENT or last or pause >= left:
                        raise
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    def _pause(self, attempt: int, error: FetchError) -> float:
        backoff: float = self._limits.backoff_seconds * 2**attempt * random.uniform(0.5, 1.5)
        return max(backoff, error.retry_after or 0.0)

    async def _follow(self, url: str) -> Body:
        """One attempt, redirects included."""
        target = parse_url(url)
        for _ in range(MAX_REDIRECTS + 1):
            try:
                async with self._session.get(target, allow_redirects=False) as response:
                    if response.status not in _REDIRECTS:
                        return await self._read(response)
                    location = response.headers.get("Location", "")
            except (aiohttp.ClientError, ValueError, OSError) as error:
                raise explain(error) from error
            target = parse_url(location, base=target)
        raise FetchError(Status.TOO_MANY_REDIRECTS, f"more than {MAX_REDIRECTS} redirects")

    async def _read(self, response: aiohttp.ClientResponse) -> Body:
        refuse_status(response)
        length = response.content_length
        if length is not None and length > self._limits.max_bytes:
            raise self._too_large(response)
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip", "deflate", ""):
            raise FetchError(Status.BAD_RESPONSE, f"Content-Encoding {encoding}", response.status)
        data = await self._stream(response)
        if encoding not in ("identity", ""):
            data = decompress(data, self._limits.max_bytes, response.status)
        return Body(data, response.status)

    async def _stream(self, response: aiohttp.ClientResponse) -> bytes:
        data = bytearray()
        chunks = response.content.iter_chunked(CHUNK_BYTES)
        async for chunk in chunks:
            data += chunk
            if len(data) > LARGE_BYTES:
                break
            if len(data) > self._limits.max_bytes:
                raise self._too_large(response)
        else:
            return bytes(data)
        async with self._large:
            async for chunk in chunks:
                data += chunk
                if len(data) > self._limits.max_bytes:
                    raise self._too_large(response)
        if len(data) > self._limits.max_bytes:
            raise self._too_large(response)
        return bytes(data)

    def _too_large(self, response: aiohttp.ClientResponse) -> FetchError:
        return FetchError(
            Status.TOO_LARGE, f"more than {self._limits.max_bytes:,} bytes", response.status
        )


def parse_url(text: str, base: URL | None = None) -> URL:
    """An absolute http or https URL; relative ones are taken from `base`.

    Raises: FetchError (bad_url).
    """
    try:
        url = URL(text.strip()) if base is None else base.join(URL(text.strip()))
        if url.scheme not in ("http", "https"):
            raise FetchError(Status.BAD_URL, f"the scheme '{url.scheme}' is not http or https")
        if not url.host or url.port is None:
            raise FetchError(Status.BAD_URL, "the URL has no host")
    except ValueError:
        raise FetchError(Status.BAD_URL, "not a URL") from None
    return url


def refuse_status(response: aiohttp.ClientResponse) -> None:
    """Raises: FetchError for every answer but 200 and 203."""
    status = response.status
    if status in (200, 203):
        return
    retry_after = None
    if status in (404, 410):
        kind = Status.HTTP_NOT_FOUND
    elif status in (401, 403, 451):
        kind = Status.HTTP_REFUSED
    elif status == 429:
        kind = Status.HTTP_THROTTLED
    elif status >= 500:
        kind = Status.HTTP_SERVER_ERROR
    else:
        kind = Status.HTTP_ERROR
    raise FetchError(kind, f"HTTP {status}", status, retry_after)


def decompress(data: bytes, max_bytes: int, http_status: int) -> bytes:
    """A gzip or deflate body. Raises: FetchError beyond `max_bytes`, or where it is broken."""
    inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        plain = inflate.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise FetchError(Status.BAD_RESPONSE, f"compressed body: {error}", http_status) from None
    if len(plain) > max_bytes:
        raise FetchError(
            Status.TOO_LARGE, f"more than {max_bytes:,} bytes when decompressed", http_status
        )
    return plain


def explain(error: Exception) -> FetchError:  # noqa: PLR0911 - a table
    """The status of what the HTTP library raised; its message is not kept, it may hold the URL."""
    cause = getattr(error, "os_error", None) or error.__cause__
    if isinstance(cause, ForbiddenAddressError):
        return FetchError(Status.FORBIDDEN_ADDRESS, str(cause.strerror))
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        code = cause.errno if isinstance(cause, OSError) else None
        if code in _FINAL_DNS_ERRORS:
            return FetchError(Status.DNS_NOT_FOUND, "the host's name is not known")
        return FetchError(Status.DNS_UNAVAILABLE, "the host's name could not be resolved")
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError | ssl.CertificateError):
        return FetchError(Status.TLS_FAILED, type(error).__name__)
    if isinstance(error, aiohttp.InvalidURL | aiohttp.InvalidUrlClientError):
        return FetchError(Status.BAD_URL, "not a URL")
    if isinstance(error, TimeoutError):
        return FetchError(Status.TIMEOUT, "no connection in time")
    if isinstance(error, aiohttp.ClientPayloadError):
        return FetchError(Status.INTERRUPTED, "the answer broke off")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return FetchError(Status.CONNECTION_FAILED, "closed before an answer")
    if isinstance(error, OSError):
        reason = cause.strerror if isinstance(cause, OSError) else error.strerror
        return FetchError(Status.CONNECTION_FAILED, reason or type(error).__name__)
    if isinstance(error, aiohttp.ClientConnectionError):
        return FetchError(Status.CONNECTION_FAILED, type(error).__name__)
    return FetchError(Status.BAD_RESPONSE, type(error).__name__)
