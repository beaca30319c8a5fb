"""From a decoded picture to the tensor that the teacher sees; also what a training run must use.

`prepare(decode(data), preset("automl_64"))` is the whole path from file to input tensor.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from coyo_labeler.errors import InputError

#: From this size up EfficientNetV2's evaluation squashes the whole picture; below it crops first.
CROP_BELOW = 320


@dataclass(frozen=True)
class Preset:
    """How pictures become inputs; recorded in every file by `describe`.

    size: side of the input in pixels. crop: side of the central square as a share of the short
    side, before the resize; None: the whole picture, squashed. mean, std: of pixel values 0 to 255,
    per channel.
    """

    name: str
    size: int
    crop: float | None
    interpolation: str
    antialias: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def describe(self) -> str:
        """For the fingerprint, on one line."""
        crop = "whole" if self.crop is None else f"central {self.crop:.6f} of the short side"
        antialias = "antialias" if self.antialias else "no antialias"
        return (
            f"{self.name}: {crop}, {self.interpolation} to {self.size}, {antialias}, "
            f"(x - {self.mean}) / {self.std}"
        )


def preset(name: str) -> Preset:
    """`automl_<N>`: EfficientNetV2's own evaluation at N px (google/automl).

    Bilinear at half-pixel centres without antialias, (x − 128) / 128; below 320 px a central
    square of N / (N + 32) of the short side is cut out first.
    """
    size = int(name.removeprefix("automl_"))
    crop = size / (size + 32) if size < CROP_BELOW else None
    return Preset(name, size, crop, "bilinear", False, (128.0,) * 3, (128.0,) * 3)


def timm_preset(config: dict[str, object]) -> Preset:
    """The preset that a timm model's own data configuration asks for.

    config: as `timm.data.resolve_model_data_config` returns it.

    Raises: InputError where it asks for an interpolation that is not offered here.
    """
    size = int(config["input_size"][-1])  # type: ignore[index]
    interpolation = str(config["interpolation"])
    if interpolation not in {"bilinear", "bicubic"}:
        raise InputError(
            f"preprocess: timm: the model asks for '{interpolation}' interpolation, offered are "
            f"bilinear and bicubic; give preprocess=automl_{size}"
        )
    squash = config.get("crop_mode") == "squash"
    crop = None if squash else float(config.get("crop_pct") or 1.0)  # type: ignore[arg-type]
    mean, std = (
        tuple(255.0 * float(value) for value in config[key])  # type: ignore[attr-defined]
        for key in ("mean", "std")
    )
    return Preset("timm", size, crop, interpolation, True, mean, std)


def prepare(pixels: npt.NDArray[np.uint8] | torch.Tensor, preset: Preset) -> torch.Tensor:
    """The input tensor of one picture, on the device on which the pixels are.

    pixels: (height, width, 3) uint8 RGB. Returns (3, size, size) float32.
    """
    image = torch.as_tensor(pixels)
    if preset.crop is not None:
        image = _central_square(image, preset.crop)
    planes = image.permute(2, 0, 1)[None].to(torch.float32)
    resized = functional.interpolate(
        planes,
        size=(preset.size, preset.size),
        mode=preset.interpolation,
        align_corners=False,
        antialias=preset.antialias,
    )[0]
    mean = torch.tensor(preset.mean, device=resized.device)[:, None, None]
    std = torch.tensor(preset.std, device=resized.device)[:, None, None]
    return (resized - mean) / std


def _central_square(image: torch.Tensor, share: float) -> torch.Tensor:
    height, width = image.shape[:2]
    side = max(1, int(share * min(height, width)))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    return image[top : top + side, left : left + side]
