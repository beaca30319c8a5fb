"""What a user can mend, told apart from what went wrong while working."""


class InputError(Exception):
    """Something the user gave is wrong: a key, a path, a file, a row. Exit status 2.

    The message names what is wrong, where, and how to mend it, on one line.
    """


class WorkError(Exception):
    """The work failed on good input. Exit status 1.

    The message names what failed and what is safe to do next.
    """


class CountError(WorkError):
    """Rows were lost or doubled: rows in differ from rows out plus rows rejected."""
