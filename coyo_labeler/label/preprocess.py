"""Makes the teacher's input from a decoded picture.

`prepare(decode(data), automl_preset("automl_64"))` is the whole path from the bytes of a file to
an input. To train a teacher for `label`, call the same two functions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional

from coyo_labeler.formats.pictures import LARGE_PIXELS

#: From this size on, EfficientNetV2's evaluation squashes the whole picture; below, it crops first.
CROP_BELOW = 320

#: What EfficientNetV2's evaluation subtracts from pixel values and divides them by.
AUTOML_CENTRE = 128.0


@dataclass(frozen=True)
class Preset:
    """How pictures become inputs; every file records `describe`.

    size: side of the input in pixels. crop: side of the central square as a share of the short
    side, cut out before the resize; None: the whole picture is squashed. transform: timm's own,
    which replaces the rest.
    """

    name: str
    size: int
    crop: float | None = None
    transform: Callable[[Image.Image], torch.Tensor] | None = None

    def describe(self) -> str:
        """The steps, on one line."""
        if self.transform is not None:
            return f"{self.name}: " + " ".join(str(self.transform).split())
        share = "whole" if self.crop is None else f"central {self.crop:.6f} of the short side"
        return (
            f"{self.name}: {share}, bilinear to {self.size} x {self.size} without antialias, "
            "(x - 128) / 128"
        )


def automl_preset(name: str) -> Preset:
    """`automl_<N>`: EfficientNetV2's own evaluation at N px (google/automl).

    Bilinear at half-pixel centres without antialias, (x − 128) / 128; below 320 px a central
    square of N / (N + 32) of the short side is cut out first.
    """
    size = int(name.removeprefix("automl_"))
    return Preset(name, size, size / (size + 32) if size < CROP_BELOW else None)


def timm_preset(config: Mapping[str, Any]) -> Preset:
    """The evaluation transform of a timm model's own data configuration.

    config: as `timm.data.resolve_model_data_config` returns it.
    """
    from timm.data.transforms_factory import create_transform  # noqa: PLC0415

    return Preset("timm", int(config["input_size"][-1]), None, create_transform(**config))


def prepare(pixels: npt.NDArray[np.uint8] | torch.Tensor, preset: Preset) -> torch.Tensor:
    """The input tensor of one picture, on the device of its pixels.

    pixels: (height, width, 3) uint8 RGB. Returns (3, size, size) float32.
    """
    if preset.transform is not None:
        return preset.transform(Image.fromarray(np.asarray(pixels)))
    image = torch.as_tensor(pixels)
    top, left, height, width = central_square(image.shape[0], image.shape[1], preset.crop)
    image = image[top : top + height, left : left + width]
    if image.shape[0] * image.shape[1] >= LARGE_PIXELS:
        return _sampled(image, preset.size).sub_(AUTOML_CENTRE).div_(AUTOML_CENTRE)
    resized = functional.interpolate(
        image.permute(2, 0, 1)[None].to(torch.float32),
        size=(preset.size, preset.size),
        mode="bilinear",
        align_corners=False,
        antialias=False,
    )
    return resized[0].sub_(AUTOML_CENTRE).div_(AUTOML_CENTRE)


def _sampled(image: torch.Tensor, size: int) -> torch.Tensor:
    """(3, size, size) float32: the result of `interpolate`, from only the pixels that it reads.

    image: (height, width, 3). `interpolate` needs all of it as float32, twelve bytes per pixel.
    """
    top, bottom, down = _between(image.shape[0], size)
    left, right, across = _between(image.shape[1], size)
    upper, lower = (
        torch.lerp(rows[:, left].float(), rows[:, right].float(), across[None, :, None])
        for rows in (image[top], image[bottom])
    )
    return torch.lerp(upper, lower, down[:, None, None]).permute(2, 0, 1).contiguous()


def _between(pixels: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each of `size` outputs the pixel before, the pixel after, and the latter's weight."""
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) * pixels / size - 0.5
    centres = centres.clamp(0, pixels - 1)
    before = centres.long()
    return before, (before + 1).clamp(max=pixels - 1), (centres - before).float()


def central_square(height: int, width: int, share: float | None) -> tuple[int, int, int, int]:
    """Top, left, height and width of a picture's part that is used; all of it without a share."""
    if share is None:
        return 0, 0, height, width
    side = max(1, int(share * min(height, width)))
    return (height - side + 1) // 2, (width - side + 1) // 2, side, side
