"""The errors of the package: what the user can fix, and what failed while working."""

from coyo_labeler.redact import printable, redact

#: Characters of a message at most: names and values in it may be a stranger's.
_LONGEST = 4000


class InputError(Exception):
    """Something the user gave is wrong: a key, a path, a file, a row. Exit status 2.

    The message names what is wrong, where, and the remedy, on one line, without passwords and
    control characters.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_message(message))


class WorkError(Exception):
    """The work failed on good input. Exit status 1.

    The message names what failed and what is safe to do next, without passwords.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_message(message))


class CountError(WorkError):
    """Rows were lost or doubled: rows in differ from rows out plus rows rejected."""


def _message(text: str) -> str:
    """One line of bounded length, without secrets; long enough that none of them is cut in two."""
    line = printable(redact(text[: 4 * _LONGEST]))
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "…"


def one_line(error: object, longest: int | None = None) -> str:
    """The text of an error with its whitespace folded, or its type's name where it has no text.

    longest: characters at most.
    """
    return " ".join(str(error).split())[:longest] or type(error).__name__
