"""How well probabilities rank true labels above false ones: precision–recall, average precision.

Scores are counted in `tally.LOGIT_BINS` bins of log-odds; those of one bin are taken as tied, so
every figure is exact for scores rounded to a bin (0.023 of log-odds) and approximate otherwise.
"""

from typing import Any

import numpy as np

from coyo_labeler.report.ragged import F64, I64
from coyo_labeler.report.sums import Cells, Sums
from coyo_labeler.report.tally import LOGIT_BINS


def average_precisions(cells: Cells, positives: I64, images: int) -> tuple[I64, F64]:
    """Average precision of each class that is true somewhere: Σ (Rₙ − Rₙ₋₁) Pₙ.

    cells: a the class, b twice the bin, plus 1 where the candidate is true. positives: (classes,)
    images of which each class is true; images: with known truth. A class that an image does not
    list scores lowest there, tied, as zeros in a dense matrix would.
    Returns the classes and their average precision; classes without a candidate are not among them.
    """
    hit = (cells.b & 1).astype(bool)
    true = np.where(hit, cells.count, 0)
    order = np.lexsort((-(cells.b >> 1), cells.a))
    label, bins = cells.a[order], (cells.b >> 1)[order]
    if not len(label):
        return label, np.zeros(0)
    steps = np.flatnonzero(np.append(True, (np.diff(label) != 0) | (np.diff(bins) != 0)))
    tp, n = np.add.reduceat(true[order], steps), np.add.reduceat(cells.count[order], steps)
    label = label[steps]
    starts = np.flatnonzero(np.append(True, np.diff(label) != 0))
    sizes = np.diff(np.append(starts, len(label)))
    tp_so_far, n_so_far = _running(tp, starts, sizes), _running(n, starts, sizes)
    area = np.add.reduceat(tp * tp_so_far / n_so_far, starts)
    classes = label[starts]
    ends = starts + sizes - 1
    all_true = positives[classes]
    unlisted = all_true - tp_so_far[ends]
    some = all_true > 0
    area += unlisted * all_true / max(images, 1)
    return classes[some], area[some] / all_true[some]


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


def mean_average_precision(
    precisions: dict[int, float], sums: Sums, classes: int, whose: str = ""
) -> dict[str, Any]:
    """Mean over the classes that are true somewhere; one that is listed nowhere has P = its share.

    precisions: by label, as of `average_precisions`.
    """
    positives = sums.dense(whose + "true", classes)
    images = max(sums.count(whose + "known"), 1)
    true = np.flatnonzero(positives)
    values = [precisions.get(int(c), float(positives[c] / images)) for c in true]
    return {"value": sum(values) / len(values) if values else None, "classes": len(values)}
