"""Secrets are kept out of all that is written or printed: settings by key, URLs by their form."""

import logging
import re
from collections.abc import Mapping
from typing import Any

#: What stands in place of a secret.
HIDDEN = "***"

_WORDS = "secret|token|passw|passphrase|credential|signature|key"

#: A key of settings, or the name of a property, whose text is a secret.
_SECRET_KEY = re.compile(_WORDS, re.IGNORECASE)

#: `user:password` in front of a URL's host, also where the password has an `@` or a `/` in it.
#: A user alone stays: in abfs://container@account it names the container.
_USER = re.compile(
    r"(?<=://)(?:[^\s/?#]*:[^\s/?#]*|[^\s/@:]*:(?!\d{1,5}[/?#])[^\s@]*)(?=@)"
    r"|(?<=https://)[^\s/?#@]+(?=@)"
)

#: `name=value` in a URL's query, or a property among the options of a program.
_PARAMETER = re.compile(
    rf"((?:[?&]|(?<!\S)--?)(?:[\w.~-]*(?:{_WORDS})[\w.~-]*|sig|auth)=)[^&\s'\"]+", re.IGNORECASE
)


#: What a terminal or a reader of logs acts on: control characters, separators of lines, and marks
#: that reorder text. Halves of surrogate pairs cannot be printed.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def redact(text: str) -> str:
    """A text with the secrets of its URLs and program options replaced by `HIDDEN`."""
    return _PARAMETER.sub(rf"\1{HIDDEN}", _USER.sub(HIDDEN, text))


def without_parameters(url: str) -> str:
    """A URL without its query and fragment, which may sign it, and without a password."""
    return redact(re.split(r"[?#]", url, maxsplit=1)[0])


def redact_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON values, with the values of secret keys and the secrets of URLs replaced."""
    return {key: redact_value(key, value) for key, value in settings.items()}


def redact_texts(value: Any) -> Any:
    """A JSON value with the secrets of the URLs in its texts replaced, in names too."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact_texts(name): redact_texts(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact_texts(inner) for inner in value]
    return value


def redact_value(key: str, value: Any) -> Any:
    """One value of settings, as `redact_settings` shows it. key: its name, dotted if nested."""
    if isinstance(value, Mapping):
        return {name: redact_value(f"{key}.{name}", inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact_value(key, inner) for inner in value]
    if not isinstance(value, str):
        return value
    return HIDDEN if _SECRET_KEY.search(key) else redact(value)


def printable(text: str, keep: str = "") -> str:
    """A text in which characters that move the cursor or begin a line are escaped, as in \\n.

    What a message names, such as a file or a worker, may be a stranger's. keep: control characters
    that are left.
    """
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


class RedactingFormatter(logging.Formatter):
    """Formats log records as another formatter does, without the secrets of URLs.

    Control characters are escaped, but for those of a text of several lines.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        return printable(redact(self._inner.format(record)), keep="\n\t")
