"""The machine that the process runs on."""

import ctypes
import os

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4


def cores_of_machine() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def bytes_of_memory() -> int:
    """The machine's physical memory, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def keep_freed_memory(all_of_it: bool = False) -> None:
    """Let malloc keep freed memory (up to 256 MiB) for the next allocations; for worker processes.

    By default glibc returns a freed megabyte to the system at once, and its pages are faulted in
    again for the next image or array: a tenth of fetch's time. Without glibc this does nothing.

    all_of_it: keep up to 2 GiB, blocks above 32 MiB too, which glibc otherwise takes from the
    system each time. For a process that needs arrays of the same sizes over and over.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1 if all_of_it else 256 * 2**20)
        if all_of_it:
            mallopt(_MMAP_MAX, 0)
