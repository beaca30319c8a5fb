"""The reduction of the perceptual hash against Pillow's own, and the hash against imagehash's."""

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from coyo_labeler.fetch import phash as module
from coyo_labeler.fetch.phash import SIDES, TALLEST, is_pillows, phash, pillow_reduce, reduce


def picture(width: int, height: int, kind: str, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    if kind == "noise":
        return random.integers(0, 256, (height, width), dtype=np.uint8)
    if kind == "black and white":  # overshoots on both sides of what 8 bits hold
        return random.integers(0, 2, (height, width), dtype=np.uint8) * np.uint8(255)
    coarse = Image.fromarray(random.integers(0, 256, (7, 5), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


@settings(deadline=None, max_examples=150)
@given(
    st.integers(SIDES[0], 900),
    st.floats(0.2, TALLEST),
    st.sampled_from(["noise", "black and white", "smooth"]),
    st.integers(0, 2**32),
)
def test_reduces_as_pillow_does(width: int, ratio: float, kind: str, seed: int) -> None:
    height = min(max(SIDES[0], int(width * ratio)), int(width * TALLEST))
    pixels = picture(width, height, kind, seed)
    assert np.array_equal(reduce(pixels), pillow_reduce(pixels))


@pytest.mark.parametrize("size", [(4096, 4096), (4096, 128), (4096, 300)])
def test_reduces_long_sides_as_pillow_does(size: tuple[int, int]) -> None:
    pixels = picture(*size, "noise", 5)
    assert np.array_equal(reduce(pixels), pillow_reduce(pixels))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P", "1", "I;16"])
@pytest.mark.parametrize(
    "size", [(640, 480), (480, 640), (200, 900), (5000, 130), (31, 40), (1, 1)]
)
def test_hashes_as_imagehash_does(mode: str, size: tuple[int, int]) -> None:
    pixels = picture(*size, "smooth", 3)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels.astype(np.uint16) * 257)
    else:
        image = image.convert("RGB").convert(mode)
    assert phash(image) == str(imagehash.phash(image))


def test_this_pillow_is_known() -> None:
    assert is_pillows()


def test_another_pillow_reduces_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_pillows", lambda: False)
    monkeypatch.setattr(module, "reduce", lambda pixels: pytest.fail("not Pillow's own"))
    image = Image.fromarray(picture(300, 200, "smooth", 1))
    assert phash(image) == str(imagehash.phash(image))
