"""How many scans a JPEG holds: what decoding it costs, seen before a pixel is decoded.

Each scan of a progressive JPEG goes over all pixels again, and may be a few bytes long: 32 MiB of
them are hours of work.
"""

import re
from itertools import islice

#: Scans of a JPEG at most; encoders write about ten, and each costs a pass over all pixels.
MAX_SCANS = 100

_END, _START_OF_SCAN = 0xD9, 0xDA
#: A scan's marker and the upper byte of its header's length. By re, which is twice as fast as find.
_SCAN = re.compile(rb"\xff\xda\x00")
#: Markers without a length behind them: TEM, RSTn, SOI.
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
#: A marker; within a scan a zero behind 0xFF stands for the byte itself, and RSTn belongs to it.
_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_MARKER_AFTER_A_SCAN = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)


def has_more_scans(data: bytes, most: int) -> bool:
    """Whether a JPEG has more than so many scans."""
    # Nothing of a scan looks like a scan's beginning, so a file has no more than these; but a
    # thumbnail may, or a film behind the picture, and only then it is worth going through it.
    suspicious = next(islice(_SCAN.finditer(data), most, None), None) is not None
    return suspicious and _scans(data, most + 1) > most


def _scans(data: bytes, enough: int) -> int:
    """The scans up to the picture's end; counting ends at `enough`."""
    found, place, pattern = 0, 2, _MARKER
    while found < enough and (marker := pattern.search(data, place)):
        kind, place, pattern = marker[1][0], marker.end(), _MARKER
        if kind == _END:
            break
        if kind in _BARE:
            continue
        if kind == _START_OF_SCAN:
            found += 1
            pattern = _MARKER_AFTER_A_SCAN
        place += int.from_bytes(data[place : place + 2])
    return found
