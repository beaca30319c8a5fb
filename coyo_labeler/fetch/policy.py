"""The wishes of a site's owner: X-Robots-Tag, robots.txt, Retry-After."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from protego import Protego
from yarl import URL

from coyo_labeler.fetch.hosts import Rank
from coyo_labeler.fetch.status import TRANSIENT, FetchError, Status

#: Bytes of a robots.txt that are read (RFC 9309, 2.5 asks for at least 500 KiB).
ROBOTS_BYTES = 512 * 2**10
#: Characters of robots.txt files in memory per task; hosts asked longest ago are dropped first.
ROBOTS_CACHE_CHARACTERS = 16 * 2**20
#: Characters that each host counts for in addition.
HOST_CHARACTERS = 1000

#: Characters that the wildcard rules of a robots.txt may look through for one URL: some 20 ms of
#: the event loop, in which no other download goes on. Real files have a few hundred such rules.
MATCH_CHARACTERS = 4_000_000
#: Characters that a rule counts for in addition, whatever the URL.
RULE_CHARACTERS = 500

_CLIENT_ERRORS = frozenset({Status.HTTP_NOT_FOUND, Status.HTTP_REFUSED, Status.HTTP_ERROR})

#: X-Robots-Tag rules with a value after a colon, which therefore are no crawler's name.
_RULES_WITH_A_VALUE = frozenset(
    {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
)
#: A line of robots.txt that names a crawler, as leniently as Protego reads it.
_USER_AGENT_LINE = re.compile(r"\s*user(?:-|\s+)?agent\s*[:\s]\s*([^#]*)", re.IGNORECASE)


def product_token(user_agent: str) -> str:
    """The name by which site owners address a crawler: the part before the first `/` or space."""
    return re.split(r"[/\s]", user_agent.strip(), maxsplit=1)[0].lower()


def refused_by_tag(headers: Iterable[str], token: str, refused: frozenset[str]) -> str | None:
    """The first rule in X-Robots-Tag headers that is in `refused` and applies to all or to us.

    A header may begin with a crawler's name and a colon. `none` means noindex, nofollow.
    """
    for header in headers:
        applies = True
        for part in header.lower().split(","):
            name, colon, rest = part.strip().partition(":")
            rule = name.strip()
            # A crawler's name has no space; a part with one is the rest of a date with a comma.
            if colon and " " not in rule and rule not in _RULES_WITH_A_VALUE:
                applies, rule = rule == token, rest.strip()
            rule = "noindex" if rule == "none" else rule
            if applies and rule in refused:
                return rule
    return None


def retry_after_seconds(header: str | None, now: datetime | None = None) -> float | None:
    """The seconds of a Retry-After header, which holds a number or a date; None without either."""
    if header is None:
        return None
    text = header.strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        when = parsedate_to_datetime(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())
    except (ValueError, OverflowError):
        return None


def parse_robots(text: str, token: str) -> Protego:
    """The rules of a robots.txt for one crawler.

    Protego copies each rule to each crawler of its group, which takes minutes where a hostile file
    names thousands. So the names of other crawlers are blanked first; an empty name still ends the
    group before it.
    """

    def blank(line: str) -> str:
        ours = _is_ours(line, token)
        return "User-agent:" if ours is False else line

    return Protego.parse("\n".join(map(blank, text.splitlines())))


def count_wildcards(text: str, token: str) -> int:
    """Rules with `*` or `$` in the groups of a robots.txt that name our crawler or all."""
    count, applies, in_agents = 0, False, False
    for line in text.splitlines():
        rule = line.partition("#")[0].strip()
        ours = _is_ours(rule, token)
        if ours is not None:
            applies = ours or (in_agents and applies)
            in_agents = True
        elif rule:
            in_agents = False
            count += applies and ("*" in rule or "$" in rule)
    return count


def _is_ours(line: str, token: str) -> bool | None:
    """Whether a line of robots.txt names our crawler or all; None where it names none."""
    agent = _USER_AGENT_LINE.match(line)
    if agent is None:
        return None
    name = agent[1].strip().lower()
    return name == "*" or name.replace("*", "") in token


@dataclass(frozen=True)
class Verdict:
    """The decision of a host's robots.txt.

    rules: None where everything is allowed. wildcards: the costly ones among them. refusal: the
    outcome of every row of the host (status, error, HTTP status), or None; not the exception, which
    would keep the frames that it passed through.
    """

    rules: Protego | None = None
    wildcards: int = 0
    refusal: tuple[Status, str, int | None] | None = None
    characters: int = HOST_CHARACTERS


class Robots:
    """The robots.txt of each host, fetched once per host and task.

    read: returns the body of a robots.txt, redirects followed, or raises FetchError; its second
    argument is the position in the queue. By RFC 9309 a 4xx answer allows everything; a 5xx answer,
    or a robots.txt that cannot be reached, allows nothing.
    """

    def __init__(self, read: Callable[[URL, Rank], Awaitable[bytes]], token: str) -> None:
        self._read = read
        self._token = token
        self._known: OrderedDict[str, asyncio.Task[Verdict]] = OrderedDict()
        self._characters = 0

    async def check(self, url: URL, rank: Rank) -> None:
        """Raises: FetchError where robots.txt forbids the URL or cannot be read."""
        origin = str(url.origin())
        task = self._known.get(origin)
        if task is None:
            task = self._known[origin] = asyncio.create_task(self._load(url.origin(), rank))
            task.add_done_callback(self._drop_oldest)
        self._known.move_to_end(origin)
        verdict = await asyncio.shield(task)
        if verdict.refusal is not None:
            raise FetchError(*verdict.refusal)
        if verdict.rules is None:
            return
        text = str(url)
        if verdict.wildcards * (RULE_CHARACTERS + len(text)) > MATCH_CHARACTERS:
            raise FetchError(
                Status.ROBOTS_UNAVAILABLE,
                f"robots.txt: {verdict.wildcards:,} wildcard rules are too many for a URL of "
                f"{len(text):,} characters",
            )
        if not verdict.rules.can_fetch(text, self._token):
            raise FetchError(Status.ROBOTS_TXT, "robots.txt forbids it")

    async def _load(self, origin: URL, rank: Rank) -> Verdict:
        try:
            body = await self._read(origin / "robots.txt", rank)
        except FetchError as error:
            if error.status in _CLIENT_ERRORS:
                return Verdict()
            if error.status in TRANSIENT or error.status is Status.TOO_LARGE:
                refusal = (Status.ROBOTS_UNAVAILABLE, f"robots.txt: {error.error}")
                return Verdict(refusal=(*refusal, error.http_status))
            return Verdict(refusal=(error.status, error.error, error.http_status))
        # A hostile file takes a second to read, which the other downloads must not wait for.
        return await asyncio.to_thread(self._judge, body.decode("utf-8-sig", errors="replace"))

    def _judge(self, text: str) -> Verdict:
        wildcards = count_wildcards(text, self._token)
        if wildcards * RULE_CHARACTERS > MATCH_CHARACTERS:
            error = f"robots.txt: {wildcards:,} wildcard rules are too many"
            return Verdict(refusal=(Status.ROBOTS_UNAVAILABLE, error, None))
        rules = parse_robots(text, self._token)
        return Verdict(rules, wildcards, characters=HOST_CHARACTERS + len(text))

    def _drop_oldest(self, done: asyncio.Task[Verdict]) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        self._characters += done.result().characters
        while self._characters > ROBOTS_CACHE_CHARACTERS:
            oldest = next((key for key, task in self._known.items() if task.done()), None)
            if oldest is None:
                return
            task = self._known.pop(oldest)
            if not task.cancelled() and task.exception() is None:
                self._characters -= task.result().characters
