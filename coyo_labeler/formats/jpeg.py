"""What the markers of a JPEG file say before a pixel is decoded: its scans, and how plain it is.

Each scan of a progressive JPEG goes over all pixels again, and may be a few bytes long: 32 MiB of
scans are hours of work.
"""

import re
from collections.abc import Iterator
from itertools import islice

#: Scans of a JPEG at most; encoders write about ten, and each costs a pass over all pixels.
MAX_SCANS = 100

_END, _START_OF_SCAN = 0xD9, 0xDA
#: A scan's marker and the upper byte of its header's length. By re, which is twice as fast as find.
_SCAN = re.compile(rb"\xff\xda\x00")
#: Markers without a length after them: TEM, RSTn, SOI.
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
#: A marker. In a scan, a zero after 0xFF stands for the byte 0xFF, and RSTn belongs to the scan.
#: Without a repeat for fill bytes (0xFF before 0xFF), which would take quadratic time on them.
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_MARKER_IN_A_SCAN = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
#: Markers of tables, of applications and of comments, before the first scan.
_TABLES = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})


def has_more_scans(data: bytes, most: int) -> bool:
    """Whether a JPEG has more than so many scans."""
    # No data within a scan looks like the start of one, so the file has at most these. Thumbnails,
    # or a film after the picture, may have some of them: only then the segments are counted.
    if next(islice(_SCAN.finditer(data), most, None), None) is None:
        return False
    scans = 0
    for marker, _, _ in _segments(data):
        scans += marker == _START_OF_SCAN
        if scans > most or marker == _END:
            break
    return scans > most


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, end of the segment before, position of the marker) of each segment of a JPEG.

    Between two segments there may be fill bytes, the data of a scan, or bytes that do not belong.
    """
    end, pattern = 2, _MARKER
    while match := pattern.search(data, end):
        marker = match[1][0]
        yield marker, end, match.start()
        end, pattern = match.end(), _MARKER
        if marker == _START_OF_SCAN:
            pattern = _MARKER_IN_A_SCAN
        if marker not in _BARE:
            end += int.from_bytes(data[end : end + 2])


def is_plain_jpeg(data: bytes, pixels: int) -> bool:
    """Whether it is a whole 8-bit gray or YCbCr JPEG that OpenCV and Pillow decode alike.

    pixels: the picture must have fewer.

    A JPEG that breaks off is left to Pillow, which refuses it: OpenCV would pad it with gray. So
    are CMYK, files whose Adobe marker says that the channels are RGB, and files with bytes between
    their segments, which OpenCV skips and Pillow does not.
    """
    if not data.startswith(b"\xff\xd8") or b"\xff\xd9" not in data[-64:]:
        return False
    frame = 0
    for marker, end, position in _segments(data):
        if position + 10 > len(data) or data[end:position].strip(b"\xff"):
            return False
        if marker == _START_OF_SCAN:
            return (
                frame > 0
                and _is_plain_frame(data, frame, pixels)
                and _ends_well(data, frame, position)
            )
        if marker in (0xC0, 0xC1, 0xC2) and not frame:  # baseline, extended, progressive
            frame = position
        elif marker not in _TABLES or data[position + 4 : position + 9] == b"Adobe":
            return False
    return False


def _is_plain_frame(data: bytes, frame: int, most: int) -> bool:
    """Whether a frame has 8 bits, one or three channels and fewer than `most` pixels."""
    height, width = data[frame + 5 : frame + 7], data[frame + 7 : frame + 9]
    pixels = int.from_bytes(height, "big") * int.from_bytes(width, "big")
    return data[frame + 4] == 8 and data[frame + 9] in (1, 3) and pixels < most


def _ends_well(data: bytes, frame: int, scan: int) -> bool:
    """Whether the scans of a JPEG are few enough, with no marker that does not belong there.

    Both libraries pad what such a marker cuts off. Pillow then refuses the picture if the marker
    makes no sense; OpenCV does not. frame, scan: positions of frame and first scan.
    """
    markers = {match[1][0] for match in _MARKER_IN_A_SCAN.finditer(data, scan + 2)}
    if data[frame + 1] != 0xC2:
        return markers <= {0xD9}
    return markers <= {0xC4, 0xD9, 0xDA} and not has_more_scans(data, MAX_SCANS)
