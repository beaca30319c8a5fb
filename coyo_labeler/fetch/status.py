"""The outcomes of a catalog row, which have the same names in the tables."""

from enum import StrEnum


class Status(StrEnum):
    """The outcome of one row."""

    SUCCESS = "success"
    # The catalog
    BAD_HASH = "bad_hash"  # not 16 hex digits
    # The URL, or where it leads
    BAD_URL = "bad_url"  # no http or https URL
    FORBIDDEN_ADDRESS = "forbidden_address"  # private, loopback, link-local, cloud metadata …
    TOO_MANY_REDIRECTS = "too_many_redirects"
    # The site's owner
    ROBOTS_TAG = "robots_tag"  # X-Robots-Tag
    ROBOTS_TXT = "robots_txt"
    ROBOTS_UNAVAILABLE = "robots_unavailable"  # robots.txt cannot be read, so nothing is allowed
    # The network
    DNS_NOT_FOUND = "dns_not_found"
    DNS_UNAVAILABLE = "dns_unavailable"
    CONNECTION_FAILED = "connection_failed"  # refused, unreachable, or reset before an answer
    TLS_FAILED = "tls_failed"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"  # the answer broke off
    BAD_RESPONSE = "bad_response"  # no HTTP
    # The answer
    HTTP_NOT_FOUND = "http_not_found"  # 404, 410
    HTTP_REFUSED = "http_refused"  # 401, 403, 451
    HTTP_THROTTLED = "http_throttled"  # 429, or 503 with Retry-After
    HTTP_SERVER_ERROR = "http_server_error"  # 5xx
    HTTP_ERROR = "http_error"  # any other but 2xx
    TOO_LARGE = "too_large"  # bytes
    # The content
    NOT_AN_IMAGE = "not_an_image"
    CORRUPT = "corrupt"  # does not decode to its end
    TOO_MANY_PIXELS = "too_many_pixels"
    CONTENT_CHANGED = "content_changed"  # decodes, but its pHash is another
    # This program
    UNEXPECTED = "unexpected"  # a defect of this program or of a library


#: Failures that another attempt, at once or in a retry run, may fix; all others are final.
TRANSIENT = frozenset(
    {
        Status.ROBOTS_UNAVAILABLE,
        Status.DNS_UNAVAILABLE,
        Status.CONNECTION_FAILED,
        Status.TIMEOUT,
        Status.INTERRUPTED,
        Status.HTTP_THROTTLED,
        Status.HTTP_SERVER_ERROR,
        Status.UNEXPECTED,  # a later version may have it fixed
    }
)


class FetchError(Exception):
    """A row's failure.

    error: a message for people, without the URL, which may hold secrets. http_status: of the last
    answer, if any. retry_after: seconds that the host asks to wait.
    """

    def __init__(
        self,
        status: Status,
        error: str,
        http_status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.http_status = http_status
        self.retry_after = retry_after

    def bare(self) -> "FetchError":
        """A copy without the frames that it passed through, whose variables hold the bytes."""
        return FetchError(self.status, self.error, self.http_status, self.retry_after)
