"""The whole report as one JSON document. The page and the text are made from it alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coyo_labeler.config.report import ReportSettings
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.report import metrics, ranking
from coyo_labeler.report.aggregate import most_frequent
from coyo_labeler.report.paths import shown
from coyo_labeler.report.sums import Aggregates
from coyo_labeler.report.tally import BINS_PER_OCTAVE, ENTROPY_BIN, MATRIX_CLASSES

#: Bins of image sides: up to 2^16 pixels. Bins of entropy: up to 12 nats, above ln 21,841.
_SIZE_BINS = 16 * BINS_PER_OCTAVE
_ENTROPY_BINS = int(12 / ENTROPY_BIN)


@dataclass(frozen=True)
class Context:
    """What is known besides the rows of labels.

    series: the names of the two label folders, `own` and `other`. about: version and fingerprint.
    examples: rows worth a look, by kind. workers: rows of schemas.WORKERS. worker_pairs: (true
    class, voted class, expected votes). fit: as `provenance.read_fit` returns. funnel: counts of
    every stage. audit: of `audit.describe_audit`. catalog: histograms of ingest. download: figures
    of fetch's manifest.
    """

    series: Mapping[str, str]
    about: Mapping[str, Any]
    examples: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    workers: Sequence[Mapping[str, Any]] = ()
    worker_pairs: Sequence[tuple[int, int, float]] = ()
    fit: Mapping[str, Any] = field(default_factory=dict)
    funnel: Sequence[Mapping[str, Any]] = ()
    catalog: Mapping[str, Any] = field(default_factory=dict)
    download: Mapping[str, Any] = field(default_factory=dict)
    audit: Mapping[str, Any] = field(default_factory=dict)


def describe(
    sums: Aggregates, space: LabelSpace, settings: ReportSettings, context: Context
) -> dict[str, Any]:
    """All figures of the report. Sections without data are absent."""
    document: dict[str, Any] = {
        "title": settings.title,
        "labels": shown(settings.labels),
        "compare": shown(settings.compare) if settings.compare else None,
        "gold": shown(settings.gold) if settings.gold else None,
        "series": dict(context.series),
        "label_space": {"name": space.name, "classes": space.size},
        "about": dict(context.about),
        "rows": sums.count("rows"),
        "rows_without_labels": sums.count("empty"),
        "thresholds": metrics.threshold_table(sums, space.name == "imagenet21k"),
        "classes": _classes(sums, space, settings.top),
        "confidence": metrics.unit_summary(sums, "confidence"),
        "sizes": _sizes(sums),
    }
    if "n_votes" in sums:
        document["posterior"] = _posterior(sums)
    if "both" in sums:
        document["other_risk"] = metrics.unit_summary(sums, "other_risk")
        per_class = metrics.class_agreement(sums, space.size)
        for row in per_class:
            row["name"] = space.display_name(row["label"])
        document["agreement"] = {
            **metrics.agreement(sums),
            "pairs": _pairs(sums, "moves", "was", space, settings.top),
            "classes": per_class,
        }
    if sums.count("known"):
        document["accuracy"] = _against_gold(sums, space, settings.top, "")
        document["accuracy"]["by_votes"] = metrics.by_votes(sums)
        if sums.count("other_known"):
            document["other_accuracy"] = _against_gold(sums, space, settings.top, "other_")
        document["slices"] = metrics.slice_errors(sums)
    return document | _of_context(context, space)


def _of_context(context: Context, space: LabelSpace) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    if context.audit:
        sections["audit"] = dict(context.audit)
    if context.workers:
        sections["workers"] = [dict(row) for row in context.workers]
    if context.worker_pairs:
        sections["worker_pairs"] = [
            {
                "from": a,
                "to": b,
                "count": n,
                "from_name": _name(a, space),
                "to_name": _name(b, space),
            }
            for a, b, n in context.worker_pairs
        ]
    if context.fit:
        sections["fit"] = dict(context.fit)
    if context.funnel:
        sections["funnel"] = [dict(row) for row in context.funnel]
    if context.catalog:
        sections["catalog"] = dict(context.catalog)
    if context.download:
        sections["download"] = dict(context.download)
    if context.examples:
        sections["examples"] = {
            kind: [_example(row, space) for row in rows] for kind, rows in context.examples.items()
        }
    return sections


def _classes(sums: Aggregates, space: LabelSpace, top: int) -> dict[str, Any]:
    """How often each class is the first label: the head, the tail, and all by rank."""
    first = sums.dense("first", space.size)
    listed = sums.dense("labels", space.size, 0)
    order = np.lexsort((np.arange(space.size), -first))
    used = int((first > 0).sum())
    ranks = np.unique(np.geomspace(1, max(used, 1), 200).astype(int)) - 1
    entries = [
        {
            "label": int(c),
            "name": space.display_name(int(c)),
            "first": int(first[c]),
            "listed": int(listed[c]),
        }
        for c in order[:used]
    ]
    return {
        "first_somewhere": used,
        "listed_somewhere": int((listed > 0).sum()),
        "head": entries[:top],
        "tail": entries[max(top, used - top) :],
        "by_rank": [[int(r) + 1, int(first[order[r]])] for r in ranks if used],
    }


def _sizes(sums: Aggregates) -> dict[str, Any]:
    cells = sums.of_measure("sizes")
    short = np.bincount(np.minimum(cells.a, cells.b), cells.count, _SIZE_BINS).astype(np.int64)
    middle = metrics.quantiles(short, (0.5,), 1.0)[0]
    wide = int(cells.count[cells.a > cells.b].sum())
    tall = int(cells.count[cells.a < cells.b].sum())
    return {
        "unknown": sums.count("sizes_unknown"),
        "bins_per_octave": BINS_PER_OCTAVE,
        "cells": np.stack([cells.a, cells.b, cells.count], axis=1).tolist(),
        "wide": wide,
        "tall": tall,
        "square": int(cells.count.sum()) - wide - tall,
        "median_short_side": None if middle is None else round(2 ** (middle / BINS_PER_OCTAVE)),
    }


def _posterior(sums: Aggregates) -> dict[str, Any]:
    votes = sums.of_measure("n_votes")
    counts = sums.dense("entropy", _ENTROPY_BINS)
    return {
        "images_by_votes": np.stack([votes.a, votes.count], axis=1).tolist(),
        "votes": int((votes.a * votes.count).sum()),
        "voted_images": int(votes.count[votes.a > 0].sum()),
        "risk": metrics.unit_summary(sums, "risk"),
        "risk_voted": metrics.unit_summary(sums, "risk", 1),
        "entropy": {"bin": ENTROPY_BIN, "counts": np.trim_zeros(counts, "b").tolist()},
    }


def _against_gold(sums: Aggregates, space: LabelSpace, top: int, prefix: str) -> dict[str, Any]:
    precisions = ranking.class_precisions(sums, space.size, prefix)
    scores = metrics.class_scores(sums, space.size, precisions, prefix)
    for score in scores:
        score["name"] = space.display_name(score["label"])
    scored = {
        **metrics.accuracy(sums, prefix),
        "macro": metrics.macro(scores),
        "classes": scores,
        "mean_average_precision": ranking.mean_average_precision(precisions),
        "precision_recall": ranking.precision_recall(sums, prefix),
        "by_threshold": metrics.multilabel(sums, prefix),
        "coverage": metrics.coverage(sums, prefix),
        "confused": _pairs(sums, prefix + "confusion", prefix + "support", space, top),
        "reliability": metrics.reliability(sums, prefix),
    }
    scored["confused_by_confidence"] = sorted(
        scored["confused"], key=lambda pair: (-pair["confidence"], -pair["count"])
    )
    if space.size <= MATRIX_CLASSES:
        cells = sums.of_measure(prefix + "confusion")
        given = cells[cells.b >= 0]
        matrix = np.zeros((space.size, space.size), dtype=np.int64)
        matrix[given.a, given.b] = given.count
        scored["matrix"] = {
            "names": [space.display_name(c) for c in range(space.size)],
            "counts": matrix.tolist(),
        }
    return scored


def _pairs(
    sums: Aggregates, measure: str, total_of_first: str, space: LabelSpace, top: int
) -> list[dict[str, Any]]:
    """The most frequent pairs, with names and with their share of all images of the first class.

    confidence: the mean probability of the second class; None for the pairs of two folders.
    """
    cells = most_frequent(sums.of_measure(measure), top)
    totals = sums.dense(total_of_first, space.size)
    return [
        {
            "from": a,
            "to": b,
            "count": n,
            "share": n / int(totals[a]) if a >= 0 and totals[a] else None,
            "confidence": total / n if measure.endswith("confusion") else None,
            "from_name": _name(a, space),
            "to_name": _name(b, space),
        }
        for a, b, n, total in zip(
            cells.a.tolist(),
            cells.b.tolist(),
            cells.count.tolist(),
            cells.total.tolist(),
            strict=True,
        )
    ]


def _name(label: int, space: LabelSpace) -> str:
    if label < 0:
        return "no label"
    return space.display_name(label) if label < space.size else str(label)


def _example(row: Mapping[str, Any], space: LabelSpace) -> dict[str, Any]:
    example = {key: value for key, value in row.items() if value is not None}
    example["name"] = _name(row["label"], space)
    if row.get("other_label") is not None:
        example["other_name"] = _name(row["other_label"], space)
    if row.get("gold") is not None:
        example["gold_names"] = [_name(label, space) for label in row["gold"]]
    return example
