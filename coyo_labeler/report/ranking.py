"""How well probabilities rank true labels above false ones: precision, recall, average precision.

Scores are counted in `tally.LOGIT_BINS` bins of log-odds, and scores of one bin count as tied. So
every figure is exact for scores that are rounded to a bin (0.023 of log-odds), else approximate.
"""

from typing import Any

import numpy as np

from coyo_labeler.report.ragged import F64, I64
from coyo_labeler.report.sums import Aggregates, Cells, key_of
from coyo_labeler.report.tally import LOGIT_BINS


def listed_areas(cells: Cells) -> Cells:
    """The area under each class's precision–recall curve, over the images that list the class.

    cells: `a` is the class, `b` twice the bin, plus 1 if the candidate is true. In the result `a`
    is the class, `count` its true candidates, and `total` the sum over its scores of
    (true candidates with that score) · (precision at that score).
    """
    label, bin_and_truth = cells.a, cells.b
    order = np.lexsort((-(bin_and_truth >> 1), label))
    label, bins, count = label[order], (bin_and_truth >> 1)[order], cells.count[order]
    if not len(label):
        return cells
    true = count * (bin_and_truth[order] & 1)
    steps = np.flatnonzero(np.append(True, (np.diff(label) != 0) | (np.diff(bins) != 0)))
    hits, n, label = np.add.reduceat(true, steps), np.add.reduceat(count, steps), label[steps]
    starts = np.flatnonzero(np.append(True, np.diff(label) != 0))
    sizes = np.diff(np.append(starts, len(label)))
    precision = _running(hits, starts, sizes) / _running(n, starts, sizes)
    classes = label[starts]
    return Cells(
        key_of(classes, np.zeros_like(classes)),
        np.add.reduceat(hits, starts),
        np.add.reduceat(hits * precision, starts),
    )


def average_precisions(areas: Cells, positives: I64, images: int) -> F64:
    """Average precision Σ (Rₙ − Rₙ₋₁) Pₙ of every class, (classes,); NaN if true for no image.

    areas: from `listed_areas`. positives: (classes,) number of images for which each class is true.
    images: number of images with known truth. Images that do not list a class count as tied with
    the lowest score, like the zeros of a dense matrix.
    """
    listed, area = np.zeros((2, len(positives)))
    listed[areas.a], area[areas.a] = areas.count, areas.total
    unlisted = (positives - listed) * positives / max(images, 1)
    with np.errstate(invalid="ignore"):
        return np.where(positives > 0, (area + unlisted) / positives, np.nan)


def _running(values: I64, starts: I64, sizes: I64) -> I64:
    """Running sums that restart at every index in `starts`."""
    running = np.cumsum(values)
    before: I64 = np.repeat(running[starts] - values[starts], sizes)
    return np.asarray(running - before)


def precision_recall(
    sums: Aggregates, prefix: str = "", points: int = 160
) -> list[dict[str, float]]:
    """Precision and recall of all labels together, as the threshold on the probability falls.

    prefix: "", or "other_" for the compared labels.
    """
    true = int(sums.of_measure(prefix + "true").count.sum())
    hits = np.cumsum(sums.dense(prefix + "pooled", LOGIT_BINS, 1)[::-1])
    given = np.cumsum(sums.dense(prefix + "pooled", LOGIT_BINS)[::-1])
    bins = np.flatnonzero(np.diff(given, prepend=0))
    if len(bins) > points:
        bins = bins[np.unique(np.linspace(0, len(bins) - 1, points).astype(int))]
    return [
        {"recall": float(hits[b] / true), "precision": float(hits[b] / given[b])}
        for b in bins
        if true
    ]


def class_precisions(sums: Aggregates, classes: int, prefix: str = "") -> F64:
    """Average precision of every class against gold, (classes,); NaN if true for no image."""
    positives = sums.dense(prefix + "true", classes)
    return average_precisions(
        sums.of_measure(prefix + "scores"), positives, sums.count(prefix + "known")
    )


def mean_average_precision(precisions: F64) -> dict[str, Any]:
    """The mean over the classes that are true for some image, and the number of these classes."""
    true = precisions[~np.isnan(precisions)]
    return {"value": float(true.mean()) if len(true) else None, "classes": len(true)}
