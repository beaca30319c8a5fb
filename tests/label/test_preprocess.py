import numpy as np
import pytest
import timm
import torch
from PIL import Image

from coyo_labeler.label import preprocess
from coyo_labeler.label.preprocess import automl_preset, prepare, timm_preset
from tests.label import reference
from tests.label.tars import crops, encode


@pytest.mark.parametrize("size", [64, 224, 319, 320, 384, 512])
def test_presets_are_the_float64_formula(size):
    for pixels in crops(2, seed=size):
        ours = prepare(pixels, automl_preset(f"automl_{size}")).numpy()
        slow = reference.prepare(encode(pixels, "PNG"), size)
        assert ours.shape == (3, size, size)
        assert np.abs(ours - slow).max() < 2e-4


@pytest.mark.parametrize("size", [64, 224, 320])
def test_large_pictures_are_the_same_formula(size, monkeypatch):
    for pixels in [*crops(2, seed=size), np.arange(297).astype(np.uint8).reshape(9, 11, 3) % 251]:
        usual = prepare(pixels, automl_preset(f"automl_{size}")).numpy()
        with monkeypatch.context() as context:
            context.setattr(preprocess, "LARGE_PIXELS", 0)
            ours = prepare(pixels, automl_preset(f"automl_{size}")).numpy()
        slow = reference.prepare(encode(pixels, "PNG"), size)
        assert np.abs(ours - slow).max() < 2e-4
        assert np.abs(ours - usual).max() < 2e-4


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (7, 3), (2, 2)])
def test_pictures_of_a_few_pixels_are_prepared(shape):
    pixels = np.full((*shape, 3), 128, np.uint8)
    assert torch.equal(prepare(pixels, automl_preset("automl_64")), torch.zeros(3, 64, 64))


def test_128_is_the_middle_and_255_is_not_one():
    white = prepare(np.full((9, 9, 3), 255, np.uint8), automl_preset("automl_320"))
    assert torch.allclose(white, torch.tensor(127 / 128))


def test_below_320_px_a_central_crop_comes_first_and_from_320_px_up_none_does():
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[:, :10] = pixels[:, -10:] = 255
    assert prepare(pixels, automl_preset("automl_224")).max() == -1
    assert prepare(pixels, automl_preset("automl_320")).max() > 0


def test_the_timm_preset_is_timms_own_evaluation():
    model = timm.create_model("tf_efficientnetv2_b0")
    config = timm.data.resolve_model_data_config(model)
    expected = timm.data.create_transform(**config, is_training=False)
    pixels = crops(1)[0]
    ours = prepare(pixels, timm_preset(config))
    assert torch.equal(ours, expected(Image.fromarray(pixels)))


def test_presets_describe_themselves_apart():
    names = ["automl_224", "automl_384", "automl_512"]
    described = {automl_preset(name).describe() for name in names}
    assert len(described) == 3
    config = timm.data.resolve_model_data_config(timm.create_model("tf_efficientnetv2_b0"))
    assert "bicubic" in timm_preset(config).describe().lower()
