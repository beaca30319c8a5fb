"""What the sums of a tally say: rates, intervals, scores per class. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa

from coyo_labeler.report.tally import I64, RELIABILITY_BINS, THRESHOLDS, UNIT_BINS

#: COYO-Labeled-300M's published table: labels per image, unique labels, share of images kept.
PUBLISHED = {
    0.00: (50.00, 21_841, 1.0000),
    0.05: (3.16, 18_922, 0.9669),
    0.10: (1.98, 18_471, 0.8583),
    0.15: (1.58, 18_122, 0.7449),
    0.20: (1.37, 17_781, 0.6430),
    0.25: (1.26, 17_479, 0.5560),
}


@dataclass(frozen=True)
class Sums:
    """The added sums of a tally: {(measure, name): {(a, b): (count, total)}}."""

    cells: Mapping[tuple[str, str], Mapping[tuple[int, int], tuple[int, float]]]

    @classmethod
    def of(cls, table: pa.Table) -> "Sums":
        """From a table in `tally.SCHEMA`, of which no two rows have the same keys."""
        cells: dict[tuple[str, str], dict[tuple[int, int], tuple[int, float]]] = {}
        for measure, name, a, b, count, total in zip(
            *(table.column(field).to_pylist() for field in table.schema.names), strict=True
        ):
            cells.setdefault((measure, name), {})[a, b] = (count, total)
        return cls(cells)

    def __contains__(self, measure: str) -> bool:
        return any(found == measure for found, _ in self.cells)

    def of_measure(self, measure: str) -> Mapping[tuple[int, int], tuple[int, float]]:
        """The cells of a measure, {} where nothing was counted."""
        return self.cells.get((measure, ""), {})

    def count(self, measure: str, a: int = 0, b: int = 0) -> int:
        """One count, 0 where nothing was counted."""
        return self.of_measure(measure).get((a, b), (0, 0.0))[0]

    def total(self, measure: str, a: int = 0, b: int = 0) -> float:
        """One sum of probabilities."""
        return self.of_measure(measure).get((a, b), (0, 0.0))[1]

    def along_a(self, measure: str, size: int, b: int | None = None) -> I64:
        """Counts (size,) by `a`, of one `b` or over all of them."""
        counts = np.zeros(size, dtype=np.int64)
        for (at, cell_b), (count, _) in self.of_measure(measure).items():
            if b is None or cell_b == b:
                counts[at] += count
        return counts

    def names(self, measure: str) -> list[str]:
        """The names under which a measure was counted."""
        return sorted(name for found, name in self.cells if found == measure)


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); (0, 1) where n is 0."""
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def rate(successes: int, n: int) -> dict[str, Any]:
    """A proportion with its 95 % Wilson interval; `value` is None where n is 0."""
    low, high = wilson(successes, n)
    return {"value": successes / n if n else None, "low": low, "high": high, "n": n}


def threshold_table(sums: Sums, published: bool) -> list[dict[str, Any]]:
    """Per threshold: labels per kept image, labels in use, share of images kept.

    As in the dataset card, labels are counted over the images that keep at least one.
    published: put the card's own figures beside them.
    """
    rows = sums.count("rows")
    labels: dict[int, list[int]] = {index: [] for index in range(len(THRESHOLDS))}
    for (_, index), (count, _) in sums.of_measure("labels").items():
        labels[index].append(count)
    table = []
    for index, threshold in enumerate(THRESHOLDS):
        kept = sums.count("kept", index)
        row: dict[str, Any] = {
            "threshold": threshold,
            "labels_per_image": sum(labels[index]) / kept if kept else 0.0,
            "unique_labels": len(labels[index]),
            "share_kept": kept / rows if rows else 0.0,
        }
        if published:
            names = ("labels_per_image", "unique_labels", "share_kept")
            row["published"] = dict(zip(names, PUBLISHED[threshold], strict=True))
        table.append(row)
    return table


def quantiles(counts: I64, shares: Sequence[float], width: float) -> list[float | None]:
    """Quantiles of a binned distribution that starts at 0, linear within a bin of `width`."""
    total = counts.sum()
    if not total:
        return [None for _ in shares]
    edges = np.arange(len(counts) + 1) * width
    return [float(q) for q in np.interp(shares, np.append(0, np.cumsum(counts)) / total, edges)]


def accuracy(sums: Sums, whose: str = "") -> dict[str, Any]:
    """Top-1 and top-5 accuracy with intervals. whose: "" or "other_"."""
    n = sums.count(whose + "gold_rows")
    return {
        "images": n,
        "top1": rate(sums.count(whose + "gold_top1"), n),
        "top5": rate(sums.count(whose + "gold_top5"), n),
    }


