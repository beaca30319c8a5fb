"""Optional shrinking of images before they are packed."""

import io
from dataclasses import dataclass

from PIL import Image, ImageOps

from coyo_labeler.fetch.verify import open_image


@dataclass(frozen=True)
class Resized:
    """A shrunk image, encoded. width, height: pixels."""

    data: bytes
    extension: str
    width: int
    height: int


def shrink(data: bytes, shorter_side: int, quality: int, max_pixels: int) -> Resized | None:
    """The image with its shorter side at `shorter_side` pixels, or None where it is no larger.

    The ratio of the sides is kept. EXIF orientation is applied, because the tag is not kept.
    JPEG at `quality`; PNG where the image has transparency.

    Raises: FetchError (not_an_image, corrupt, too_many_pixels); corrupt also where it decodes but
    cannot be written, as a JPEG with a side above 65,500 pixels.
    """
    with open_image(data, max_pixels) as image:
        if min(image.size) <= shorter_side:
            return None
        upright = ImageOps.exif_transpose(image)
        profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA") else None
        transparent = upright.has_transparency_data
        colours = upright.convert("RGBA" if transparent else "RGB")
        scale = shorter_side / min(colours.size)
        width, height = (max(shorter_side, round(side * scale)) for side in colours.size)
        small = colours.resize((width, height), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        if transparent:
            small.save(buffer, "PNG", icc_profile=profile)
            return Resized(buffer.getvalue(), "png", width, height)
        small.save(buffer, "JPEG", quality=quality, subsampling=0, icc_profile=profile)
        return Resized(buffer.getvalue(), "jpg", width, height)
