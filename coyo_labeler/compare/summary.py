"""The comparison in plain text."""

from collections.abc import Mapping
from typing import Any

from coyo_labeler.compare.tables import SIZES

#: The rows of the table of both sets: name in the document, words.
ROWS = (
    ("images", "images"),
    ("images_without_objects", "images without objects"),
    ("categories", "classes listed"),
    ("classes_in_use", "classes in use"),
    ("classes_with_more_objects", "classes with more objects than the other"),
    ("instances", "objects"),
    ("instances_without_crowds", "objects without crowds"),
    ("crowds", "crowds"),
    ("objects_of_several_polygons", "objects of several polygons"),
    ("polygons", "polygons"),
    ("vertices", "vertices"),
    ("run_length_objects", "objects as run lengths"),
    ("box_objects", "objects as boxes only"),
    ("very_small", "very small (area ≤ 100), part of small"),
    ("small", "small (area < 32²)"),
    ("medium", "medium (area < 96²)"),
    ("large", "large"),
)


def summarise(document: Mapping[str, Any]) -> str:
    """The table, the matches, the scores and what was left out, for a terminal."""
    a, b, names = document["a"], document["b"], document["names"]
    width = max(len(words) for _, words in ROWS)
    lines = [
        f"{document['title']}: a = {a['path']}, b = {b['path']}",
        f"{'':{width}}  {_cut(names['a'], 12):>12}  {_cut(names['b'], 12):>12}  "
        f"{'difference':>12}  {'b / a':>8}",
    ]
    for key, words in ROWS:
        ratio = document["ratios"].get(key)
        lines.append(
            f"{words:{width}}  {a[key]:>12,}  {b[key]:>12,}  "
            f"{b[key] - a[key]:>+12,}  {_decimal(ratio):>8}"
        )
    lines.append(
        "share of objects by size: "
        + ", ".join(
            f"{size.replace('_', ' ')} {_share(a['shares'][size])} / {_share(b['shares'][size])}"
            for size in SIZES
        )
    )
    return "\n".join([*lines, *_matches(document), *_left_out(document)]) + "\n"


def _matches(document: Mapping[str, Any]) -> list[str]:
    images, matches = document["images"], document["matches"]
    splits, boxes = matches["splits"], matches["boxes"]
    lines = [
        f"images: {images['in_both']:,} in both, {images['only_a']:,} in a only, "
        f"{images['only_b']:,} in b only, {images['of_other_size']:,} of another size",
        f"matches (IoU ≥ {document['min_iou']:g}): {matches['pairs']:,} pairs, mean IoU "
        f"{_decimal(matches['mean_iou'])}, {matches['only_a']:,} objects in a only, "
        f"{matches['only_b']:,} in b only, {matches['class_changed']:,} of another class",
        f"splits: {splits['split_crowds']:,} crowds and {splits['split_objects']:,} objects of a "
        f"are several in b; {splits['joined_crowds']:,} crowds and {splits['joined_objects']:,} "
        "objects of b are several in a",
        f"boxes: {boxes['box_in_a_polygon_in_b']['pairs']:,} boxes of a are polygons in b, "
        f"{boxes['polygon_in_a_box_in_b']['pairs']:,} polygons of a are boxes in b",
    ]
    for key, words in (("iou_0.50", "0.5"), ("iou_0.50_to_0.95", "0.5:0.95")):
        scores = document["scores"][key]
        lines.append(
            f"b against a at IoU {words}: precision {_decimal(scores['precision'])}, recall "
            f"{_decimal(scores['recall'])}, F1 {_decimal(scores['f1'])}"
        )
    return lines


def _left_out(document: Mapping[str, Any]) -> list[str]:
    lines = []
    for side in ("a", "b"):
        for table, reasons in document[side]["rejected"].items():
            for reason, rejected in reasons.items():
                first = rejected["first"][0]
                which = (
                    f"id {first['id']}" if "id" in first else f"number {first.get('number', '?')}"
                )
                image = f" on {first['image']}" if "image" in first else ""
                lines.append(
                    f"left out of {side}, {table}: {rejected['count']:,} "
                    f"{reason.replace('_', ' ')}, the first in {first['file']}, {which}{image}: "
                    f"{first['what']}"
                )
    return lines


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
