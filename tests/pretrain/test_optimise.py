import math

import pytest
import torch
from torch import nn

from coyo_labeler.config.pretrain_vit import OptimiserSettings
from coyo_labeler.data import SparseTargets
from coyo_labeler.errors import InputError
from coyo_labeler.pretrain.metrics import mean_average_precision, top1
from coyo_labeler.pretrain.model import build_model, head_of, load_weights, start_head
from coyo_labeler.pretrain.optimise import (
    binary_cross_entropy,
    build_optimiser,
    learning_rate,
    take_step,
)


def targets(*classes: list[int]) -> SparseTargets:
    flat = torch.tensor([each for row in classes for each in row])
    lengths = torch.tensor([0] + [len(row) for row in classes])
    return SparseTargets(flat, torch.ones(len(flat)), lengths.cumsum(0))


def test_the_loss_is_summed_over_classes_and_averaged_over_images() -> None:
    torch.manual_seed(0)
    logits, truth = torch.randn(3, 5), torch.rand(3, 5)
    by_hand = 0.0
    for z, t in zip(logits.flatten().tolist(), truth.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-z))
        by_hand -= t * math.log(p) + (1 - t) * math.log(1 - p)
    assert binary_cross_entropy(logits, truth).item() == pytest.approx(by_hand / 3, rel=1e-5)


def test_the_rate_warms_up_and_decays_in_straight_lines() -> None:
    settings = OptimiserSettings(learning_rate=1.0, end_learning_rate=0.1, warmup_steps=10)
    rates = [learning_rate(step, 110, settings) for step in range(111)]
    assert rates[0] == 0
    assert rates[5] == 0.5
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[110] == pytest.approx(0.1)
    assert rates.index(max(rates)) == 10


def test_a_training_shorter_than_its_warm_up_never_divides_by_zero() -> None:
    settings = OptimiserSettings(warmup_steps=10)
    assert [learning_rate(step, 5, settings) for step in range(5)] == [
        pytest.approx(6e-4 * step / 10) for step in range(5)
    ]


def test_the_gradient_is_cut_to_its_global_norm() -> None:
    def step(clip: float | None) -> tuple[float, float]:
        model = nn.Linear(4, 1)
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        sgd = torch.optim.SGD(model.parameters(), lr=0)
        (model(torch.full((1, 4), 10.0)) * 2).backward()
        norm = take_step(sgd, model, 1.0, clip)
        moved = torch.cat([p.detach().flatten() for p in model.parameters()]).norm()
        assert all(p.grad is None for p in model.parameters())
        return float(norm), float(moved)

    norm = 2 * math.sqrt(4 * 100 + 1)
    assert step(1.0) == pytest.approx((norm, 1.0), rel=1e-4)
    assert step(None) == pytest.approx((norm, norm), rel=1e-4)


def test_weight_decay_is_of_every_parameter() -> None:
    model = nn.Linear(2, 2)
    before = [p.detach().clone() for p in model.parameters()]
    optimiser = build_optimiser(model, OptimiserSettings(weight_decay=0.5))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    take_step(optimiser, model, 0.1, None)
    for now, then in zip(model.parameters(), before, strict=True):
        assert torch.allclose(now, then * (1 - 0.1 * 0.5))


def test_mean_average_precision_by_hand() -> None:
    # Class 0 is of images 0 and 2, which rank 1st and 3rd: (1/1 + 2/3) / 2. Class 1 of image 1,
    # which ranks 2nd: 1/2. Class 2 of none.
    scores = torch.tensor([[0.9, 0.8, 0.3], [0.5, 0.6, 0.2], [0.1, 0.4, 0.9]])
    truth = targets([0], [1], [0])
    assert mean_average_precision(scores, truth) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)


def test_mean_average_precision_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score  # noqa: PLC0415

    torch.manual_seed(1)
    scores = torch.randn(40, 6)
    truth = targets(*([i % 6, (i * i) % 5] if i % 6 != (i * i) % 5 else [i % 6] for i in range(40)))
    dense = truth.dense(6)
    theirs = average_precision_score(dense.numpy(), scores.numpy(), average="macro")
    assert mean_average_precision(scores, truth) == pytest.approx(theirs, abs=1e-6)


def test_top1_counts_images_whose_best_class_is_one_of_theirs() -> None:
    scores = torch.tensor([[3.0, 2, 1], [1, 2, 3], [1, 3, 2], [0, 1, 0]])
    assert top1(scores, targets([0], [0, 2], [0, 2], [1])) == 0.75


TINY = {"patch_size": 8, "depth": 1, "embed_dim": 16, "num_heads": 2}


def test_every_class_begins_at_the_head_bias() -> None:
    model = build_model("vit_tiny_patch16_224", 7, 16, TINY)
    start_head(model, -10)
    logits = model(torch.randn(2, 3, 16, 16))
    assert torch.equal(logits, torch.full((2, 7), -10.0))


def test_weights_of_another_head_start_all_but_the_head(tmp_path) -> None:
    from coyo_labeler.pretrain.model import write_safetensors  # noqa: PLC0415

    first = build_model("vit_tiny_patch16_224", 7, 16, TINY)
    url = str(tmp_path / "model.safetensors")
    write_safetensors(url, first, {})
    second = build_model("vit_tiny_patch16_224", 3, 16, TINY)
    head = head_of(second).weight.detach().clone()
    load_weights(second, url)
    assert torch.equal(second.pos_embed, first.pos_embed)
    assert torch.equal(head_of(second).weight, head)
    deeper = build_model("vit_tiny_patch16_224", 7, 16, {**TINY, "depth": 2})
    with pytest.raises(InputError, match=r"is of another model \(blocks.1"):
        load_weights(deeper, url)
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(InputError, match=r"not a readable safetensors file .*; give weights"):
        load_weights(first, str(tmp_path / "text.safetensors"))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("vit_tiny", {}, "timm has no 'vit_tiny'"),
        ("vit_tiny_patch16_224", {"deep": 3}, "cannot be made with .*deep"),
        ("vit_tiny_patch16_224", {"num_heads": 5}, "cannot be made"),
    ],
)
def test_a_model_that_cannot_be_made_is_named(name: str, arguments, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build_model(name, 10, 32, arguments)
    assert "\n" not in str(caught.value)
