"""Figures computed from aggregates: rates with intervals, scores per class, calibration.

prefix: of the measures that a function reads; "" for the report's labels, "other_" for those that
they are compared with.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

from coyo_labeler.formats.published import TABLE, THRESHOLDS
from coyo_labeler.report.ragged import F64, I64
from coyo_labeler.report.sums import Aggregates
from coyo_labeler.report.tally import UNIT_BINS

#: Equal bins of confidence, for the reliability diagram and the calibration error (Guo et al.).
RELIABILITY_BINS = 15


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); (0, 1) if n is 0.

    SciPy offers it only as part of `binomtest`, which computes a p-value for every interval too.
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def rate(successes: int, n: int) -> dict[str, Any]:
    """A proportion with its 95 % Wilson interval; `value` is None if n is 0."""
    low, high = wilson(successes, n)
    return {"value": successes / n if n else None, "low": low, "high": high, "n": n}


def threshold_table(sums: Aggregates, published: bool) -> list[dict[str, Any]]:
    """Labels per kept image, labels in use and share of images kept, for each threshold.

    As in COYO's table, labels per image are counted over the images that keep at least one.
    published: whether to add COYO's own figures.
    """
    rows = sums.count("rows")
    labels = sums.of_measure("labels")
    table = []
    for index, threshold in enumerate(THRESHOLDS):
        images = sums.count("kept", index)
        counts = labels.count[labels.b == index]
        row: dict[str, Any] = {
            "threshold": threshold,
            "labels_per_image": int(counts.sum()) / images if images else 0.0,
            "unique_labels": len(counts),
            "share_kept": images / rows if rows else 0.0,
        }
        if published:
            names = ("labels_per_image", "unique_labels", "share_kept")
            row["published"] = dict(zip(names, TABLE[threshold], strict=True))
        table.append(row)
    return table


def quantiles(counts: I64, shares: Sequence[float], width: float) -> list[float | None]:
    """Quantiles of a binned distribution from 0 on, interpolated within bins of `width`."""
    total = counts.sum()
    if not total:
        return [None for _ in shares]
    edges = np.arange(len(counts) + 1) * width
    return [float(q) for q in np.interp(shares, np.append(0, np.cumsum(counts)) / total, edges)]


def unit_summary(sums: Aggregates, measure: str, b: int | None = None) -> dict[str, Any]:
    """Histogram of a quantity of [0, 1] in `UNIT_BINS`, with quartiles to the width of a bin."""
    counts = sums.dense(measure, UNIT_BINS, b)
    names = ("q25", "median", "q75")
    quartiles = quantiles(counts, (0.25, 0.5, 0.75), 1 / UNIT_BINS)
    return {"counts": counts.tolist(), **dict(zip(names, quartiles, strict=True))}


def accuracy(sums: Aggregates, prefix: str = "") -> dict[str, Any]:
    """Top-1 and top-5 accuracy with intervals."""
    n = sums.count(prefix + "known")
    right = int(sums.dense(prefix + "right", UNIT_BINS, 1).sum())
    return {
        "images": n,
        "top1": rate(right, n),
        "top5": rate(sums.count(prefix + "within"), n),
    }


def reliability(sums: Aggregates, prefix: str = "") -> dict[str, Any]:
    """Mean confidence and share correct per bin of confidence; the expected calibration error.

    ECE = Σ n_b / n · |correct_b − confidence_b| over `RELIABILITY_BINS` equal bins of the first
    label's probability (Guo et al. 2017).
    """
    folded = (RELIABILITY_BINS, -1)
    n = sums.dense(prefix + "right", UNIT_BINS).reshape(folded).sum(axis=1)
    correct = sums.dense(prefix + "right", UNIT_BINS, 1).reshape(folded).sum(axis=1)
    stated = sums.dense_total(prefix + "right", UNIT_BINS).reshape(folded).sum(axis=1)
    bins = [
        {
            "low": int(b) / RELIABILITY_BINS,
            "high": (int(b) + 1) / RELIABILITY_BINS,
            "images": int(n[b]),
            "confidence": float(stated[b] / n[b]),
            "correct": float(correct[b] / n[b]),
        }
        for b in np.flatnonzero(n)
    ]
    return {"bins": bins, "ece": float(np.abs(correct - stated).sum() / n.sum()) if bins else None}


def coverage(sums: Aggregates, prefix: str = "", points: int = 100) -> list[dict[str, float]]:
    """Accuracy of only the most confident images, by their share of all images."""
    n = np.cumsum(sums.dense(prefix + "right", UNIT_BINS)[::-1])
    right = np.cumsum(sums.dense(prefix + "right", UNIT_BINS, 1)[::-1])
    at = np.flatnonzero(np.diff(n, prepend=0))
    if len(at) > points:
        at = at[np.unique(np.linspace(0, len(at) - 1, points).astype(int))]
    return [
        {"share": float(n[i] / n[-1]), "accuracy": float(right[i] / n[i]),
         "threshold": 1 - (int(i) + 1) / UNIT_BINS}
        for i in at
    ]  # fmt: skip


def class_scores(
    sums: Aggregates, classes: int, precisions: F64, prefix: str = ""
) -> list[dict[str, Any]]:
    """Precision, recall, F1 and average precision of each class that is true or given anywhere.

    precisions: (classes,) average precision (`ranking.class_precisions`). The other scores are over
    images with exactly one true class. A score whose denominator is 0 is None.
    """
    support = sums.dense(prefix + "support", classes)
    predicted = sums.dense(prefix + "predicted", classes)
    correct = sums.dense(prefix + "correct", classes)
    return [
        {
            "label": int(c),
            "support": int(support[c]),
            "predicted": int(predicted[c]),
            "precision": float(correct[c] / predicted[c]) if predicted[c] else None,
            "recall": float(correct[c] / support[c]) if support[c] else None,
            "f1": float(2 * correct[c] / (support[c] + predicted[c])),
            "average_precision": None if np.isnan(precisions[c]) else float(precisions[c]),
        }
        for c in np.flatnonzero(support + predicted)
    ]


def macro(scores: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Unweighted means over the classes that are true for some image; no prediction counts as 0."""
    true = [score for score in scores if score["support"]]
    return {
        key: sum(score[key] or 0.0 for score in true) / len(true) if true else None
        for key in ("precision", "recall", "f1")
    }


