"""HTTP to an annotation tool: JSON requests, repeated where that is safe; errors with a remedy."""

import json
import os
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.util import Retry, Timeout, make_headers

from coyo_labeler.errors import InputError, WorkError, one_line
from coyo_labeler.redact import HIDDEN, without_parameters

#: Statuses of a server that is overloaded or being restarted.
_TRANSIENT = frozenset({429, 500, 502, 503, 504})
_CONNECT_SECONDS = 10.0
#: Seconds between repetitions: 0.5, 1, 2, … up to this.
_LONGEST_WAIT = 60.0


class UncertainError(WorkError):
    """A request that changes something got no answer: whether it was carried out is not known."""


class Credentials(Protocol):
    """What proves to a server who asks."""

    def header(self, server: "Server") -> str:
        """The value of the header Authorization."""

    def expire(self) -> bool:
        """The server refused it. Returns whether another attempt with a new one makes sense."""

    def secrets(self) -> tuple[str, ...]:
        """What no message may show, although a server may repeat it."""


@dataclass(frozen=True)
class Token:
    """A token that stays valid. scheme: `Token` or `Bearer`."""

    scheme: str
    secret: str

    def header(self, _: "Server") -> str:
        """See `Credentials`."""
        return f"{self.scheme} {self.secret}"

    def expire(self) -> bool:
        """See `Credentials`."""
        return False

    def secrets(self) -> tuple[str, ...]:
        """See `Credentials`."""
        return (self.secret,)

    def __repr__(self) -> str:  # the secret is in no traceback and no log
        return f"Token({self.scheme})"


class Server:
    """One server of an annotation tool.

    stage: for messages. tool: its name, for messages. url: in front of the paths of its API.
    variables: the environment's variables that hold its credentials, for messages. accept: the type
    of its answers.
    """

    def __init__(
        self,
        stage: str,
        tool: str,
        url: str,
        credentials: Credentials,
        variables: str,
        timeout_seconds: float = 60.0,
        retries: int = 6,
        accept: str = "application/json",
    ) -> None:
        self._accept = accept
        self.url = url.rstrip("/")
        self._stage, self._tool, self._variables = stage, tool, variables
        self._credentials = credentials
        self._retries = retries
        timeout = Timeout(connect=min(_CONNECT_SECONDS, timeout_seconds), read=timeout_seconds)
        self._pool = _pool_for(self.url, timeout)

    def get(self, path: str, fields: Mapping[str, Any] | None = None) -> Any:
        """The JSON that a GET answers. Raises: InputError, WorkError; see `_check`."""
        return self._ask("GET", path, fields=fields, repeat=True)

    def post(self, path: str, document: Any, repeat: bool = False) -> Any:
        """The JSON that a POST answers. repeat: whether it may be carried out twice.

        Raises: as `get`; UncertainError where it may have been carried out, if it is not repeated.
        """
        return self._ask("POST", path, document=document, repeat=repeat)

    def patch(self, path: str, document: Any) -> Any:
        """The JSON that a PATCH answers; it may be carried out twice. Raises: as `get`."""
        return self._ask("PATCH", path, document=document, repeat=True)

    def delete(self, path: str) -> None:
        """Remove something; it may be carried out twice. Raises: as `get`."""
        self._ask("DELETE", path, repeat=True)

    def log_in(self, path: str, document: Any) -> Any:
        """The JSON that a POST without credentials answers, which buys some. Raises: as `get`."""
        return self._ask("POST", path, document=document, repeat=True, with_credentials=False)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        repeat: bool,
        fields: Mapping[str, Any] | None = None,
        document: Any = None,
        with_credentials: bool = True,
    ) -> Any:
        where = f"{self._stage}: {self._tool} at {self.url}"
        request = f"{method} {path}"
        while True:
            headers = {"Accept": self._accept}
            if with_credentials:
                headers["Authorization"] = self._credentials.header(self)
            body = None
            if document is not None:
                headers["Content-Type"] = "application/json"
                body = json.dumps(document, ensure_ascii=False).encode()
            with _explained(where, request, repeat):
                response = self._pool.request(
                    method,
                    self.url + path,
                    fields=fields,
                    body=body,
                    headers=headers,
                    retries=self._retry_of(repeat),
                    redirect=False,
                )
            expired = response.status == 401 and with_credentials
            if not (expired and self._credentials.expire()):
                return self._check(response, where, request, repeat)

    def _retry_of(self, repeat: bool) -> Retry:
        """Which failures are tried again; those to connect are always, as nothing was sent."""
        times = self._retries
        return Retry(
            total=times,
            connect=times,
            read=times if repeat else 0,
            status=times,
            other=times if repeat else 0,
            redirect=0,
            status_forcelist=_TRANSIENT if repeat else {429},
            allowed_methods=None,  # whether it is safe was decided by the caller
            backoff_factor=0.5,
            backoff_max=_LONGEST_WAIT,
            raise_on_status=False,
        )

    def _check(
        self, response: urllib3.BaseHTTPResponse, where: str, request: str, repeat: bool
    ) -> Any:
        """The JSON of an answer.

        Raises: InputError where the user can fix it, WorkError where the server failed.
        """
        status = response.status
        text = "" if status < 300 else self._text_of(response)
        if status in {401, 403}:
            what = "did not accept the credentials" if status == 401 else "does not allow"
            raise InputError(
                f"{where}: {what} ({request}: {status} {text}); set {self._variables} to a token "
                "of a user who may do this, in the environment"
            )
        if status == 404:
            raise InputError(
                f"{where}: there is no {request} (404); check the URL, and that the project exists "
                "and is yours"
            )
        if 300 <= status < 400:
            target = without_parameters(response.headers.get("Location", ""))
            raise InputError(f"{where}: it sends {request} on to {target}; give that URL")
        if 400 <= status < 500 and status != 429:
            raise InputError(f"{where}: it refuses {request} ({status}: {text})")
        if status >= 400:
            kind = WorkError if repeat or status == 429 else UncertainError
            raise kind(
                f"{where}: {request} failed ({status}: {text}); what was done is kept: run the "
                "same command again later"
            )
        if not response.data:
            return None
        try:
            return json.loads(response.data)
        except (ValueError, RecursionError):
            raise InputError(
                f"{where}: the answer to {request} is not JSON ({self._text_of(response)[:80]}); "
                "check the URL: it is that of the tool's start page"
            ) from None

    def _text_of(self, response: urllib3.BaseHTTPResponse) -> str:
        """What a server says in words, on one line; some repeat the credentials."""
        text = response.data.decode(errors="replace")
        for secret in self._credentials.secrets():
            text = text.replace(secret, HIDDEN)
        return one_line(text, 300)


