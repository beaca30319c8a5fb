"""Image files to RGB pixels, and what every kind of file becomes."""

import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

#: Failures of one image, as they stand in the table of failures.
UNDECODABLE = "undecodable"
TOO_LARGE = "too_large"
NO_IMAGE = "no_image"
NO_ID = "no_id"
NOT_FINITE = "not_finite"

#: Pixels above which a picture is refused: a small file can unfold to many gigabytes.
MAX_PIXELS = 178_956_970


class ImageError(Exception):
    """One image cannot be labelled. reason: a name of the failures table; detail: one line."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def decode(data: bytes, exif_orientation: bool = False) -> npt.NDArray[np.uint8]:
    """The pixels of an image file: (height, width, 3) uint8 RGB.

    Gray becomes three equal channels; palettes are looked up; alpha is dropped, not blended;
    CMYK goes through Pillow's plain conversion; 16 bits keep their upper 8; of an animation the
    first frame stands. exif_orientation: turn the picture as its EXIF tag says.

    Raises: ImageError where the bytes are no whole picture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageError(
                        TOO_LARGE, f"{image.width} × {image.height} px, at most {MAX_PIXELS:,} px"
                    )
                image.seek(0)
                upright = ImageOps.exif_transpose(image) if exif_orientation else image
                return np.array(_to_rgb(upright))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(TOO_LARGE, _one_line(error)) from None
    # What decoders raise on damaged bytes is not narrower than this.
    except (
        UnidentifiedImageError,
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        TypeError,
        IndexError,
        KeyError,
        OverflowError,
        MemoryError,
    ) as error:
        raise ImageError(UNDECODABLE, _one_line(error)) from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion cuts 16 bits off at 255 instead of scaling them.
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    # The address of an object in memory differs from run to run.
    return (text.split(" <_io", maxsplit=1)[0] or type(error).__name__)[:200]
