"""The demo's photographs: scikit-learn's 1,797 scanned handwritten digits, as image files.

The scans are those of the UCI "Optical Recognition of Handwritten Digits" test set (Alpaydin and
Kaynak 1998): 8 × 8 counts of ink, 0..16.
"""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits

SHORT_SIDE = 224


def load() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Ink of every scan (1797, 8, 8), 0..16, and its class (1797,), 0..9."""
    scans = load_digits()
    return scans.images.astype(np.uint8), scans.target.astype(np.int32)


def photograph(ink: npt.NDArray[np.uint8], seed: int) -> Image.Image:
    """A scan made to look like a photograph: dark ink on tinted paper, uneven light, margins.

    ink: (8, 8), 0..16. seed: for paper, light and margins. Returns an RGB image whose shorter
    side is 224 px.
    """
    random = np.random.default_rng(seed)
    width = SHORT_SIDE + int(random.integers(0, 49))
    digit = Image.fromarray((ink * (255 / 16)).astype(np.uint8)).resize(
        (144, 144), Image.Resampling.BICUBIC
    )
    left = (width - 144) // 2 + int(random.integers(-8, 9))
    top = (SHORT_SIDE - 144) // 2 + int(random.integers(-8, 9))
    cover = np.zeros((SHORT_SIDE, width))
    cover[top : top + 144, left : left + 144] = np.asarray(digit) / 255
    paper = random.uniform(190, 240, size=3)
    pen = random.uniform(10, 90, size=3)
    slope_y, slope_x = random.uniform(-25, 25, size=2)
    light = np.add.outer(
        np.linspace(-0.5, 0.5, SHORT_SIDE) * slope_y, np.linspace(-0.5, 0.5, width) * slope_x
    )
    colour = paper + cover[..., None] * (pen - paper) + light[..., None]
    return Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image) -> bytes:
    """The image as JPEG bytes, quality 90."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
