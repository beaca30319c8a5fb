from itertools import repeat

import pytest
import torch
from torch import nn

from coyo_labeler.config.pretrain_vit import ProbeSettings
from coyo_labeler.data import Batch, SparseTargets
from coyo_labeler.pretrain import evaluate
from coyo_labeler.pretrain.model import build_model, head_of

CPU = torch.device("cpu")
FLOAT32 = torch.autocast("cpu", enabled=False)


def batch_of(classes: list[int]) -> Batch:
    """Pictures that are the brighter the higher their class."""
    images = torch.stack(
        [torch.full((3, 16, 16), 80 * each, dtype=torch.uint8) for each in classes]
    )
    offsets = torch.arange(len(classes) + 1)
    targets = SparseTargets(torch.tensor(classes), torch.ones(len(classes)), offsets)
    return Batch(images, targets, torch.tensor(classes), tuple(map(str, classes)))


def tiny() -> nn.Module:
    torch.manual_seed(3)
    size = {"patch_size": 8, "depth": 1, "embed_dim": 16, "num_heads": 2}
    return build_model("vit_tiny_patch16_224", 4, 16, size)


def test_fine_tuning_begins_at_the_pretrained_weights_with_a_head_of_zeros(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, tuned = tiny(), list[nn.Module]()
    monkeypatch.setattr(evaluate, "evaluate_head", lambda net, *_: tuned.append(net) or {})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = ProbeSettings(method="fine_tune", steps=1, learning_rate=1e-12)
    evaluate.fine_tune(model, repeat(batch_of([0, 1, 2, 3])), [], settings, CPU, FLOAT32)
    after = tuned[0].state_dict()
    assert all(torch.allclose(after[name], before[name]) for name in before if "head" not in name)
    assert head_of(tuned[0]).weight.abs().max() < 1e-9
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)


def test_a_linear_probe_separates_what_the_features_tell_apart() -> None:
    train, test = [batch_of([0, 1, 2, 3] * 2)], [batch_of([3, 2, 1, 0])]
    measured = evaluate.linear_probe(tiny(), train, test, 1e-3, CPU, FLOAT32)
    assert measured == {"train_images": 8, "images": 4, "top1": 1.0}


def test_a_probe_without_images_says_so() -> None:
    measured = evaluate.linear_probe(tiny(), [], [batch_of([0])], 1e-3, CPU, FLOAT32)
    assert measured == {"train_images": 0, "images": 1}
    assert evaluate.evaluate_head(tiny(), [], CPU, FLOAT32) == {"images": 0}
