"""Image files to RGB pixels, and what every kind of file becomes.

JPEGs go through OpenCV where it is installed, everything else through Pillow. Both sit on
libjpeg-turbo with the same settings: the pixels are equal bit for bit (the tests hold them to it).
"""

import io
import re
import threading
import warnings
from contextlib import nullcontext

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from coyo_labeler.errors import one_line
from coyo_labeler.jpeg import MAX_SCANS, has_more_scans

try:
    import cv2
except ImportError:  # Pillow gives the same pixels, in more time
    HAS_OPENCV = False
else:
    HAS_OPENCV = True

#: Reasons why one image has no belief, as they stand in the tables.
UNDECODABLE = "undecodable"
TOO_LARGE = "too_large"
NO_IMAGE = "no_image"
NO_ID = "no_id"
NOT_FINITE = "not_finite"
BELOW_THRESHOLD = "below_threshold"

#: Pixels above which a picture is refused: a small file can unfold to many gigabytes.
MAX_PIXELS = 178_956_970

#: Pixels from which pictures are unfolded one at a time, for that takes ten bytes a pixel, and are
#: sampled only where the resize looks.
LARGE_PIXELS = 16_000_000
_one_at_a_time = threading.Lock()

#: Formats that are tried, by Pillow's names. Not EPS or PDF, which would start other programs.
_WANTED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "ICO")
Image.init()
FORMATS = tuple(name for name in _WANTED if name in Image.OPEN)


#: Markers of tables, of applications and of comments, before a JPEG's first scan.
_TABLES = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})

#: A marker inside of a scan: what is no stuffed zero, restart or fill byte.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")


class ImageError(Exception):
    """One image cannot be labelled. reason: as in the failures table; detail: one line."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def decode(data: bytes, exif_orientation: bool = False) -> npt.NDArray[np.uint8]:
    """The pixels of an image file: (height, width, 3) uint8 RGB.

    Gray becomes three equal channels; palettes are looked up; alpha is dropped, not blended; CMYK
    is multiplied out, (255 − C)(255 − K) / 255; 16 bits keep their upper 8; one bit becomes 0 or
    255; of an animation the first frame stands. Of JPEG, PNG, GIF and BMP that is what TensorFlow's
    decoders make, which the published labels came through; it has none for the other formats.
    Colour profiles are not applied.
    exif_orientation: turn the picture as its EXIF tag says.

    Raises: ImageError where the bytes are no whole picture.
    """
    if HAS_OPENCV and not exif_orientation and _is_plain_jpeg(data):
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if pixels is not None:
            return pixels.astype(np.uint8, copy=False)
    return decode_with_pillow(data, exif_orientation)


def decode_with_pillow(data: bytes, exif_orientation: bool = False) -> npt.NDArray[np.uint8]:
    """As `decode`, whatever the format."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image.width, image.height)
                if image.format in ("JPEG", "MPO") and has_more_scans(data, MAX_SCANS):
                    raise ImageError(UNDECODABLE, f"more than {MAX_SCANS} scans in one JPEG")
                large = image.width * image.height >= LARGE_PIXELS
                with _one_at_a_time if large else nullcontext():
                    image.seek(0)
                    upright = ImageOps.exif_transpose(image) if exif_orientation else image
                    return np.array(_to_rgb(upright))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(TOO_LARGE, _one_line(error)) from None
    # Decoders raise whatever comes to hand on damaged bytes; each costs one image, by name.
    except Exception as error:
        raise ImageError(UNDECODABLE, _one_line(error)) from None


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(TOO_LARGE, f"{width} × {height} px, at most {MAX_PIXELS:,} px")


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether it is a whole 8-bit gray or YCbCr JPEG that OpenCV and Pillow read alike.

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
            return frame > 0 and _is_plain_frame(data, frame) and _ends_well(data, frame, position)
        if marker in (0xC0, 0xC1, 0xC2) and not frame:  # baseline, extended, progressive
            frame = position
        elif marker not in _TABLES or data[position + 4 : position + 9] == b"Adobe":
            return False
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def _is_plain_frame(data: bytes, frame: int) -> bool:
    """Whether the header of a frame speaks of 8 bits, one or three channels and not of too much."""
    height, width = data[frame + 5 : frame + 7], data[frame + 7 : frame + 9]
    pixels = int.from_bytes(height, "big") * int.from_bytes(width, "big")
    return data[frame + 4] == 8 and data[frame + 9] in (1, 3) and pixels < LARGE_PIXELS


def _ends_well(data: bytes, frame: int, scan: int) -> bool:
    """Whether no marker stands in a JPEG's scans that does not belong there, nor too many scans.

    Both libraries fill up what such a marker cuts off; Pillow then refuses the picture, if the
    marker makes no sense, and OpenCV does not. frame, scan: where the header of the frame and the
    first scan begin.
    """
    found = {match[1][0] for match in _MARKER.finditer(data, scan + 2)}
    if data[frame + 1] != 0xC2:
        return found <= {0xD9}
    return found <= {0xC4, 0xD9, 0xDA} and not has_more_scans(data, MAX_SCANS)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own conversion cuts 16 bits off at 255 instead of scaling them.
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _one_line(error: Exception) -> str:
    text = one_line(error)
    # The address of an object in memory differs from run to run.
    return (text.partition(" <_io")[0] or type(error).__name__)[:200]
