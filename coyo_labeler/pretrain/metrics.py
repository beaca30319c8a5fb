"""How well scores rank the true classes."""

import torch
from torch import Tensor

from coyo_labeler.data import SparseTargets


def mean_average_precision(scores: Tensor, targets: SparseTargets) -> float:
    """The mean of average precision over the classes that some image has; NaN without targets.

    scores: (B, C), higher is more probable. The weights of targets are ignored. The average
    precision of a class is the mean, over the images that have it, of the precision at their score.
    """
    classes, column = torch.unique(targets.classes, return_inverse=True)
    if not len(classes):
        return float("nan")
    rows = torch.arange(len(targets), device=scores.device).repeat_interleave(
        targets.offsets.diff()
    )
    true = torch.zeros(len(scores), len(classes), device=scores.device)
    true[rows, column] = 1
    order = scores[:, classes].float().argsort(dim=0, descending=True, stable=True)
    hits = true.gather(0, order)
    ranks = torch.arange(1, len(scores) + 1, device=scores.device).unsqueeze(1)
    precision = hits.cumsum(0) / ranks
    return float(((precision * hits).sum(0) / hits.sum(0)).mean())


def top1(scores: Tensor, targets: SparseTargets) -> float:
    """The share of images whose highest score is that of one of their classes. scores: (B, C)."""
    best = scores.argmax(dim=1)
    rows = torch.arange(len(targets), device=scores.device).repeat_interleave(
        targets.offsets.diff()
    )
    right = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    right[rows[targets.classes == best[rows]]] = True
    return float(right.float().mean())
