"""What a site's owner has said about being fetched: X-Robots-Tag, robots.txt, Retry-After."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from protego import Protego
from yarl import URL

from coyo_labeler.fetch.status import TRANSIENT, FetchError, Status

#: Bytes of a robots.txt that are read (RFC 9309, 2.5 asks for at least 500 KiB).
ROBOTS_BYTES = 512 * 2**10
#: Characters of robots.txt files kept in memory per task; the hosts asked longest ago go first.
ROBOTS_CACHE_CHARACTERS = 16 * 2**20

_CLIENT_ERRORS = frozenset({Status.HTTP_NOT_FOUND, Status.HTTP_REFUSED, Status.HTTP_ERROR})

#: X-Robots-Tag rules that have a value after a colon, and so are no crawler's name.
_RULES_WITH_A_VALUE = frozenset(
    {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
)


def product_token(user_agent: str) -> str:
    """The name by which site owners address a crawler: what is before the first `/` or space."""
    return re.split(r"[/\s]", user_agent.strip(), maxsplit=1)[0].lower()


def refused_by_tag(headers: Iterable[str], token: str, refused: frozenset[str]) -> str | None:
    """The first rule in X-Robots-Tag headers that is in `refused` and meant for all or for us.

    A header may begin with a crawler's name and a colon. `none` stands for noindex, nofollow.
    """
    for header in headers:
        meant = True
        for part in header.lower().split(","):
            name, colon, rest = part.strip().partition(":")
            rule = name.strip()
            if colon and rule not in _RULES_WITH_A_VALUE:
                meant, rule = rule == token, rest.strip()
            rule = "noindex" if rule == "none" else rule
            if meant and rule in refused:
                return rule
    return None


def retry_after_seconds(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks to wait: a number, or a date; None without one."""
    if header is None:
        return None
    text = header.strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


class Robots:
    """robots.txt, fetched once per host and task.

    read: the body of a robots.txt, redirects followed; raises FetchError. As RFC 9309 has it, a
    4xx allows everything and a 5xx nothing; so does a robots.txt that cannot be reached.
    """

    def __init__(self, read: Callable[[URL], Awaitable[bytes]], token: str) -> None:
        self._read = read
        self._token = token
        self._known: OrderedDict[str, asyncio.Task[tuple[Protego | None, int]]] = OrderedDict()
        self._characters = 0

    async def check(self, url: URL) -> None:
        """Raises: FetchError where robots.txt forbids the URL or cannot be read."""
        origin = str(url.origin())
        task = self._known.get(origin)
        if task is None:
            task = self._known[origin] = asyncio.create_task(self._load(url.origin()))
            task.add_done_callback(self._forget_the_oldest)
        self._known.move_to_end(origin)
        rules, _ = await asyncio.shield(task)
        if rules is not None and not rules.can_fetch(str(url), self._token):
            raise FetchError(Status.ROBOTS_TXT, "robots.txt forbids it")

    async def _load(self, origin: URL) -> tuple[Protego | None, int]:
        try:
            body = await self._read(origin / "robots.txt")
        except FetchError as error:
            if error.status in _CLIENT_ERRORS:
                return None, 0
            if error.status in TRANSIENT or error.status is Status.TOO_LARGE:
                raise FetchError(
                    Status.ROBOTS_UNAVAILABLE, f"robots.txt: {error.error}", error.http_status
                ) from None
            raise
        text = body.decode(errors="replace")
        return Protego.parse(text), len(text)

    def _forget_the_oldest(self, done: "asyncio.Task[tuple[Protego | None, int]]") -> None:
        if done.cancelled() or done.exception() is not None:
            return
        self._characters += done.result()[1]
        while self._characters > ROBOTS_CACHE_CHARACTERS:
            oldest = next((key for key, task in self._known.items() if task.done()), None)
            if oldest is None:
                return
            task = self._known.pop(oldest)
            if not task.cancelled() and task.exception() is None:
                self._characters -= task.result()[1]
