"""All pictures of a batch at once are what each is by itself."""

import numpy as np
import pytest
import torch

from coyo_labeler.label import resize
from coyo_labeler.label.preprocess import automl_preset, prepare
from coyo_labeler.label.resize import prepare_in_a_row
from tests.label import reference
from tests.label.tars import crops, encode

SHAPES = [(1, 1), (1, 300), (7, 3), (333, 64), (63, 65)]


def in_a_row(pictures, size, gap=5):
    """Their inputs, with bytes of nobody around each picture."""
    parts, offsets, position = [], [], 0
    for picture in pictures:
        offsets.append(position + gap)
        parts += [np.full(gap, 77, np.uint8), picture.ravel()]
        position += gap + picture.size
    pixels = torch.from_numpy(np.concatenate(parts))
    shapes = [picture.shape[:2] for picture in pictures]
    return prepare_in_a_row(pixels, offsets, shapes, automl_preset(f"automl_{size}"))


@pytest.mark.parametrize("size", [64, 224, 320])
@pytest.mark.parametrize("at_once", [1, resize._AT_ONCE])
def test_pictures_in_a_row_are_prepared_as_each_by_itself(size, at_once, monkeypatch):
    monkeypatch.setattr(resize, "_AT_ONCE", at_once)
    random = np.random.default_rng(size)
    pictures = [random.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]
    inputs = in_a_row(pictures, size)
    assert inputs.shape == (len(pictures), 3, size, size)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    for ours, picture in zip(inputs, pictures, strict=True):
        assert (
            ours - prepare(picture, automl_preset(f"automl_{size}"))
        ).abs().max() < 2e-5  # rounding of positions


@pytest.mark.parametrize("size", [64, 384])
def test_pictures_in_a_row_are_the_float64_formula(size):
    pictures = crops(3, seed=size)
    for ours, picture in zip(in_a_row(pictures, size), pictures, strict=True):
        slow = reference.prepare(encode(picture, "PNG"), size)
        assert np.abs(ours.numpy() - slow).max() < 2e-4
