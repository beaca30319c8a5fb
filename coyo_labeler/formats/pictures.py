"""Image files to RGB pixels, and what every kind of file becomes.

JPEGs go through OpenCV where it is installed, everything else through Pillow. Both sit on
libjpeg-turbo with the same settings: the pixels are equal bit for bit (the tests hold them to it).
"""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from coyo_labeler.errors import one_line
from coyo_labeler.formats.faults import Fault, ImageError
from coyo_labeler.formats.jpeg import MAX_SCANS, has_more_scans, is_plain_jpeg
from coyo_labeler.formats.picture_formats import FORMATS

try:
    import cv2
except ImportError:  # Pillow gives the same pixels, in more time
    HAS_OPENCV = False
else:
    HAS_OPENCV = True

#: Pixels above which a picture is refused: a small file can unfold to many gigabytes.
MAX_PIXELS = 178_956_970

#: Pixels from which pictures are unfolded one at a time, for that takes ten bytes a pixel, and are
#: sampled only where the resize looks.
LARGE_PIXELS = 16_000_000
_one_at_a_time = threading.Lock()


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
    if HAS_OPENCV and not exif_orientation and is_plain_jpeg(data, LARGE_PIXELS):
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if pixels is not None:
            return pixels.astype(np.uint8, copy=False)
    return decode_with_pillow(data, exif_orientation)


def decode_with_pillow(data: bytes, exif_orientation: bool = False) -> npt.NDArray[np.uint8]:
    """As `decode`, whatever the format."""
    with open_picture(data) as image:
        return np.array(to_rgb(ImageOps.exif_transpose(image) if exif_orientation else image))


@contextmanager
def open_picture(data: bytes) -> Iterator[Image.Image]:
    """An image file of one of FORMATS, its size checked; to be decoded inside the `with` block.

    Every picture out of a tar is opened here, so that no other format is tried.

    Raises: ImageError where the bytes are no whole picture, also for what is raised in the block.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image.width, image.height)
                if image.format in ("JPEG", "MPO") and has_more_scans(data, MAX_SCANS):
                    raise ImageError(Fault.UNDECODABLE, f"more than {MAX_SCANS} scans in one JPEG")
                large = image.width * image.height >= LARGE_PIXELS
                with _one_at_a_time if large else nullcontext():
                    image.seek(0)
                    yield image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(Fault.TOO_LARGE, _one_line(error)) from None
    # Decoders raise whatever comes to hand on damaged bytes; each costs one image, by name.
    except Exception as error:
        raise ImageError(Fault.UNDECODABLE, _one_line(error)) from None


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(Fault.TOO_LARGE, f"{width} × {height} px, at most {MAX_PIXELS:,} px")


def to_rgb(image: Image.Image) -> Image.Image:
    """Any picture as RGB. See `decode`.

    Raises: ImageError where its samples are floating-point numbers: nothing says which is white.
    """
    if image.mode == "F":
        raise ImageError(Fault.UNDECODABLE, "its samples are floating-point numbers")
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
