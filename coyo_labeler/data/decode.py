"""Bytes to a picture."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def decode_rgb(content: bytes) -> "Image":
    """An RGB Pillow image; transparency is dropped, EXIF orientation is not applied.

    Raises: ImageError (a ValueError) where the bytes are no whole picture, or one too large.
    """
    # A decoder of one's own makes Pillow unnecessary.
    from coyo_labeler.formats.pictures import open_picture, to_rgb  # noqa: PLC0415

    with open_picture(content) as image:
        return to_rgb(image)
