"""The tables of one set and of the matches, from the columns of all images. No I/O."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.compare.image_pair import BOX, RUN_LENGTHS, Columns

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: COCO's sizes, by the area field in pixels: small below the first, medium below the second.
SMALL, MEDIUM = 32.0**2, 96.0**2
#: Very small objects, which are a part of the small ones.
VERY_SMALL = 100.0
SIZES = ("very_small", "small", "medium", "large")

#: COCO's thresholds of IoU, 0.5 to 0.95.
THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
#: Bins of the distribution of IoU.
IOU_BINS = 20


def count_objects(columns: Columns) -> dict[str, int]:
    """The counts of a set, by the names of its table."""
    area, kind = columns["area"], columns["kind"]
    counts = {
        "instances": len(kind),
        "instances_without_crowds": (~columns["crowd"]).sum(),
        "crowds": columns["crowd"].sum(),
        "objects_of_several_polygons": (columns["polygons"] > 1).sum(),
        "polygons": columns["polygons"].sum(),
        "vertices": columns["vertices"].sum(),
        "run_length_objects": (kind == RUN_LENGTHS).sum(),
        "box_objects": (kind == BOX).sum(),
        "very_small": (area <= VERY_SMALL).sum(),
        "small": (area < SMALL).sum(),
        "medium": ((area >= SMALL) & (area < MEDIUM)).sum(),
        "large": (area >= MEDIUM).sum(),
        "classes_in_use": len(np.unique(columns["klass"])),
    }
    return {name: int(count) for name, count in counts.items()}


def size_shares(counts: Mapping[str, int]) -> dict[str, float | None]:
    """The share of each size among all objects; None without objects."""
    return {name: ratio(counts[name], counts["instances"]) for name in SIZES}


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, int]:
    """b − a of every count."""
    return {name: b[name] - a[name] for name in a if isinstance(a[name], int)}


def ratios(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, float | None]:
    """b / a of every count; None where a has none."""
    return {name: ratio(b[name], a[name]) for name in a if isinstance(a[name], int)}


def ratio(part: float, whole: float) -> float | None:
    """part / whole, None where whole is 0."""
    return part / whole if whole else None


def count_by_class(columns: Columns, classes: int) -> list[dict[str, int]]:
    """`count_objects` of every class, without what only makes sense for all."""
    order = np.argsort(columns["klass"], kind="stable")
    bounds = np.searchsorted(columns["klass"][order], np.arange(classes + 1))
    rows = []
    for klass in range(classes):
        index = order[bounds[klass] : bounds[klass + 1]]
        counts = count_objects({name: column[index] for name, column in columns.items()})
        del counts["classes_in_use"]
        rows.append(counts)
    return rows


def classes_with_more(a: Sequence[int], b: Sequence[int]) -> dict[str, int]:
    """Of the classes that either set uses: how many have more objects in a, in b, as many."""
    own, other = np.array(a), np.array(b)
    return {
        "a": int((own > other).sum()),
        "b": int((other > own).sum()),
        "equal": int(((own == other) & (own > 0)).sum()),
    }


def iou_summary(iou: F64) -> dict[str, Any]:
    """Mean, quartiles and histogram of the IoU of pairs; None where there are none."""
    counts = np.bincount(
        np.minimum((iou * IOU_BINS).astype(np.int64), IOU_BINS - 1), minlength=IOU_BINS
    )
    low, median, high = np.quantile(iou, (0.25, 0.5, 0.75)).tolist() if len(iou) else [None] * 3
    return {
        "mean_iou": float(iou.mean()) if len(iou) else None,
        "q25": low,
        "median": median,
        "q75": high,
        "histogram": {"bins": IOU_BINS, "counts": counts.tolist()},
    }


def describe_matches(
    a: Columns, b: Columns, pairs: Columns, class_pairs: Columns, weak: int
) -> dict[str, Any]:
    """Which objects are in both sets, in one only, of another class, or cut differently."""
    compared_a, compared_b = a["compared"], b["compared"]
    box_a, box_b = pairs["rectangle_a"], pairs["rectangle_b"]
    within = len(class_pairs["iou"])
    return {
        "pairs": len(pairs["iou"]),
        **iou_summary(pairs["iou"]),
        "mean_box_iou": _mean(pairs["box_iou"]),
        "only_a": int((compared_a & ~a["matched"]).sum()),
        "only_b": int((compared_b & ~b["matched"]).sum()),
        "class_changed": int((pairs["class_a"] != pairs["class_b"]).sum()),
        "crowd_changed": int((pairs["crowd_a"] != pairs["crowd_b"]).sum()),
        "weak_pairs": weak,
        "within_class": {
            "pairs": within,
            **iou_summary(class_pairs["iou"]),
            "only_a": int(compared_a.sum()) - within,
            "only_b": int(compared_b.sum()) - within,
        },
        "splits": {
            "split_crowds": int((a["split"] & a["crowd"]).sum()),
            "split_objects": int((a["split"] & ~a["crowd"]).sum()),
            "parts_in_b": int(b["part"].sum()),
            "joined_crowds": int((b["split"] & b["crowd"]).sum()),
            "joined_objects": int((b["split"] & ~b["crowd"]).sum()),
            "parts_in_a": int(a["part"].sum()),
        },
        "boxes": {
            "box_in_a_polygon_in_b": _count_and_mean(pairs, box_a & ~box_b),
            "polygon_in_a_box_in_b": _count_and_mean(pairs, ~box_a & box_b),
            "box_in_both": _count_and_mean(pairs, box_a & box_b),
            "bbox_off_its_mask_a": int(a["box_off"].sum()),
            "bbox_off_its_mask_b": int(b["box_off"].sum()),
        },
    }


def _count_and_mean(pairs: Columns, of: Mask) -> dict[str, Any]:
    return {"pairs": int(of.sum()), "mean_iou": _mean(pairs["iou"][of])}


def _mean(values: F64) -> float | None:
    return float(values.mean()) if len(values) else None


def scores(a: Columns, b: Columns) -> list[dict[str, Any]]:
    """Precision, recall and F1 of b against a at every threshold of IoU.

    Crowds are no objects here; an object of b that a crowd of its class covers by the threshold is
    left out unless it matches (as in COCO's evaluation, without scores: Lin et al. 2014).
    """
    own = a["compared"] & ~a["crowd"]
    other = b["compared"] & ~b["crowd"]
    rows = []
    for threshold in THRESHOLDS:
        hit = b["scored_iou"][other] >= threshold
        counted = hit | (b["cover"][other] < threshold)
        hits, given, true = int(hit.sum()), int(counted.sum()), int(own.sum())
        rows.append(
            {"iou": threshold, "hits": hits, "a": true, "b": given, **_rates(hits, given, true)}
        )
    return rows


def mean_scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The means over all thresholds, as COCO's 0.5:0.95."""
    means = {}
    for name in ("precision", "recall", "f1"):
        values = [row[name] for row in rows if row[name] is not None]
        means[name] = sum(values) / len(values) if values else None
    return means


def _rates(hits: int, given: int, true: int) -> dict[str, float | None]:
    return {
        "precision": ratio(hits, given),
        "recall": ratio(hits, true),
        "f1": ratio(2 * hits, given + true),
    }


def scores_by_class(a: Columns, b: Columns, classes: int) -> list[dict[str, float | None]]:
    """Precision, recall and F1 of each class at an IoU of 0.5."""
    own = a["compared"] & ~a["crowd"]
    hit = b["compared"] & ~b["crowd"] & (b["scored_iou"] >= THRESHOLDS[0])
    counted = hit | (b["compared"] & ~b["crowd"] & (b["cover"] < THRESHOLDS[0]))
    hits, given, true = (
        np.bincount(columns["klass"][of], minlength=classes).tolist()
        for columns, of in ((b, hit), (b, counted), (a, own))
    )
    return [_rates(*row) for row in zip(hits, given, true, strict=True)]


def matches_by_class(
    a: Columns, b: Columns, pairs: Columns, classes: int
) -> list[dict[str, int | float | None]]:
    """Of each class: pairs, their mean IoU, objects in one set only, and changes of class."""
    iou = np.bincount(pairs["class_a"], pairs["iou"], classes)
    count = np.bincount(pairs["class_a"], minlength=classes)
    changed = pairs["class_a"] != pairs["class_b"]
    columns = {
        "only_a": np.bincount(a["klass"][a["compared"] & ~a["matched"]], minlength=classes),
        "only_b": np.bincount(b["klass"][b["compared"] & ~b["matched"]], minlength=classes),
        "changed_from": np.bincount(pairs["class_a"][changed], minlength=classes),
        "changed_to": np.bincount(pairs["class_b"][changed], minlength=classes),
    }
    return [
        {
            "pairs": int(count[klass]),
            "mean_iou": ratio(float(iou[klass]), int(count[klass])),
            **{name: int(column[klass]) for name, column in columns.items()},
        }
        for klass in range(classes)
    ]


def confusion(pairs: Columns, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs of classes of matched objects, the most frequent first, with their mean IoU."""
    key = pairs["class_a"].astype(np.int64) * len(classes) + pairs["class_b"]
    found, index, count = np.unique(key, return_inverse=True, return_counts=True)
    iou = np.bincount(index, pairs["iou"], len(found))
    order = np.lexsort((found, -count))
    return [
        {
            "a": classes[int(found[i]) // len(classes)],
            "b": classes[int(found[i]) % len(classes)],
            "count": int(count[i]),
            "mean_iou": float(iou[i] / count[i]),
        }
        for i in order
    ]