@contextmanager
def _explained(where: str, request: str, repeat: bool) -> Iterator[None]:
    """Errors of the line as ours."""
    try:
        yield
    except urllib3.exceptions.HTTPError as error:
        reason = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else error
        why = one_line(_without_object(reason), 200)
        if isinstance(reason, urllib3.exceptions.LocationValueError):
            raise InputError(f"{where} is no URL of a server ({why})") from None
        if isinstance(reason, urllib3.exceptions.ProxyError):
            raise InputError(
                f"{where} cannot be reached through the proxy that the environment names ({why}); "
                "check http_proxy, https_proxy and no_proxy"
            ) from None
        if isinstance(reason, urllib3.exceptions.NewConnectionError):
            raise InputError(
                f"{where} cannot be reached ({why}); check the URL, and that the server runs"
            ) from None
        if isinstance(reason, urllib3.exceptions.SSLError):
            raise InputError(f"{where}: {why}; check the URL and its certificate") from None
        kind = WorkError if repeat else UncertainError
        raise kind(
            f"{where}: {request} got no answer ({why}); what was done is kept: run the same "
            "command again"
        ) from None


def _without_object(error: object) -> str:
    """An error's text without the repr of the connection in front."""
    text = str(error)
    return text.partition(": ")[2] or text if text.startswith(("<", "HTTP")) else text


def _pool_for(url: str, timeout: Timeout) -> urllib3.PoolManager:
    """Connections to a server, through the environment's proxy where there is one."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        auth = urlsplit(proxy)
        known = (
            f"{unquote(auth.username)}:{unquote(auth.password or '')}" if auth.username else None
        )
        return urllib3.ProxyManager(
            proxy, timeout=timeout, proxy_headers=make_headers(proxy_basic_auth=known)
        )
    return urllib3.PoolManager(timeout=timeout)


def secret_of(stage: str, tool: str, *variables: str) -> str:
    """The first of the environment's variables that is set.

    Raises: InputError naming them where none is, or what is set cannot be a token.
    """
    for variable in variables:
        value = os.environ.get(variable, "").strip()
        if value and not (value.isascii() and value.isprintable() and " " not in value):
            raise InputError(
                f"{stage}: {variable} in the environment is no token of {tool}: it has blanks or "
                "characters that are not ASCII; set the token alone"
            )
        if value:
            return value
    raise InputError(
        f"{stage}: no token for {tool}: set {' or '.join(variables)} in the environment (secrets "
        "are no settings, so that they stand in no file)"
    )


def part_of(answer: Any, name: str, tool: str, url: str) -> Any:
    """A field of what a server answered. Raises: InputError where it has none of this name."""
    if not isinstance(answer, dict) or name not in answer:
        raise InputError(
            f"{tool} at {url} answered without '{name}'; check the URL, and that the server is "
            f"{tool} of a version that docs/annotation_tools.md names"
        )
    return answer[name]
