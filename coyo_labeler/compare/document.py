"""The whole comparison as one JSON document. The page and the text are made from it alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coyo_labeler.compare import tables
from coyo_labeler.compare.coco_files import InstanceSet
from coyo_labeler.compare.image_pair import Columns
from coyo_labeler.compare.pairing import Pairing
from coyo_labeler.compare.rejects import Rejects
from coyo_labeler.config.compare import CompareSettings
from coyo_labeler.redact import redact


@dataclass(frozen=True)
class Found:
    """What was found in all images: the columns of `image_pair`, and the rejects of each set."""

    a: Columns
    b: Columns
    pairs: Columns
    class_pairs: Columns
    images: Columns
    weak: int
    rejects_a: Rejects
    rejects_b: Rejects


def describe(
    settings: CompareSettings,
    sets: tuple[InstanceSet, InstanceSet],
    pairing: Pairing,
    found: Found,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """All figures of the comparison."""
    own = _describe_set(settings.a, sets[0], found.a, found.rejects_a)
    other = _describe_set(settings.b, sets[1], found.b, found.rejects_b)
    by_class = _describe_classes(pairing.classes, found)
    more = tables.classes_with_more(
        [row["a"]["instances"] for row in by_class], [row["b"]["instances"] for row in by_class]
    )
    for side, document in (("a", own), ("b", other)):
        document["classes_with_more_objects"] = more[side]
    scores = tables.scores(found.a, found.b)
    return {
        "title": settings.title,
        "names": {"a": settings.name_a, "b": settings.name_b},
        "about": dict(about),
        "min_iou": settings.min_iou,
        "a": own,
        "b": other,
        "differences": tables.differences(own, other),
        "ratios": tables.ratios(own, other),
        "classes_with_as_many_objects": more["equal"],
        "images": _describe_images(sets, pairing, found),
        "matches": tables.describe_matches(
            found.a, found.b, found.pairs, found.class_pairs, found.weak
        ),
        "scores": {
            "iou_0.50": {name: scores[0][name] for name in ("precision", "recall", "f1")},
            "iou_0.50_to_0.95": tables.mean_scores(scores),
            "by_iou": scores,
        },
        "confusion": tables.confusion(found.pairs, pairing.classes),
        "by_class": by_class,
    }


def _describe_set(
    url: str, instances: InstanceSet, columns: Columns, rejects: Rejects
) -> dict[str, Any]:
    counts = tables.count_objects(columns)
    in_images = sum(bool(image.entries) for image in instances.images.values())
    return {
        "path": redact(url),
        "files": len(instances.files),
        "images": len(instances.images),
        "images_without_objects": len(instances.images) - in_images,
        "categories": len(instances.classes),
        **counts,
        "shares": tables.size_shares(counts),
        "areas_computed": int((~columns["area_given"]).sum()),
        "records": dict(instances.counts),
        "rejected": rejects.to_json(),
    }


def _describe_images(
    sets: tuple[InstanceSet, InstanceSet], pairing: Pairing, found: Found
) -> dict[str, Any]:
    return {
        "in_both": pairing.images_in_both,
        "only_a": len(sets[0].images) - pairing.images_in_both,
        "only_b": len(sets[1].images) - pairing.images_in_both,
        "of_other_size": len(pairing.other_size),
        "first_of_other_size": pairing.other_size[:5],
        "paired_without_folders": pairing.by_base_name,
        "objects_not_compared_a": int((~found.a["compared"]).sum()),
        "objects_not_compared_b": int((~found.b["compared"]).sum()),
    }


def _describe_classes(classes: Sequence[str], found: Found) -> list[dict[str, Any]]:
    """One row per class that is listed in either set, in the order of the lists."""
    size = len(classes)
    columns = zip(
        classes,
        tables.count_by_class(found.a, size),
        tables.count_by_class(found.b, size),
        tables.matches_by_class(found.a, found.b, found.pairs, size),
        tables.scores_by_class(found.a, found.b, size),
        strict=True,
    )
    return [
        {
            "class": name,
            "a": own,
            "b": other,
            "difference": other["instances"] - own["instances"],
            "ratio": tables.ratio(other["instances"], own["instances"]),
            **matches,
            **scores,
        }
        for name, own, other, matches, scores in columns
    ]
