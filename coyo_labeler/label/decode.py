"""Image files to RGB pixels, and what every kind of file becomes.

JPEGs go through OpenCV where it is installed, everything else through Pillow. Both sit on
libjpeg-turbo with the same settings: the pixels are equal bit for bit (the tests hold them to it).
"""

import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

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

#: Formats that are tried, by Pillow's names. Not EPS or PDF, which would start other programs.
_WANTED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "ICO")
Image.init()
FORMATS = tuple(name for name in _WANTED if name in Image.OPEN)


class ImageError(Exception):
    """One image cannot be labelled. reason: as in the failures table; detail: one line."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def decode(data: bytes, exif_orientation: bool = False) -> npt.NDArray[np.uint8]:
    """The pixels of an image file: (height, width, 3) uint8 RGB.

    Gray becomes three equal channels; palettes are looked up; alpha is dropped, not blended; CMYK
    is multiplied out, (255 − C)(255 − K) / 255; 16 bits keep their upper 8; one bit becomes 0 or
    255; of an animation the first frame stands. That is what TensorFlow's decoders make of them,
    which the published labels came through. Colour profiles are not applied.
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
    So are CMYK and files whose Adobe marker says that the channels are RGB.
    """
    if not data.startswith(b"\xff\xd8") or b"\xff\xd9" not in data[-64:]:
        return False
    position = 2
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in (0xC0, 0xC1, 0xC2):  # baseline, extended, progressive
            height, width = data[position + 5 : position + 7], data[position + 7 : position + 9]
            pixels = int.from_bytes(height, "big") * int.from_bytes(width, "big")
            return data[position + 4] == 8 and data[position + 9] in (1, 3) and pixels < MAX_PIXELS
        if (0xC3 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker in (0xD9, 0xDA):
            return False
        if marker == 0xEE and data[position + 4 : position + 9] == b"Adobe":
            return False
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own conversion cuts 16 bits off at 255 instead of scaling them.
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    # The address of an object in memory differs from run to run.
    return (text.partition(" <_io")[0] or type(error).__name__)[:200]
