"""How hosts are treated that are busy, down, or ask to be left alone."""

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise

import pytest

from coyo_labeler.fetch.hosts import FAILURES_IN_A_ROW, Hosts
from coyo_labeler.fetch.shard import CatalogRow
from tests.fetch.rows import GOOD, LIMITS, fetch_one, fetch_rows
from tests.fetch.web import in_turn, phash, reply, reset_after


def test_a_host_that_flaps_is_asked_again(web, tmp_path):
    web.answers["/a"] = in_turn(reply(b"", "503 Busy"), reply(GOOD))
    assert fetch_one(web, tmp_path, web.url("/a")).status == "success"
    assert web.times("/a") == 2


def test_what_will_not_change_is_asked_for_once(web, tmp_path):
    web.answers["/a"] = in_turn(reply(b"", "404 Not Found"), reply(GOOD))
    assert fetch_one(web, tmp_path, web.url("/a")).status == "http_not_found"
    assert web.times("/a") == 1


def test_a_pause_that_the_host_asks_for_is_kept(web, tmp_path):
    web.answers["/a"] = in_turn(reply(b"", "429 Slow down", Retry_After=1), reply(GOOD))
    start = time.monotonic()
    row = fetch_one(web, tmp_path, web.url("/a"))
    assert row.status == "success"
    assert time.monotonic() - start >= 1


def test_a_paced_host_is_asked_at_its_pace(web, tmp_path, monkeypatch):
    """By the clock of the client: the server may notice a request late."""
    asked_at, turn = [], Hosts.turn

    @asynccontextmanager
    async def timed(self, name, budget):
        async with turn(self, name, budget) as host:
            asked_at.append(asyncio.get_running_loop().time())
            yield host

    monkeypatch.setattr(Hosts, "turn", timed)
    rows = [CatalogRow(index, web.serve(f"/{index}", GOOD), phash(GOOD)) for index in range(4)]
    fetch_rows(web, tmp_path, rows, replace(LIMITS, host_interval_seconds=0.2))
    assert len(asked_at) == len(web.asked) == 4
    assert min(later - one for one, later in pairwise(asked_at)) >= 0.2


@pytest.mark.parametrize(
    ("status", "headers"),
    [("429 Slow down", {}), ("503 Busy", {}), ("503 Busy", {"X_Robots_Tag": "noindex"})],
)
def test_a_pause_beyond_the_deadline_ends_all_of_that_host_at_once(web, tmp_path, status, headers):
    rows = []
    for index in range(30):
        url = web.serve(f"/{index}", status=status, Retry_After=3600, **headers)
        rows.append(CatalogRow(index, url))
    found = fetch_rows(web, tmp_path, rows, replace(LIMITS, host_connections=2))
    assert {row.status.value for row in found.values()} == {"http_throttled"}
    assert 1 <= len(web.asked) <= 2  # the second may be asked before the first has answered


def test_a_host_that_never_answers_is_given_up_after_some_rows(web, tmp_path):
    web.answers = {f"/{index}": reset_after(b"") for index in range(100)}
    rows = [CatalogRow(index, web.url(f"/{index}")) for index in range(100)]
    limits = replace(LIMITS, retries=0, host_connections=2)
    found = fetch_rows(web, tmp_path, rows, limits)
    assert {row.status.value for row in found.values()} == {"connection_failed"}
    asked = {path for path, _ in web.asked}
    assert FAILURES_IN_A_ROW <= len(asked) <= FAILURES_IN_A_ROW + 2
    assert "not asked again" in found[99].error


def test_robots_txt_is_asked_for_once_and_obeyed(web, tmp_path):
    web.serve("/robots.txt", b"User-agent: test-bot\nDisallow: /private/\n")
    rows = [
        CatalogRow(index, web.serve(path, GOOD), phash(GOOD))
        for index, path in enumerate(("/a", "/private/b", "/c", "/private/d"))
    ]
    found = fetch_rows(web, tmp_path, rows, robots_txt=True)
    statuses = [found[index].status.value for index in range(4)]
    assert statuses == ["success", "robots_txt", "success", "robots_txt"]
    assert (web.times("/robots.txt"), web.times("/private/b")) == (1, 0)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (reply(b"", "404 Not Found"), "success"),
        (reply(b"", "403 Forbidden"), "success"),
        (reply(b"", "404 Not Found", X_Robots_Tag="noindex"), "success"),
        (reply(b"User-agent: *\nAllow: /", X_Robots_Tag="noindex"), "success"),
        (reply(b"User-agent: *\nDisallow: /", "200 OK"), "robots_txt"),
        (reply(b"User-agent: other\nDisallow: /", "200 OK"), "success"),
        (reply(b"<html>Welcome", "200 OK"), "success"),
        (reply(b"", "500 Oops"), "robots_unavailable"),
        (reset_after(b""), "robots_unavailable"),
        (reply(b"#" * 1_000_000), "robots_unavailable"),
        (reply(b"", "302 Found", Location="http://169.254.169.254/"), "forbidden_address"),
    ],
)
def test_robots_txt_as_rfc_9309_has_it(web, tmp_path, answer, status):
    web.answers["/robots.txt"] = answer
    row = fetch_one(web, tmp_path, web.serve("/a", GOOD), robots_txt=True)
    assert row.status == status
