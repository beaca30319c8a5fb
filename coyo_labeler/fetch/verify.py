"""Is it an image, whole, and the one that the catalog means?

The hash is `imagehash.phash` on the original bytes as Pillow decodes them, EXIF orientation not
applied: as COYO's was made.
"""

import hashlib
import io
import struct
import warnings
import zlib
from dataclasses import dataclass

import imagehash
from PIL import Image, UnidentifiedImageError

from coyo_labeler.fetch.status import FetchError, Status

#: File name extension by Pillow's format; no other format is opened.
EXTENSIONS = {
    "JPEG": "jpg",
    "MPO": "jpg",  # a JPEG with further pictures; Pillow's JPEG plugin opens it
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tif",
    "AVIF": "avif",
}

_OPENED = [name for name in EXTENSIONS if name != "MPO"]

#: What Pillow's decoders raise on bytes that are cut or made up.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)

Image.init()  # registers all plugins, so that any of the formats can be asked for
# The size is checked here, from the header, before a pixel is decoded.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Verified:
    """An image that decodes. width, height: pixels as stored. distance: bits, or None."""

    extension: str
    width: int
    height: int
    imagehash: str
    distance: int | None
    sha256: str


def verify(data: bytes, expected: str | None, max_pixels: int) -> Verified:
    """Decode an image to its end and compare its pHash with the `expected` one (16 hex digits).

    Raises: FetchError (not_an_image, corrupt, too_many_pixels).
    """
    try:
        image = Image.open(io.BytesIO(data), formats=_OPENED)
    except UnidentifiedImageError:
        raise FetchError(Status.NOT_AN_IMAGE, _describe(data)) from None
    except Image.DecompressionBombError:
        raise FetchError(Status.TOO_MANY_PIXELS, "far too many pixels by its header") from None
    except _DECODE_ERRORS as error:
        raise FetchError(Status.CORRUPT, _line(error)) from None
    with image:
        width, height = image.size
        if width * height > max_pixels:
            raise FetchError(Status.TOO_MANY_PIXELS, f"{width} × {height} pixels by its header")
        try:
            image.load()
            found = imagehash.phash(image)
        except _DECODE_ERRORS as error:
            raise FetchError(Status.CORRUPT, _line(error)) from None
    assert image.format is not None
    distance = None if expected is None else hamming(expected, str(found))
    return Verified(
        EXTENSIONS[image.format],
        width,
        height,
        str(found),
        distance,
        hashlib.sha256(data).hexdigest(),
    )


def hamming(one: str, other: str) -> int:
    """Bits in which two hexadecimal hashes differ."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def _describe(data: bytes) -> str:
    if not data:
        return "empty"
    if data.lstrip()[:1] == b"<":
        return "HTML or XML"
    return f"no known image format; begins with {data[:8].hex()}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
