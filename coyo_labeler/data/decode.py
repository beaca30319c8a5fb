"""Bytes to a picture."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def decode_rgb(content: bytes) -> "Image":
    """An RGB Pillow image; transparency is dropped, EXIF orientation is not applied.

    Raises: OSError (Pillow's UnidentifiedImageError is one) where the bytes are no whole picture.
    """
    from PIL import Image  # noqa: PLC0415  # a decoder of one's own makes Pillow unnecessary

    with Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB")
