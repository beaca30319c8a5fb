"""How much memory a block of code takes at its peak.

Not by tracemalloc: the interpreter crashes where it is on and a library's own thread (Arrow's, say)
lets go of a Python object.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_PROCESS = Path("/proc/self")


@contextmanager
def peak_growth() -> Iterator[list[int]]:
    """Yields a list that holds, after the block, the bytes by which this process grew at most.

    Linux only: elsewhere the test is skipped.
    """
    if not (_PROCESS / "clear_refs").exists():
        pytest.skip("the peak of resident memory is read from /proc")
    (_PROCESS / "clear_refs").write_text("5")  # forgets the peak so far
    before, grown = _resident_peak(), [0]
    yield grown
    grown[0] = _resident_peak() - before


def _resident_peak() -> int:
    lines = (_PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
