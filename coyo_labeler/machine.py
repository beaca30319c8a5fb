"""The machine that the process runs on."""

import ctypes
import os

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def cores_of_machine() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Have malloc keep what is freed (up to 256 MiB) for what is allocated next; for workers.

    glibc gives a freed megabyte back at once, and its pages are faulted in anew for the next image
    or array: a tenth of fetch's time. Elsewhere nothing is done: the call is glibc's own.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(_TRIM_THRESHOLD, 256 * 2**20)
