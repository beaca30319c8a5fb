"""URLs as they are sent: their own bytes wherever these are legal.

yarl decodes escapes that it finds needless (%2C, %28), which breaks signed URLs. So it parses only
the authority here; path and query stay as they are written. What is illegal is escaped byte by
byte, as a browser does (https://url.spec.whatwg.org/#percent-encoded-bytes).
"""

import re

from yarl import URL

from coyo_labeler.fetch.status import FetchError, Status

#: Bytes of a URL, escaped. Most servers refuse half of that.
MAX_BYTES = 16 * 2**10

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
#: What browsers remove: control characters and spaces around a URL, tabs and line breaks within.
_AROUND = "".join(map(chr, range(0x21)))
_WITHIN = str.maketrans("", "", "\t\r\n")
#: Characters that may not be sent. Browsers escape `'` in a query too, but it is legal there.
_ILLEGAL_IN_PATH = re.compile(r"[^!$-;=@-\]_a-z|~]")
_ILLEGAL_IN_QUERY = re.compile(r"[^!$-;=?-~]")


def parse_url(text: str | None, base: URL | None = None) -> URL:
    """An absolute http or https URL, escaped; a relative one is joined to `base`.

    text: bytes that are no UTF-8 as surrogates, as aiohttp gives them in headers. The fragment is
    dropped, dot segments are resolved, and a host of other letters is encoded by IDNA.

    Raises: FetchError (bad_url).
    """
    if text is None:
        raise FetchError(Status.BAD_URL, "there is no URL")
    try:
        return _parse(text.strip(_AROUND).translate(_WITHIN), base)
    except (ValueError, IndexError):  # yarl raises the latter for an empty address in brackets
        raise FetchError(Status.BAD_URL, "not a URL") from None


def _parse(text: str, base: URL | None) -> URL:
    text = text.partition("#")[0]
    path, mark, query = text.partition("?")
    text = path.replace("\\", "/") + mark + query  # to browsers a backslash is a slash
    if base is not None and text.startswith("//"):
        text = f"{base.scheme}:{text}"
    elif base is not None and not _SCHEME.match(text):
        text = str(base.join(URL(text, encoded=True)))
    scheme = _SCHEME.match(text)
    name = scheme[1].lower() if scheme else ""
    if scheme is None or name not in ("http", "https"):
        raise FetchError(Status.BAD_URL, f"the scheme '{name[:20]}' is not http or https")
    target = text[scheme.end() :]
    if not target.startswith("//"):
        raise FetchError(Status.BAD_URL, "the URL has no host")
    path, mark, query = target[2:].partition("?")
    authority, _, path = path.partition("/")
    origin = URL(f"{name}://{authority}/")
    if not origin.host or origin.port is None:
        raise FetchError(Status.BAD_URL, "the URL has no host")
    path = "/" + _escape(_without_dots(path), _ILLEGAL_IN_PATH)
    sent = f"{str(origin).removesuffix('/')}{path}"
    if query:
        sent += "?" + _escape(query, _ILLEGAL_IN_QUERY)
    if len(sent) > MAX_BYTES:
        raise FetchError(Status.BAD_URL, f"longer than {MAX_BYTES:,} bytes")
    url = URL(sent, encoded=True)
    # yarl drops a question mark without a query, but lets it stand in a path.
    return url.with_path(f"{path}?", encoded=True) if mark and not query else url


def _escape(text: str, illegal: re.Pattern[str]) -> str:
    def escaped(character: re.Match[str]) -> str:
        octets = character[0].encode(errors="surrogateescape")
        return "".join(f"%{octet:02X}" for octet in octets)

    return illegal.sub(escaped, text)


def _without_dots(path: str) -> str:
    """A path without the segments `.` and `..`, escaped or not; path: without its first slash."""
    segments: list[str] = []
    last = ""
    for segment in path.split("/"):
        last = segment.lower().replace("%2e", ".")
        if last == "..":
            del segments[-1:]
        elif last != ".":
            segments.append(segment)
    if last in (".", ".."):
        segments.append("")
    return "/".join(segments)
