"""The whole report as one JSON document; the page and the text are drawn from it alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coyo_labeler.config.report import ReportSettings
from coyo_labeler.report import metrics
from coyo_labeler.report.metrics import Sums
from coyo_labeler.report.names import LabelNames
from coyo_labeler.report.tally import BINS_PER_OCTAVE, ENTROPY_BIN

#: Bins of image sides: up to 2^16 pixels. Bins of entropy: up to 12 nats, above ln 21,841.
_SIZE_BINS = 16 * BINS_PER_OCTAVE
_ENTROPY_BINS = int(12 / ENTROPY_BIN)


def describe(
    sums: Sums,
    names: LabelNames,
    settings: ReportSettings,
    *,
    examples: Mapping[str, Sequence[Mapping[str, Any]]],
    workers: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
    funnel: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """All numbers of the report. Sections without data are absent."""
    document: dict[str, Any] = {
        "title": settings.title,
        "labels": settings.labels,
        "compare": settings.compare,
        "gold": settings.gold,
        "label_space": {"name": names.label_space, "classes": names.size},
        "about": dict(about),
        "rows": sums.count("rows"),
        "rows_without_labels": sums.count("empty"),
        "thresholds": metrics.threshold_table(sums, names.label_space == "imagenet21k"),
        "classes": _classes(sums, names, settings.top),
        "confidence": metrics.unit_summary(sums, "confidence"),
        "sizes": _sizes(sums),
    }
    if "n_votes" in sums:
        document["posterior"] = _posterior(sums)
    if "other_risk" in sums:
        document["other_risk"] = metrics.unit_summary(sums, "other_risk")
        document["agreement"] = {
            **metrics.agreement(sums),
            "pairs": _named(metrics.pairs(sums, "agreement", settings.top), names),
        }
    if sums.count("gold_rows"):
        document["accuracy"] = _against_gold(sums, names, settings, "")
        if sums.count("other_gold_rows"):
            document["other_accuracy"] = _against_gold(sums, names, settings, "other_")
        document["slices"] = metrics.slice_errors(sums)
    if workers:
        document["workers"] = list(workers)
    if history:
        document["history"] = list(history)
    if funnel:
        document["funnel"] = list(funnel)
    if examples:
        document["examples"] = {
            kind: [_example(row, names) for row in rows] for kind, rows in examples.items()
        }
    return document


def _classes(sums: Sums, names: LabelNames, top: int) -> dict[str, Any]:
    """How often each class comes first: the head, the tail, and the whole by rank."""
    first = sums.along_a("top1", names.size)
    listed = sums.along_a("labels", names.size, 0)
    order = np.lexsort((np.arange(names.size), -first))
    used = int((first > 0).sum())
    ranks = np.unique(np.geomspace(1, max(used, 1), 200).astype(int)) - 1
    entries = [
        {"label": int(c), "name": names[int(c)], "first": int(first[c]), "listed": int(listed[c])}
        for c in order[:used]
    ]
    return {
        "first_somewhere": used,
        "listed_somewhere": int((listed > 0).sum()),
        "head": entries[:top],
        "tail": entries[max(top, used - top) :],
        "by_rank": [[int(r) + 1, int(first[order[r]])] for r in ranks if used],
    }


def _sizes(sums: Sums) -> dict[str, Any]:
    cells = [[w, h, n] for (w, h), (n, _) in sorted(sums.of_measure("sizes").items())]
    short = np.zeros(_SIZE_BINS, dtype=np.int64)
    for width, height, count in cells:
        short[min(width, height, _SIZE_BINS - 1)] += count
    total = short.sum()
    median = int(np.searchsorted(np.cumsum(short), total / 2)) if total else None
    return {
        "unknown": sums.count("sizes_unknown"),
        "bins_per_octave": BINS_PER_OCTAVE,
        "cells": cells,
        "median_short_side": None if median is None else round(2 ** (median / BINS_PER_OCTAVE)),
    }


def _posterior(sums: Sums) -> dict[str, Any]:
    votes = sorted((n, count) for (n, _), (count, _) in sums.of_measure("n_votes").items())
    entropy = sums.of_measure("entropy")
    counts = np.zeros(_ENTROPY_BINS, dtype=np.int64)
    for (bin_, _), (count, _) in entropy.items():
        counts[min(bin_, _ENTROPY_BINS - 1)] += count
    return {
        "images_by_votes": votes,
        "votes": sum(n * count for n, count in votes),
        "voted_images": sum(count for n, count in votes if n),
        "risk": metrics.unit_summary(sums, "risk"),
        "risk_voted": metrics.unit_summary(sums, "risk", 1),
        "entropy": {"bin": ENTROPY_BIN, "counts": np.trim_zeros(counts, "b").tolist()},
    }


def _against_gold(
    sums: Sums, names: LabelNames, settings: ReportSettings, whose: str
) -> dict[str, Any]:
    scores = metrics.class_scores(sums, whose)
    for score in scores:
        score["name"] = names[score["label"]] if score["label"] < names.size else "?"
    found = {
        **metrics.accuracy(sums, whose),
        "macro": metrics.macro(scores),
        "classes": scores,
        "confused": _named(metrics.pairs(sums, whose + "confusion", settings.top), names),
        "reliability": metrics.reliability(sums, whose),
    }
    if not whose:
        found["by_votes"] = metrics.by_votes(sums)
    return found


def _named(pairs: list[dict[str, Any]], names: LabelNames) -> list[dict[str, Any]]:
    return [
        {**pair, "from_name": _name(pair["from"], names), "to_name": _name(pair["to"], names)}
        for pair in pairs
    ]


def _name(label: int, names: LabelNames) -> str:
    return names[label] if 0 <= label < names.size else "no label" if label < 0 else str(label)


def _example(row: Mapping[str, Any], names: LabelNames) -> dict[str, Any]:
    example = {key: value for key, value in row.items() if value is not None}
    example["name"] = _name(row["label"], names)
    if row.get("other_label") is not None:
        example["other_name"] = _name(row["other_label"], names)
    if row.get("gold") is not None:
        example["gold_names"] = [_name(label, names) for label in row["gold"]]
    return example
