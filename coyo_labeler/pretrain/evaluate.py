"""Evaluation on gold: the network's own head, a linear probe of its features, fine-tuning."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coyo_labeler.config.pretrain_vit import ProbeSettings
from coyo_labeler.data import Batch, SparseTargets
from coyo_labeler.pretrain.augment import normalise
from coyo_labeler.pretrain.metrics import mean_average_precision, top1
from coyo_labeler.pretrain.model import head_of
from coyo_labeler.pretrain.optimise import binary_cross_entropy


def score(
    network: Callable[[Tensor], Tensor], batches: Iterable[Batch], device: torch.device
) -> tuple[Tensor, SparseTargets]:
    """The network's outputs, (images, …) float32 on the CPU, and the targets of the images."""
    outputs, classes, weights, lengths = [], [], [], [torch.zeros(1, dtype=torch.int64)]
    with torch.inference_mode():
        for batch in batches:
            outputs.append(network(normalise(batch.images.to(device))).float().cpu())
            classes.append(batch.targets.classes)
            weights.append(batch.targets.weights)
            lengths.append(batch.targets.offsets.diff())
    if not outputs:
        return torch.zeros(0, 0), SparseTargets(*(torch.zeros(0),) * 2, torch.zeros(1))
    offsets = torch.cat(lengths).cumsum(0)
    return torch.cat(outputs), SparseTargets(torch.cat(classes), torch.cat(weights), offsets)


def evaluate_head(
    model: nn.Module, batches: Iterable[Batch], device: torch.device, autocast: torch.autocast
) -> dict[str, float]:
    """`images`, `loss`, `top1` and `mAP` of the network's own head."""
    with evaluating(model), autocast:
        logits, targets = score(model, batches, device)
    if not len(logits):
        return {"images": 0}
    return {
        "images": len(logits),
        "loss": float(binary_cross_entropy(logits, targets.dense(logits.shape[1]))),
        "top1": top1(logits, targets),
        "mAP": mean_average_precision(logits, targets),
    }


def linear_probe(
    model: nn.Module,
    train: Iterable[Batch],
    test: Iterable[Batch],
    l2: float,
    device: torch.device,
    autocast: torch.autocast,
) -> dict[str, float]:
    """Logistic regression (L-BFGS to convergence) on the frozen, standardised features.

    Holds the features of all images in memory.
    """

    def features(images: Tensor) -> Tensor:
        # Every timm model has these two.
        embedded = model.forward_features(images)  # type: ignore[operator]
        pooled: Tensor = model.forward_head(embedded, pre_logits=True)  # type: ignore[operator]
        return pooled

    with evaluating(model), autocast:
        x, train_targets = score(features, train, device)
        y, test_targets = score(features, test, device)
    if not len(x) or not len(y):
        return {"train_images": len(x), "images": len(y)}
    deviation, mean = torch.std_mean(x, dim=0)
    x, y = ((each - mean) / (deviation + 1e-6) for each in (x, y))
    classes, truth = torch.unique(train_targets.classes, return_inverse=True)
    weight = torch.zeros(x.shape[1], len(classes), requires_grad=True)
    bias = torch.zeros(len(classes), requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=500, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(x @ weight + bias, truth) + l2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        predicted = classes[(y @ weight + bias).argmax(dim=1)]
    right = float((predicted == test_targets.classes).float().mean())
    return {"train_images": len(x), "images": len(y), "top1": right}


def fine_tune(
    model: nn.Module,
    train: Iterable[Batch],
    test: Iterable[Batch],
    settings: ProbeSettings,
    device: torch.device,
    autocast: torch.autocast,
) -> dict[str, float]:
    """Fine-tune a copy as coyo-vit does: SGD, momentum 0.9, cosine decay, softmax cross-entropy.

    train: endless. The head starts at 0: the gradients of a random head would disturb the
    pretrained features.
    """
    tuned = deepcopy(model)
    nn.init.zeros_(head_of(tuned).weight)
    nn.init.zeros_(head_of(tuned).bias)
    optimiser = torch.optim.SGD(tuned.parameters(), lr=settings.learning_rate, momentum=0.9)
    tuned.train()
    seen = 0
    for step, batch in zip(range(settings.steps), train, strict=False):
        rate = settings.learning_rate * (1 + math.cos(math.pi * step / settings.steps)) / 2
        for group in optimiser.param_groups:
            group["lr"] = rate
        with autocast:
            logits = tuned(normalise(batch.images.to(device)))
        loss = F.cross_entropy(logits.float(), batch.targets.classes.to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(tuned.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        seen += len(batch)
    measured = evaluate_head(tuned, test, device, autocast)
    measured.pop("loss", None)
    measured.pop("mAP", None)
    return {"train_images_seen": seen, **measured}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode inside the block, in its previous mode afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
