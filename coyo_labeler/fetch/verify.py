"""Whether a body is an image, whole, and the one in the catalog.

The hash is `imagehash.phash` of the pixels as Pillow decodes them, without EXIF orientation: COYO's
was made the same way.
"""

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from coyo_labeler.errors import one_line
from coyo_labeler.fetch.phash import phash
from coyo_labeler.fetch.status import FetchError, Status
from coyo_labeler.formats.jpeg import MAX_SCANS, has_more_scans
from coyo_labeler.formats.picture_formats import ENDING_OF, FETCHED

# The size is checked here, from the header, before a pixel is decoded.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Verified:
    """An image that decodes.

    width, height: pixels as stored. imagehash: of its pixels, or None where it is not wanted.
    """

    extension: str
    width: int
    height: int
    imagehash: str | None
    sha256: str


def verify(data: bytes, max_pixels: int, with_phash: bool = True) -> Verified:
    """Decode an image to its end, and hash its pixels.

    max_pixels: checked in the header, before anything is decoded.

    Raises: FetchError (not_an_image, corrupt, too_many_pixels).
    """
    with open_image(data, max_pixels) as image:
        width, height = image.size
        extension = ENDING_OF[image.format or ""]
        if not with_phash:
            # Every byte is read all the same, but a JPEG is decoded at an eighth of its side.
            image.draft("RGB", (1, 1))
        image.load()
        imagehash = phash(image) if with_phash else None
    return Verified(extension, width, height, imagehash, hashlib.sha256(data).hexdigest())


@contextmanager
def open_image(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """An image of a known format whose header has been read; decode it inside the block.

    Raises: FetchError (not_an_image, corrupt, too_many_pixels).
    """
    try:
        with Image.open(io.BytesIO(data), formats=FETCHED) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise FetchError(Status.TOO_MANY_PIXELS, f"{width} × {height} pixels by its header")
            if image.format in ("JPEG", "MPO") and has_more_scans(data, MAX_SCANS):
                raise FetchError(Status.CORRUPT, f"more than {MAX_SCANS} scans in one JPEG")
            yield image
    except UnidentifiedImageError:
        raise FetchError(Status.NOT_AN_IMAGE, _describe(data)) from None
    except Image.DecompressionBombError:
        raise FetchError(Status.TOO_MANY_PIXELS, "far too many pixels by its header") from None
    except (FetchError, MemoryError):
        raise
    except Exception as error:
        # Pillow's many decoders raise all kinds of exceptions on truncated or invented bytes. The
        # image is at fault, and one image must not end the work on all others.
        line = one_line(error, 200)
        raise FetchError(Status.CORRUPT, line or type(error).__name__) from None


def hamming(first: str, second: str) -> int:
    """Number of bits in which two hexadecimal hashes differ."""
    return (int(first, 16) ^ int(second, 16)).bit_count()


def _describe(data: bytes) -> str:
    if not data:
        return "empty"
    if data.lstrip()[:1] == b"<":
        return "HTML or XML"
    return f"no known image format; begins with {data[:8].hex()}"