def reliability(sums: Sums, whose: str = "") -> dict[str, Any]:
    """Mean confidence and share correct per bin of confidence, and the expected calibration error.

    ECE = Σ n_b / n · |correct_b − confidence_b| (Naeini et al. 2015), of the first label.
    """
    n, total, correct = np.zeros((3, RELIABILITY_BINS))
    for (bin_, is_correct), (count, confidence) in sums.of_measure(whose + "reliability").items():
        n[bin_] += count
        total[bin_] += confidence
        correct[bin_] += count * is_correct
    used = n > 0
    gap = np.abs(correct[used] - total[used])
    bins = [
        {
            "low": int(b) / RELIABILITY_BINS,
            "high": (int(b) + 1) / RELIABILITY_BINS,
            "images": int(n[b]),
            "confidence": float(total[b] / n[b]),
            "correct": float(correct[b] / n[b]),
        }
        for b in np.flatnonzero(used)
    ]
    return {"bins": bins, "ece": float(gap.sum() / n.sum()) if used.any() else None}


def class_scores(sums: Sums, whose: str = "") -> list[dict[str, Any]]:
    """Precision, recall and F1 of every class that is true or given somewhere, by label.

    Over images with exactly one true class. A score without a denominator is None.
    """
    true: dict[int, int] = {}
    given: dict[int, int] = {}
    hits: dict[int, int] = {}
    for (expected, found), (count, _) in sums.of_measure(whose + "confusion").items():
        true[expected] = true.get(expected, 0) + count
        if found >= 0:
            given[found] = given.get(found, 0) + count
        if expected == found:
            hits[expected] = count
    scores = []
    for label in sorted(true.keys() | given.keys()):
        support, predicted, hit = true.get(label, 0), given.get(label, 0), hits.get(label, 0)
        scores.append(
            {
                "label": label,
                "support": support,
                "predicted": predicted,
                "precision": hit / predicted if predicted else None,
                "recall": hit / support if support else None,
                "f1": 2 * hit / (support + predicted),
            }
        )
    return scores


def macro(scores: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Unweighted means over the classes that are true somewhere; no prediction counts as 0."""
    true = [score for score in scores if score["support"]]
    return {
        key: sum(score[key] or 0.0 for score in true) / len(true) if true else None
        for key in ("precision", "recall", "f1")
    }


def pairs(sums: Sums, measure: str, top: int) -> list[dict[str, Any]]:
    """The most frequent (a, b) with a ≠ b, ties by a, then b; `share` is of all a."""
    cells = sums.of_measure(measure)
    of_a: dict[int, int] = {}
    for (a, _), (count, _) in cells.items():
        of_a[a] = of_a.get(a, 0) + count
    off = sorted((-count, a, b) for (a, b), (count, _) in cells.items() if a != b)
    return [{"from": a, "to": b, "count": -n, "share": -n / of_a[a]} for n, a, b in off[:top]]


def agreement(sums: Sums) -> dict[str, Any]:
    """How often both folders put the same label first, and what became of the truth."""
    cells = sums.of_measure("agreement")
    n = sum(count for count, _ in cells.values())
    same = sum(count for (a, b), (count, _) in cells.items() if a == b)
    changed = {
        "mended": sums.count("changed", 0, 1),
        "broken": sums.count("changed", 1, 0),
        "right_in_both": sums.count("changed", 1, 1),
        "wrong_in_both": sums.count("changed", 0, 0),
    }
    return {"images": n, "same": rate(same, n), "changed": n - same, "against_gold": changed}


def slice_errors(sums: Sums) -> list[dict[str, Any]]:
    """Error rate of every slice with its 95 % Wilson interval, the worst first."""
    rows = []
    for name in sums.names("slice"):
        cells = sums.cells["slice", name]
        wrong, right = cells.get((0, 0), (0, 0.0))[0], cells.get((1, 0), (0, 0.0))[0]
        rows.append({"slice": name, **rate(wrong, wrong + right)})
    return sorted(rows, key=lambda row: (-(row["value"] or 0.0), row["slice"]))


def by_votes(sums: Sums) -> list[dict[str, Any]]:
    """Accuracy by number of votes on the image; the last row holds all from 10 votes up."""
    right: dict[int, list[int]] = {}
    for (votes, correct), (count, _) in sums.of_measure("accuracy_by_votes").items():
        right.setdefault(votes, [0, 0])[correct] += count
    return [{"n_votes": v, **rate(n[1], sum(n))} for v, n in sorted(right.items())]


def unit_summary(sums: Sums, measure: str, b: int | None = None) -> dict[str, Any]:
    """Histogram of a quantity of [0, 1] with its quartiles."""
    counts = sums.along_a(measure, UNIT_BINS, b)
    names = ("q25", "median", "q75")
    found = quantiles(counts, (0.25, 0.5, 0.75), 1 / UNIT_BINS)
    return {"counts": counts.tolist(), **dict(zip(names, found, strict=True))}


def coarsen(counts: Sequence[int], bins: int) -> list[float]:
    """Add neighbouring bins up to `bins` of them, which must divide their number."""
    coarse: list[float] = np.asarray(counts, np.float64).reshape(bins, -1).sum(axis=1).tolist()
    return coarse
