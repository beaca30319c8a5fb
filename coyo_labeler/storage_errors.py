"""What errors of files mean to the person who started the job: one line with the remedy."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from zipfile import BadZipFile

from coyo_labeler.errors import InputError, WorkError, one_line

#: What a full disk says: no space, a quota, or a limit on the size of files.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

#: What the place says where a file cannot be; the next attempt fails in the same way.
_REFUSED = {errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY}
REFUSALS = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)

#: What a document of an unexpected form makes of the code that reads it.
_MALFORMED = (
    AttributeError,
    BadZipFile,
    EOFError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
)

#: Base classes of what the libraries of object stores raise and what is no OSError. They are named
#: and not imported, because few of the libraries are installed.
_OF_STORES = {
    "botocore.exceptions.BotoCoreError",
    "google.auth.exceptions.GoogleAuthError",
    "azure.core.exceptions.AzureError",
}
#: What the network does to them, which passes.
_OF_NETWORKS = {
    "aiohttp.client_exceptions.ClientError",
    "azure.core.exceptions.ServiceRequestError",
    "azure.core.exceptions.ServiceResponseError",
    "botocore.exceptions.ConnectionError",
    "botocore.exceptions.HTTPClientError",
    "botocore.exceptions.IncompleteReadError",
    "google.auth.exceptions.TransportError",
    "httpx.TransportError",  # of hf://
    "httpx2.TransportError",
}

_AGAIN = "what was finished is kept: run the same command again to resume"


class DamagedFileError(InputError):
    """A file that a stage wrote cannot be read: it is cut short, or its content has changed."""


def explain_os_error(error: OSError, url: str | None = None) -> InputError | WorkError:
    """An error of the system as one of ours. url: of the file that was being written.

    A place that cannot be written or read is the user's to change. Room can be made, and networks
    come back: after that, the same command goes on.
    """
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str)]
    where = url or " and ".join(names)
    reason = error.strerror or one_line(error, 300)
    if error.errno in _FULL:
        room = "make room, or raise the limit"
        return WorkError(f"output: {where or 'a file'}: {reason}; {room}. {_AGAIN.capitalize()}")
    if isinstance(error, REFUSALS) or error.errno in _REFUSED:
        if url is not None:
            return InputError(
                f"output: {url} cannot be written ({reason}); choose another output, or let this "
                "user create files there"
            )
        return InputError(
            f"{where + ': ' if where else ''}{reason}; give another path, or let this user read "
            "and write there"
        )
    return WorkError(f"{where + ': ' if where else ''}{reason}; {_AGAIN}")


def explain_store_error(error: Exception, what: str = "") -> InputError | WorkError | None:
    """An error of an object store's library as one of ours; None for any other error.

    what: what the store was asked for.
    """
    where = f"{what}: " if what else ""
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    if kinds & _OF_NETWORKS:
        return WorkError(f"{where}the store cannot be reached ({one_line(error, 300)}); {_AGAIN}")
    return _unusable(error, where) if kinds & _OF_STORES else None


def _unusable(error: Exception, where: str) -> InputError:
    return InputError(
        f"{where}the store cannot be used ({one_line(error, 300)}); correct the path, or the "
        "store's credentials and address in the environment"
    )


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Asking a store for the first time inside the `with` block. what: the setting and its URL.

    Raises: InputError where the store cannot be used so, WorkError where it cannot be reached.
    """
    try:
        yield
    except ValueError as error:  # such as an address without http://, or a path of another form
        raise _unusable(error, f"{what}: ") from error
    except Exception as error:
        explained = explain_store_error(error, what)
        if explained is None:
            raise
        raise explained from error


@contextmanager
def writing(url: str) -> Iterator[None]:
    """Creating or renaming the file at `url` inside the `with` block.

    Raises: InputError where it cannot be written, WorkError where there is no room.
    """
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, url) from error


@contextmanager
def filling(url: str) -> Iterator[None]:
    """Writing the content of `url` inside the `with` block. Raises: WorkError where it has no room.

    Other errors of the system pass: whoever writes this file reads others at the same time.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        # PyTorch closes its archive after a write has failed, which fails in its own way.
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if not isinstance(cause, OSError) or cause.errno not in _FULL:
            raise
        raise explain_os_error(cause, url) from error


@contextmanager
def parsing(url: str, remedy: str = "remove it") -> Iterator[None]:
    """Reading a document inside the `with` block. Raises: DamagedFileError where that fails."""
    try:
        yield
    except _MALFORMED as error:
        reason = f"no {error}" if isinstance(error, KeyError) else one_line(error, 200)
        raise DamagedFileError(f"{url} is cut short or damaged ({reason}); {remedy}") from None
