"""Text of unknown origin, escaped for the Markdown of a dataset card.

Manifests and file metadata may come from a stranger. A reader sees their text as it was written: it
cannot become HTML, a link, another line or another column.
"""

import html
import re
import sys
from urllib.parse import quote

#: What Markdown, its tables and the Hub's formulas (`$`) give a meaning to. `&`, `<` and `>` become
#: entities instead, so that a renderer without backslash escapes shows no HTML either.
_SPECIAL = re.compile(r"([\\`*_{}\[\]|#~$@])")

#: What becomes a link even without brackets.
_BARE_LINK = re.compile(r"(?<=:)//|(?<=www)\.", re.IGNORECASE)


def plain(value: object) -> str:
    """A value on one line, without control characters and marks that reorder the text."""
    line = " ".join(str(value).split())
    return "".join(character for character in line if character.isprintable())


def text(value: object) -> str:
    """A value as running text, a heading or a cell of a table."""
    escaped = _SPECIAL.sub(r"\\\1", html.escape(plain(value), quote=False))
    return _BARE_LINK.sub(lambda match: "\\" + match[0], escaped)


def uri(value: object) -> str:
    """A URL between `<` and `>`; characters that would end it are percent-encoded."""
    return quote(plain(value), safe=":/?#[]@!$&'()*+,;=%~")


def count(value: object) -> str:
    """A number with its thousands marked; anything else as text."""
    return f"{value:,}" if isinstance(value, int) else text(value)


def significant(value: object) -> str:
    """A number to four significant digits; anything else as text."""
    is_number = isinstance(value, int | float) and abs(value) < sys.float_info.max
    return f"{value:.4g}" if is_number else text(value)
