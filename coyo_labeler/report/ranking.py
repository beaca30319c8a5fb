"""How well probabilities rank true labels above false ones: precision–recall, average precision.

Scores are counted in `tally.LOGIT_BINS` bins of log-odds; those of one bin are taken as tied, so
every figure is exact for scores rounded to a bin (0.023 of log-odds) and approximate otherwise.
"""

from typing import Any

import numpy as np

from coyo_labeler.report.ragged import F64, I64
from coyo_labeler.report.sums import Cells, Sums, key_of
from coyo_labeler.report.tally import LOGIT_BINS


def listed_areas(cells: Cells) -> Cells:
    """The area under each class's precision–recall curve, as far as it was listed.

    cells: a the class, b twice the bin, plus 1 where the candidate is true. Returns cells of a the
    class, count its true candidates, total Σ (true candidates at a score) · (precision there).
    """
    label, place = cells.a, cells.b
    order = np.lexsort((-(place >> 1), label))
    label, bins, count = label[order], (place >> 1)[order], cells.count[order]
    if not len(label):
        return cells
    true = count * (place[order] & 1)
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
    """Average precision Σ (Rₙ − Rₙ₋₁) Pₙ of every class, NaN where it is true nowhere.

    areas: of `listed_areas`. positives: (classes,) images of which each class is true; images: all
    whose truth is known. A class that an image does not list scores lowest there, tied, as the
    zeros of a dense matrix would.
    """
    listed, area = np.zeros((2, len(positives)))
    listed[areas.a], area[areas.a] = areas.count, areas.total
    unlisted = (positives - listed) * positives / max(images, 1)
    with np.errstate(invalid="ignore"):
        return np.where(positives > 0, (area + unlisted) / positives, np.nan)


def _running(values: I64, starts: I64, sizes: I64) -> I64:
    """Running sums that begin anew at every start."""
    running = np.cumsum(values)
    before: I64 = np.repeat(running[starts] - values[starts], sizes)
    return np.asarray(running - before)


def precision_recall(sums: Sums, whose: str = "", points: int = 160) -> list[dict[str, float]]:
    """Precision and recall of all labels together, as the threshold on the probability falls."""
    true = int(sums.of_measure(whose + "true").count.sum())
    hits = np.cumsum(sums.dense(whose + "pooled", LOGIT_BINS, 1)[::-1])
    kept = np.cumsum(sums.dense(whose + "pooled", LOGIT_BINS)[::-1])
    at = np.flatnonzero(np.diff(kept, prepend=0))
    if len(at) > points:
        at = at[np.unique(np.linspace(0, len(at) - 1, points).astype(int))]
    return [
        {"recall": float(hits[i] / true), "precision": float(hits[i] / kept[i])} for i in at if true
    ]


def class_precisions(sums: Sums, classes: int, whose: str = "") -> F64:
    """Average precision of every class against the truth, NaN where it is true nowhere."""
    positives = sums.dense(whose + "true", classes)
    return average_precisions(
        sums.of_measure(whose + "scores"), positives, sums.count(whose + "known")
    )


def mean_average_precision(precisions: F64) -> dict[str, Any]:
    """Mean over the classes that are true somewhere, and how many they are."""
    true = precisions[~np.isnan(precisions)]
    return {"value": float(true.mean()) if len(true) else None, "classes": len(true)}
