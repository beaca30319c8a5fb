"""One run at a time works on a folder, whoever starts others meanwhile."""

import fcntl
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coyo_labeler import storage
from coyo_labeler.progress import every
from coyo_labeler.storage_errors import writing

#: The lock's name in the folder.
LOCK = "_lock.json"

#: On object stores: seconds between two signs of life, and after which a holder counts as dead.
_BEAT, _DEAD = 30.0, 300.0
#: On object stores: seconds in which a write of somebody else becomes visible.
_SETTLE = 2.0


@contextmanager
def locked(folder: str) -> Iterator[bool]:
    """Whether this process is the one that works on a folder, for the `with` block.

    On this machine's filesystem the kernel keeps the lock, and releases it when the process ends,
    however that happens. On an object store the holder leaves a sign of life in a file; one that
    has left none for five minutes is dead.
    """
    path = storage.local_path(folder)
    if path is None:
        with _locked_by_file(storage.join(folder, LOCK)) as is_held:
            yield is_held
        return
    with writing(folder):
        Path(path).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(Path(path, LOCK), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


@contextmanager
def _locked_by_file(url: str) -> Iterator[bool]:
    token = uuid.uuid4().hex

    def beat() -> None:
        document = {"token": token, "host": socket.gethostname(), "time": time.time()}
        storage.write_json(url, document)

    def holder() -> str | None:
        document = storage.read_json(url)
        alive = document is not None and time.time() - float(document["time"]) < _DEAD
        return str(document["token"]) if document is not None and alive else None

    if holder() is not None:
        yield False
        return
    beat()
    time.sleep(_SETTLE)  # of two that began at once the one who wrote last holds it
    if holder() != token:
        yield False
        return
    try:
        with every(_BEAT, beat):
            yield True
    finally:
        storage.remove(url)
