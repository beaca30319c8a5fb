import asyncio
import random
import time
from datetime import UTC, datetime

import pytest
from protego import Protego
from yarl import URL

from coyo_labeler.fetch import policy
from coyo_labeler.fetch.policy import (
    Robots,
    count_wildcards,
    parse_robots,
    product_token,
    refused_by_tag,
    retry_after_seconds,
)
from coyo_labeler.fetch.status import FetchError, Status

REFUSED = frozenset({"noai", "noimageai", "noindex", "noimageindex", "noml"})


@pytest.mark.parametrize(
    ("headers", "rule"),
    [
        ([], None),
        (["noai"], "noai"),
        (["nofollow", "NoImageAI"], "noimageai"),
        (["nofollow, noarchive"], None),
        (["nofollow, noindex"], "noindex"),
        (["none"], "noindex"),
        (["googlebot: noindex"], None),
        (["test-bot: noindex"], "noindex"),
        (["otherbot: noindex, nofollow", "noml"], "noml"),
        (["otherbot: nofollow, test-bot: noai"], "noai"),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], "noai"),
        (["unavailable_after: Fri, 25 Jun 2010 15:00:00 GMT, noai"], "noai"),
        (["unavailable_after: Friday, 25-Jun-10 15:00:00 UTC, nofollow, noml"], "noml"),
        (["otherbot: unavailable_after: Fri, 25 Jun 2010 15:00:00 GMT, noai"], None),
        (["max-image-preview: large"], None),
        (["", " , ,"], None),
    ],
)
def test_x_robots_tag_is_read_for_all_and_for_us(headers, rule):
    assert refused_by_tag(headers, "test-bot", REFUSED) == rule


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120),
        (" 7 ", 7),
        ("0", 0),
        ("-5", None),
        ("soon", None),
        ("Fri, 31 Dec 2027 23:59:59 GMT", 59),
        ("Fri, 31 Dec 2027 23:00:00 GMT", 0),
        ("9" * 400, 999_999_999),
        ("Fri, 31 Dec 2027 23:59:59 +99999999999999999999", None),
        ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header, seconds):
    now = datetime(2027, 12, 31, 23, 59, 0, tzinfo=UTC)
    assert retry_after_seconds(header, now) == seconds


def test_the_product_token_is_what_site_owners_write():
    assert product_token("Example-Bot/1.0 (+https://example.org/bot)") == "example-bot"
    assert product_token("example (me@example.org)") == "example"


def test_robots_txt_says_the_same_without_the_crawlers_that_are_not_ours():
    draw = random.Random(0)
    lines = [
        "User-agent: *",
        "User-agent: test-bot",
        "user agent\ttest*bot # us",
        "USERAGENT:test",
        "User-agent: other",
        "User-agent: bot",
        "User-agent:",
        "Disallow: /a",
        "Disallow: /",
        "Allow: /a/b",
        "Disallow",
        "Sitemap: /s",
        "Crawl-delay: 1",
        "Nonsense: x",
        "",
        "# nothing",
    ]
    urls = [f"http://h.example{path}" for path in ("/", "/a", "/a/b", "/c")]
    for _ in range(3000):
        text = "\n".join(draw.choices(lines, k=draw.randint(1, 10)))
        whole, ours = Protego.parse(text), parse_robots(text, "test-bot")
        for url in urls:
            assert whole.can_fetch(url, "test-bot") == ours.can_fetch(url, "test-bot"), text


def test_a_robots_txt_that_names_thousands_of_crawlers_is_read_at_once():
    agents = "".join(f"User-agent: b{number}\n" for number in range(12_000))
    text = agents + "User-agent: test-bot\n" + "Disallow: /b\n" * 8_000
    start = time.thread_time()
    rules = parse_robots(text, "test-bot")
    assert time.thread_time() - start < 3  # for Protego alone it is minutes
    assert not rules.can_fetch("http://h.example/b", "test-bot")
    assert rules.can_fetch("http://h.example/a", "test-bot")


def test_robots_txt_files_are_remembered_of_so_many_hosts(monkeypatch):
    """Of hosts that cannot be reached too, and without the exceptions that said so."""
    monkeypatch.setattr(policy, "ROBOTS_CACHE_CHARACTERS", 20 * policy.HOST_CHARACTERS)
    asked = []

    async def read(url, rank):
        asked.append(url.host)
        if url.host.startswith("dead"):
            raise FetchError(Status.TIMEOUT, "no connection in time")
        return b""

    async def work():
        robots = Robots(read, "test-bot")
        for number in range(100):
            await robots.check(URL(f"http://fine{number}.example/a"), (0, 0))
            for _ in range(2):
                with pytest.raises(FetchError, match=r"robots\.txt: no connection") as failed:
                    await robots.check(URL(f"http://dead{number}.example/a"), (0, 0))
                assert failed.value.status is Status.ROBOTS_UNAVAILABLE
        assert len(robots._known) <= 20
        assert all(task.exception() is None for task in robots._known.values())

    asyncio.run(work())
    assert len(asked) == len(set(asked)) == 200


def test_wildcard_rules_are_counted_in_our_groups():
    text = """
        User-agent: other
        User-agent: test-bot # us
        Disallow: /*.jpg$
        Allow: /plain
        Disallow: *a*b

        User-agent: other
        Disallow: /*
        User-agent: *
        # Disallow: /*
        Disallow: /c$
    """
    assert count_wildcards(text, "test-bot") == 3
    assert count_wildcards(text, "other") == 4
    assert count_wildcards("Disallow: /*", "test-bot") == 0


def judged(text, url):
    """The status of a URL under a robots.txt, and the CPU seconds of this thread for it."""

    async def read(*_):
        return text.encode()

    async def work():
        robots = Robots(read, "test-bot")
        start = time.thread_time()
        try:
            await robots.check(URL(url, encoded=True), (0, 0))
        except FetchError as error:
            return error.status.value, time.thread_time() - start
        return "allowed", time.thread_time() - start

    return asyncio.run(work())


@pytest.mark.parametrize("rule", ["Disallow:*ab$", "Disallow:*{:05x}b$", "Allow:*a*{:x}b"])
def test_a_hostile_robots_txt_does_not_hold_up_the_event_loop(rule):
    lines, size = ["User-agent: *"], 0
    while size < policy.ROBOTS_BYTES - 100:
        lines.append(rule.format(len(lines)))
        size += len(lines[-1]) + 1
    status, seconds = judged("\n".join(lines), "http://h.example/" + "a" * 8000)
    assert status == "robots_unavailable"
    assert seconds < 0.2  # of this thread, which is the event loop's; it was a second for each URL


def test_many_wildcard_rules_are_refused_for_long_urls_only():
    text = "User-agent: *\n" + "".join(f"Disallow: /*{n}x$\n" for n in range(1000))
    assert judged(text, "http://h.example/a")[0] == "allowed"
    assert judged(text, "http://h.example/7x")[0] == "robots_txt"
    status, seconds = judged(text, "http://h.example/" + "a" * 8000)
    assert (status, seconds < 0.2) == ("robots_unavailable", True)


@pytest.mark.parametrize("line", ["Disallow: /", "Disallow: /*a", "Disallow: /" + "*a" * 200_000])
def test_a_robots_txt_with_a_byte_order_mark_is_obeyed_and_stars_cost_no_time(line):
    status, seconds = judged(f"\ufeffUser-agent: *\n{line}\n", "http://h.example/" + "a" * 2000)
    assert status == ("allowed" if len(line) > 100 else "robots_txt")
    assert seconds < 0.5
