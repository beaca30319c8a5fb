import pytest

from coyo_labeler.fetch.guard import Guard
from coyo_labeler.fetch.shard import CatalogRow
from coyo_labeler.fetch.status import FetchError
from coyo_labeler.fetch.urls import MAX_BYTES, parse_url
from tests.fetch.rows import GOOD, fetch_one, fetch_rows
from tests.fetch.web import phash, reply

#: Request targets that are legal as they stand: a server that signs its URLs compares the bytes.
LEGAL = [
    "/wp.jpg?fit=1000%2C750&ssl=1",
    "/thumb/HMAC=/http%3A%2F%2Fx.org%2Fa.jpg",
    "/foo%27bar.jpg",
    "/p%28x%29.jpg",
    "/next?url=https%3A%2F%2Fx.org%2Fa.jpg&w=640",
    "/lower%2f%c3%a9.jpg?sig=a%2bb%3d%3D",
    "/~a!$&'()*+,;=:@-._?b='(c)/?d+e%20f",
    "//double//slash.jpg",
    "/100%.jpg?%zz",
    "/empty?",
    "/%41%7E.jpg",
]


@pytest.mark.parametrize("target", LEGAL)
def test_a_legal_target_is_sent_byte_for_byte(target):
    assert parse_url(f"http://h.example{target}").raw_path_qs == target
    base = parse_url("http://h.example/a/b?c")
    assert parse_url(f"http://h.example{target}", base).raw_path_qs == target
    if not target.startswith("//") and not target.endswith("?"):
        assert parse_url(target, base).raw_path_qs == target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("http://h/ü é?q=ü b#frag", "/%C3%BC%20%C3%A9?q=%C3%BC%20b"),
        ("http://h/\udce9.jpg", "/%E9.jpg"),  # a Latin-1 byte of a header
        ('http://h/"<>^`{}|', "/%22%3C%3E%5E%60%7B%7D|"),
        ("http://h/?\"<>|'", "/?%22%3C%3E|'"),
        ("http://h/a\tb\r\nc", "/abc"),
        (" \x00http://h/a ", "/a"),
        ("http://h", "/"),
        ("http://h?a", "/?a"),
        ("http://h/a#b?c", "/a"),
        ("http://h/a/../b/./%2E%2e/c/..", "/"),
        ("http://h/a?b/../c", "/a?b/../c"),
        ("http:\\\\h\\a\\b?c\\d", "/a/b?c\\d"),
    ],
)
def test_only_what_is_illegal_is_escaped_as_a_browser_does(text, target):
    url = parse_url(text)
    assert (url.host, url.raw_path_qs, url.raw_fragment) == ("h", target, "")


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("img.jpg?a%2Cb", "http://h.example:81/dir/img.jpg?a%2Cb"),
        ("/x%2Fy", "http://h.example:81/x%2Fy"),
        ("?z=%27", "http://h.example:81/dir/a%2Cb?z=%27"),
        ("../up", "http://h.example:81/up"),
        ("//o.example/%2C", "http://o.example/%2C"),
        ("//bücher.example:80/x", "http://xn--bcher-kva.example/x"),
        ("https://o.example/a?b", "https://o.example/a?b"),
    ],
)
def test_a_relative_location_is_joined_as_it_is_written(location, url):
    assert str(parse_url(location, parse_url("http://h.example:81/dir/a%2Cb?x"))) == url


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("http://bücher.example/a", "xn--bcher-kva.example"),
        ("HTTP://H.Example:80/a", "h.example"),
        ("http://good\\@evil/", "good"),  # what a browser connects to
        ("http://u:p@h:81/x@y/", "h"),
        ("http://h%2f@x/", "x"),
        ("http://[::1]:8/x", "::1"),
    ],
)
def test_the_host_is_the_one_that_a_browser_would_connect_to(text, host):
    assert parse_url(text).raw_host == host
    assert parse_url(text).origin().raw_host == host


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "x",
        "ftp://h/",
        "http:h",
        "http:///x",
        "http://[]@/",
        "http://h:99999/",
        "http://[",
        "javascript:http://h/",
        pytest.param("http://h/" + "a" * MAX_BYTES, id="too long"),
    ],
)
def test_what_is_no_url_of_the_web_is_refused(text):
    with pytest.raises(FetchError) as refused:
        parse_url(text)
    assert refused.value.status == "bad_url"


def test_targets_reach_the_server_byte_for_byte_and_redirects_too(web, tmp_path):
    """The server of the tests knows paths only, so its own record is compared."""
    rows = []
    for number, target in enumerate(LEGAL):
        web.serve(target.partition("?")[0], GOOD)
        rows.append(CatalogRow(number, web.url(target), phash(GOOD)))
        web.serve(f"/to/{number}", status="302 Found", Location=web.url(target))
        rows.append(CatalogRow(100 + number, web.url(f"/to/{number}"), phash(GOOD)))
    found = fetch_rows(web, tmp_path, rows)
    assert {row.status.value for row in found.values()} == {"success"}
    asked = [path for path, _ in web.asked]
    assert all(asked.count(target) == 2 for target in LEGAL)


@pytest.mark.parametrize("raw", ["/caf\xe9.jpg".encode("latin-1"), "/caf\xe9.jpg".encode()])
def test_raw_bytes_of_a_location_are_kept(web, tmp_path, raw):
    async def redirect(reader, writer):
        writer.write(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + raw + b"\r\n\r\n")
        await writer.drain()

    web.answers["/a"] = redirect
    target = "".join(f"%{octet:02X}" if octet > 127 else chr(octet) for octet in raw)
    web.answers[target] = reply(GOOD)
    assert fetch_one(web, tmp_path, web.url("/a")).status == "success"


def test_robots_txt_is_asked_of_the_host_that_is_connected_to(web, tmp_path):
    web.serve("/robots.txt", b"User-agent: *\nDisallow: /private/")
    web.serve("/private/a", GOOD)
    for target in ("/private/a", "/x/../private/a", "/x/%2e%2e/private/a", "\\private\\a"):
        row = fetch_one(web, tmp_path / phash(GOOD) / target[1:3], web.url(target), robots_txt=True)
        assert row.status == "robots_txt", target
    assert {path for path, _ in web.asked} == {"/robots.txt"}


@pytest.mark.parametrize("host", ["１２７.0.0.1", "127。0。0。1"])
def test_the_guard_sees_the_address_behind_other_digits(web, tmp_path, host):
    row = fetch_one(web, tmp_path, f"http://{host}:{web.port}/a", guard=Guard())
    assert row.status == "forbidden_address"
    assert web.asked == []
