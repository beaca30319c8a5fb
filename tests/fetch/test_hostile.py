"""What the web does to a crawler: each fault gets its row and status, and the rest goes well."""

import asyncio
import errno
import logging
import struct
import zlib
from dataclasses import replace

import pytest

from coyo_labeler.fetch import client as client_module
from coyo_labeler.fetch import shard as shard_module
from coyo_labeler.fetch.guard import Guard
from coyo_labeler.fetch.pack import Spool
from coyo_labeler.fetch.shard import CatalogRow
from tests.fetch.rows import GOOD, LIMITS, RULES, Names, fetch_one, fetch_rows, gzipped
from tests.fetch.web import drip, encode, phash, photograph, reply, reset_after
from tests.memory import peak_growth


async def endless(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def silent(reader, writer):
    await asyncio.Event().wait()


def png_header(width, height):
    """A PNG that says it is of that size, and holds next to nothing."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"

#: Faults of a server by name: (what it does, status, part of the error).
FAULTS = {
    "slow drip": (drip, "timeout", "not done in 1 s"),
    "no answer": (silent, "timeout", "not done in 1 s"),
    "endless body": (endless, "too_large", "more than 200,000 bytes"),
    "long body announced": (reply(b"", Content_Length=10**12), "too_large", "200,000"),
    "longer than its length": (reply(GOOD, Content_Length=400), "corrupt|bad_response", ""),
    "shorter than its length": (reset_after(LONG + GOOD), "interrupted", "broke off"),
    "truncated JPEG": (reply(GOOD[:-600]), "corrupt", "truncated"),
    "HTML with an image type": (reply(b"<html>For sale</html>"), "not_an_image", "HTML"),
    "nothing": (reply(b""), "not_an_image", "empty"),
    "50,000 x 50,000 PNG": (reply(png_header(50_000, 50_000)), "too_many_pixels", "pixels"),
    "5,000 x 5,000 PNG": (reply(png_header(5_000, 5_000)), "too_many_pixels", "5000 × 5000"),
    "PNG without its pixels": (reply(png_header(500, 500)), "corrupt", ""),
    "gzip bomb": (
        reply(gzipped(b"\0" * 10**8), Content_Encoding="gzip"),
        "too_large",
        "when decompressed",
    ),
    "gzip that is none": (reply(GOOD, Content_Encoding="gzip"), "bad_response", "compressed"),
    "unknown encoding": (reply(GOOD, Content_Encoding="br"), "bad_response", "br"),
    "no HTTP": (reset_after(b"SSH-2.0-OpenSSH_9.9\r\n"), "bad_response", ""),
    "a header without end": (reply(GOOD, X=b"a" * 600_000), "bad_response", ""),
    "fields without end": (
        reply(GOOD, **{f"X{n}": "a" * 50_000 for n in range(100)}),
        "bad_response",
        "",
    ),
    "reset before the answer": (reset_after(b""), "connection_failed", ""),
    "reset in the status line": (reset_after(b"HTTP/1.1 20"), "connection_failed", ""),
    "reset in the headers": (reset_after(b"HTTP/1.1 200 OK\r\nX: "), "connection_failed", ""),
    "reset before the body": (reset_after(LONG), "interrupted", ""),
    "reset in the body": (reset_after(LONG + GOOD[:500]), "interrupted", ""),
    "gone": (reply(b"", "410 Gone"), "http_not_found", "HTTP 410"),
    "forbidden": (reply(b"", "403 Forbidden"), "http_refused", "HTTP 403"),
    "no content": (reply(b"", "204 No Content"), "http_error", "HTTP 204"),
    "server error": (reply(b"", "500 Oops"), "http_server_error", "HTTP 500"),
    "opted out": (reply(GOOD, X_Robots_Tag="noai"), "robots_tag", "noai"),
    "opted out after a date": (
        reply(GOOD, X_Robots_Tag="unavailable_after: Fri, 25 Jun 2010 15:00:00 GMT, noai"),
        "robots_tag",
        "noai",
    ),
    "a page that is gone, not to be indexed": (
        reply(b"", "404 Not Found", X_Robots_Tag="noindex"),
        "http_not_found",
        "HTTP 404",
    ),
    "a pause beyond any clock": (
        reply(b"", "429 Slow", Retry_After="Fri, 31 Dec 2027 23:59:59 +99999999999999999999"),
        "http_throttled",
        "HTTP 429",
    ),
    "redirect to no address": (
        reply(b"", "302 Found", Location="http://[]@/"),
        "bad_url",
        "not a URL",
    ),
    "redirect to nowhere": (reply(b"", "302 Found"), "http_error", "HTTP 302"),
    "redirect to a file": (
        reply(b"", "302 Found", Location="file:///etc/passwd"),
        "bad_url",
        "'file' is not http",
    ),
    "redirect to 127.0.0.1": (
        reply(b"", "302 Found", Location="http://127.0.0.1:1/a"),
        "forbidden_address",
        "not a public one",
    ),
    "redirect to localhost": (
        reply(b"", "302 Found", Location="http://localhost:1/a"),
        "forbidden_address",
        "not a public one",
    ),
    "redirect to the cloud's metadata": (
        reply(b"", "307 Temporary", Location="http://169.254.169.254/latest/meta-data/"),
        "forbidden_address",
        "not a public one",
    ),
    "redirect to a number that is an address": (
        reply(b"", "302 Found", Location="http://2130706433/"),
        "bad_url",
        "",
    ),
}


def test_every_fault_gets_its_row_and_status_in_bounded_time_and_memory(web, tmp_path):
    rows, names = [], {}
    for number, (name, (answer, _, _)) in enumerate(FAULTS.items()):
        web.answers[f"/{number}"] = answer
        names[number] = name
        rows.append(CatalogRow(number, web.url(f"/{number}"), phash(GOOD)))
    loop_url = web.serve("/loop", status="301 Moved", Location="/loop")
    rows.append(CatalogRow(1000, loop_url, None))
    rows.append(CatalogRow(1001, web.serve("/good", GOOD), phash(GOOD)))
    limits = replace(LIMITS, host_connections=100)
    late = [row for row in rows if FAULTS.get(names.get(row.id), ("", ""))[1] == "timeout"]
    with peak_growth() as grown:
        # The others have time enough on a busy machine.
        found = fetch_rows(web, tmp_path, late, limits, replace(RULES, timeout_seconds=1.0))
        found |= fetch_rows(web, tmp_path / "b", [r for r in rows if r not in late], limits)
    assert grown[0] < 64_000_000
    for number, name in names.items():
        _, status, error = FAULTS[name]
        assert found[number].status.value in status.split("|"), (name, found[number])
        assert error in found[number].error, name
    assert found[1000].status.value == "too_many_redirects"
    assert found[1001].status.value == "success"
    assert web.times("/loop") == client_module.MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    "addresses",
    [["10.0.0.7"], ["127.0.0.1"], ["93.184.215.14", "192.168.1.1"], ["::1"], ["::ffff:10.0.0.1"]],
    ids=str,
)
def test_a_name_that_resolves_to_a_private_address_is_refused(web, tmp_path, addresses):
    names = Names({"images.example": addresses})
    row = fetch_one(web, tmp_path, "http://images.example/a.jpg", guard=Guard(), resolver=names)
    assert row.status == "forbidden_address"


def test_the_address_is_checked_again_where_it_is_connected_to(web, tmp_path, monkeypatch):
    """A name that was public when it was looked up, and is not when the socket is made."""

    class Rebinding(Guard):
        checks = 0

        def allows(self, address):
            self.checks += 1
            return self.checks == 1

    guard = Rebinding()
    names = Names({"images.example": ["127.0.0.1"]})
    url = f"http://images.example:{web.port}/a.jpg"
    web.serve("/a.jpg", GOOD)
    row = fetch_one(web, tmp_path, url, guard=guard, resolver=names)
    assert (row.status, guard.checks, web.asked) == ("forbidden_address", 2, [])


def test_a_fallback_is_tried_before_a_row_is_given_up(web, tmp_path):
    other = web.serve("/other", encode(photograph(9)))
    good = web.serve("/good", GOOD)
    web.answers["/drip"] = drip
    rows = [
        CatalogRow(0, web.url("/gone"), phash(GOOD), (good,)),
        CatalogRow(1, other, phash(GOOD), (web.url("/gone"), good)),
        CatalogRow(2, web.url("/drip"), phash(GOOD), (good,)),
        CatalogRow(3, other, phash(GOOD), (web.url("/gone"),)),
        CatalogRow(4, web.url("/gone"), phash(GOOD), (web.url("/drip"),)),
    ]
    drips = [rows[2], rows[4]]  # they use up half their time or all of it
    found = fetch_rows(web, tmp_path, drips, rules=replace(RULES, timeout_seconds=8.0))
    found |= fetch_rows(web, tmp_path / "b", [row for row in rows if row not in drips])
    statuses = [found[index].status.value for index in range(5)]
    assert statuses == ["success", "success", "success", "content_changed", "timeout"]
    assert found[3].hash_distance > 4


def test_neither_error_nor_log_holds_what_a_url_may_hide(web, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    verify = shard_module.verify

    def stumble(data, *rest):
        if data == b"stumble":
            raise KeyError("http://me:SECRET@h/?token=SECRET")
        return verify(data, *rest)

    monkeypatch.setattr(shard_module, "verify", stumble)
    web.serve("/stumble", b"stumble")
    secrets = "?token=SECRET"
    rows = []
    for number, (answer, _, _) in enumerate(FAULTS.values()):
        web.answers[f"/{number}"] = answer
        url = web.url(f"/{number}{secrets}").replace("http://", "http://me:SECRET@")
        rows.append(CatalogRow(number, url))
    for url in ("http://me:SECRET@[/", "ftp://me:SECRET@h/", "http://me:SECRET@h:99999/", "SECRET"):
        rows.append(CatalogRow(len(rows), url))
    rules = replace(RULES, timeout_seconds=3.0)
    found = fetch_rows(web, tmp_path, rows, replace(LIMITS, host_connections=100), rules)
    row = CatalogRow(len(rows), web.url(f"/stumble{secrets}"))
    found |= fetch_rows(web, tmp_path / "b", [row])
    assert all(row.status != "success" and "SECRET" not in row.error for row in found.values())
    assert found[len(rows)].status == "unexpected"
    assert "please report it" in caplog.text
    assert "SECRET" not in caplog.text


def test_what_nobody_foresaw_ends_a_row_and_not_the_shard(web, tmp_path, monkeypatch):
    verify = shard_module.verify

    def stumble(data, *rest):
        if data == b"stumble":
            raise AssertionError
        return verify(data, *rest)

    monkeypatch.setattr(shard_module, "verify", stumble)
    rows = [
        CatalogRow(1, web.serve("/a", GOOD), phash(GOOD)),
        CatalogRow(2, web.serve("/b", b"stumble"), phash(GOOD)),
    ]
    found = fetch_rows(web, tmp_path, rows)
    assert [found[index].status.value for index in (1, 2)] == ["success", "unexpected"]
    assert found[2].error.startswith("AssertionError in tests.fetch.test_hostile, line ")


def test_a_full_disk_is_not_the_rows_fault(web, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(Spool, "add", full)
    with pytest.raises(ExceptionGroup) as failed:
        fetch_one(web, tmp_path, web.serve("/a", GOOD))
    assert failed.group_contains(OSError, match="no space left")


def test_what_the_catalog_lacks_ends_a_row_and_not_the_shard(web, tmp_path):
    url = web.serve("/a", GOOD)
    rows = [
        CatalogRow(0, None, phash(GOOD)),
        CatalogRow(1, None, phash(GOOD), (url,)),
        CatalogRow(2, url, ""),
        CatalogRow(3, url, "zzz"),
        CatalogRow(4, url, None),
        CatalogRow(5, "http://[]@/", phash(GOOD)),
    ]
    found = fetch_rows(web, tmp_path, rows)
    statuses = [found[index].status.value for index in range(6)]
    assert statuses == ["bad_url", "success", "bad_hash", "bad_hash", "success", "bad_url"]
    unchecked = fetch_rows(
        web, tmp_path / "unchecked", rows, rules=replace(RULES, check_phash=False)
    )
    assert [unchecked[index].status.value for index in (2, 3)] == ["success", "success"]