def multilabel(sums: Aggregates, prefix: str = "") -> list[dict[str, Any]]:
    """Precision, recall and F1 of all labels above each threshold, micro-averaged."""
    true = int(sums.of_measure(prefix + "true").count.sum())
    table = []
    for index, threshold in enumerate(THRESHOLDS):
        given = sums.count(prefix + "kept_labels", index)
        hits = sums.count(prefix + "kept_hits", index)
        table.append(
            {
                "threshold": threshold,
                "precision": hits / given if given else None,
                "recall": hits / true if true else None,
                "f1": 2 * hits / (given + true) if given + true else None,
            }
        )
    return table


def agreement(sums: Aggregates) -> dict[str, Any]:
    """How often both folders have the same first label, and how many changes are right."""
    n = sums.count("both")
    moves_to_none = n - int(sums.of_measure("was").count.sum())
    same = int(sums.of_measure("stayed").count.sum())
    changed = {
        "mended": sums.count("changed_right", 0, 1),
        "broken": sums.count("changed_right", 1, 0),
        "right_in_both": sums.count("changed_right", 1, 1),
        "wrong_in_both": sums.count("changed_right", 0, 0),
    }
    return {
        "images": n,
        "without_label_before": moves_to_none,
        "same": rate(same, n),
        "changed": n - same,
        "against_gold": changed,
    }


def class_agreement(sums: Aggregates, classes: int) -> list[dict[str, Any]]:
    """The share of images that kept the class of the other folder, per class, lowest first.

    Sorted by the upper end of the interval, so that a class with few images does not come first.
    """
    was, stayed = sums.dense("was", classes), sums.dense("stayed", classes)
    rows = [{"label": int(c), **rate(int(stayed[c]), int(was[c]))} for c in np.flatnonzero(was)]
    return sorted(rows, key=lambda row: (row["high"], row["label"]))


def slice_errors(sums: Aggregates) -> list[dict[str, Any]]:
    """Error rate of every slice with its 95 % Wilson interval, the worst first."""
    rows = []
    for name in sums.names("slice"):
        wrong, right = (sums.count("slice", a, name=name) for a in (0, 1))
        rows.append({"slice": name, **rate(wrong, wrong + right)})
    return sorted(rows, key=lambda row: (-(row["value"] or 0.0), row["slice"]))


def by_votes(sums: Aggregates) -> list[dict[str, Any]]:
    """Accuracy by the number of votes on the image; the last row is for `MOST_VOTES` or more."""
    cells = sums.of_measure("by_votes")
    rows = []
    for votes in np.unique(cells.a):
        n = int(cells.count[cells.a == votes].sum())
        rows.append({"n_votes": int(votes), **rate(sums.count("by_votes", votes, 1), n)})
    return rows


def coarsen(counts: Sequence[int], bins: int) -> list[float]:
    """Counts in fewer bins, by adding up neighbours; `bins` must divide their number."""
    coarse: list[float] = np.asarray(counts, np.float64).reshape(bins, -1).sum(axis=1).tolist()
    return coarse
