"""Pictures to byte tensors in the reader's workers; bytes to the network's range on the device."""

import torch
from torch import Tensor
from torchvision.transforms import v2

from coyo_labeler.config.pretrain_vit import AugmentSettings


def training_transform(size: int, settings: AugmentSettings) -> v2.Transform:
    """An RGB picture to (3, size, size) uint8, by an Inception crop (Szegedy et al. 2015), flip.

    The area of the crop is uniform in [min_area, 1] of the picture, its aspect ratio log-uniform.
    """
    ratio = (1 / settings.max_aspect_ratio, settings.max_aspect_ratio)
    crop = v2.RandomResizedCrop(size, scale=(settings.min_area, 1.0), ratio=ratio, antialias=True)
    flip = [v2.RandomHorizontalFlip()] if settings.flip else []
    return v2.Compose([crop, *flip, v2.PILToTensor()])


def evaluation_transform(size: int, settings: AugmentSettings) -> v2.Transform:
    """An RGB picture to (3, size, size) uint8, by a central crop.

    At the default evaluation_crop of 0.875 the shorter side is scaled to 256 px for a crop of 224.
    """
    edge = round(size / settings.evaluation_crop)
    return v2.Compose([v2.Resize(edge, antialias=True), v2.CenterCrop(size), v2.PILToTensor()])


def normalise(images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 to float32 in [−1, 1]: (x − 127.5) / 127.5."""
    return images.to(torch.float32).sub_(127.5).div_(127.5)
