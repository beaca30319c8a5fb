"""Teachers whose answers depend on the picture; those of a fresh model hardly do."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import save_file

from coyo_labeler.label.preprocess import automl_preset, prepare
from tests.label.tars import crops

MODEL = "tf_efficientnetv2_b0"


def save_teacher(
    path: Path, outputs: int, size: int, photos: Sequence[np.ndarray] = (), model: str = MODEL
) -> None:
    """Save a model with the batch-norm statistics of real photographs and a spread-out head.

    Its logits have a standard deviation of about 2.5 around −5 and differ from picture to picture.
    photos: (height, width, 3) uint8 each; none: crops of scikit-learn's two.
    """
    torch.manual_seed(0)
    network = timm.create_model(model, num_classes=outputs)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean over all batches, so of this one
    preset = automl_preset(f"automl_{size}")
    images = torch.stack([prepare(pixels, preset) for pixels in photos or crops(24, seed=1)])
    with torch.no_grad():
        network.train()(images)
        features = network.eval().forward_head(network.forward_features(images), pre_logits=True)
        head = network.get_classifier()
        centred = torch.nn.functional.linear(features - features.mean(0), head.weight)
        head.weight *= 2.5 / centred.std()
        head.bias.copy_(-5 - torch.nn.functional.linear(features.mean(0), head.weight))
    save_file(network.state_dict(), path)
