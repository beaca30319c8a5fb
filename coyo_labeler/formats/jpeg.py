"""JPEG files by their markers, before a pixel is decoded: how many scans, and how plain they are.

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

#: A marker inside of a scan: what is no stuffed zero, restart or fill byte.
_MARKER_IN_A_SCAN = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
#: Markers of tables, of applications and of comments, before the first scan.
_TABLES = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})


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


def is_plain_jpeg(data: bytes, pixels: int) -> bool:
    """Whether it is a whole 8-bit gray or YCbCr JPEG that OpenCV and Pillow read alike.

    pixels: that it has fewer of.

    A JPEG that breaks off is left to Pillow, which refuses it: OpenCV would fill it up with gray.
    So are CMYK, files whose Adobe marker says that the channels are RGB, and files whose segments
    do not follow one on another: OpenCV looks for the next marker, and Pillow does not.
    """
    if not data.startswith(b"\xff\xd8") or b"\xff\xd9" not in data[-64:]:
        return False
    position, frame = 2, 0
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0xDA:
            return (
                frame > 0
                and _is_plain_frame(data, frame, pixels)
                and _ends_well(data, frame, position)
            )
        if marker in (0xC0, 0xC1, 0xC2) and not frame:  # baseline, extended, progressive
            frame = position
        elif marker not in _TABLES or data[position + 4 : position + 9] == b"Adobe":
            return False
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def _is_plain_frame(data: bytes, frame: int, most: int) -> bool:
    """Whether the header of a frame speaks of 8 bits, one or three channels and not of too much."""
    height, width = data[frame + 5 : frame + 7], data[frame + 7 : frame + 9]
    pixels = int.from_bytes(height, "big") * int.from_bytes(width, "big")
    return data[frame + 4] == 8 and data[frame + 9] in (1, 3) and pixels < most


def _ends_well(data: bytes, frame: int, scan: int) -> bool:
    """Whether no marker stands in a JPEG's scans that does not belong there, nor too many scans.

    Both libraries fill up what such a marker cuts off; Pillow then refuses the picture, if the
    marker makes no sense, and OpenCV does not. frame, scan: where the header of the frame and the
    first scan begin.
    """
    found = {match[1][0] for match in _MARKER_IN_A_SCAN.finditer(data, scan + 2)}
    if data[frame + 1] != 0xC2:
        return found <= {0xD9}
    return found <= {0xC4, 0xD9, 0xDA} and not has_more_scans(data, MAX_SCANS)
