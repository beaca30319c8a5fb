"""One image in both sets: its objects read and matched, as columns that `batch` puts together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.compare import match
from coyo_labeler.compare.masks import (
    Masks,
    Rle,
    box_intersections,
    box_iou,
    canvas_of,
    draw_mask,
    intersections,
    is_rectangle,
    mask_iou,
)
from coyo_labeler.compare.records import (
    Annotation,
    BrokenRecordError,
    Canvas,
    Reason,
    RunLengths,
    Shape,
    check_within,
    read_annotation,
)

#: The shapes of objects, by their number in the column `kind`.
POLYGONS, RUN_LENGTHS, BOX = range(3)
#: Pairs below the least IoU of a match, down to this one, are counted as weak.
WEAK_IOU = 0.1
#: Least IoU at which precision and recall are told.
SCORED_IOU = 0.5
#: A bbox may differ by this many pixels from the extent of its mask, which is rounded.
BOX_TOLERANCE = 2.0

#: Columns of objects, with their types; see `describe_objects` and `compare_image`.
OBJECTS: Mapping[str, Any] = {
    "klass": np.int32,
    "crowd": np.bool_,
    "kind": np.int8,
    "polygons": np.int32,
    "vertices": np.int32,
    "area": np.float64,
    "area_given": np.bool_,
    "rectangle": np.bool_,
    "box_off": np.bool_,
    "compared": np.bool_,
    "matched": np.bool_,
    "changed": np.bool_,
    "scored_iou": np.float64,
    "cover": np.float64,
    "split": np.bool_,
    "part": np.bool_,
}
#: Columns of matched pairs: class-blind ones, and those within each class.
PAIRS: Mapping[str, Any] = {
    "class_a": np.int32,
    "class_b": np.int32,
    "iou": np.float64,
    "box_iou": np.float64,
    "crowd_a": np.bool_,
    "crowd_b": np.bool_,
    "rectangle_a": np.bool_,
    "rectangle_b": np.bool_,
}
CLASS_PAIRS: Mapping[str, Any] = {"klass": np.int32, "iou": np.float64}

Columns = dict[str, NDArray[Any]]


class Entry(NamedTuple):
    """An undecoded annotation, and the number of the file that it is in."""

    file: int
    raw: bytes


@dataclass
class Objects:
    """The readable objects of an image in one set. rejected: the others, with their entries."""

    annotations: list[Annotation]
    classes: list[int]
    masks: Masks
    rejected: list[tuple[Entry, BrokenRecordError]]

    @property
    def klass(self) -> NDArray[np.int32]:
        """The class of each object, (objects,)."""
        return np.array(self.classes, dtype=np.int32)

    @property
    def crowd(self) -> match.Mask:
        """Which objects are crowds, (objects,)."""
        return np.array([bool(a.iscrowd) for a in self.annotations], dtype=bool)


def read_objects(
    entries: Sequence[Entry],
    categories: Sequence[Mapping[int | str, int]],
    canvas: Canvas,
) -> Objects:
    """The objects of an image. categories: per file, the class of each category id."""
    annotations: list[Annotation] = []
    classes: list[int] = []
    runs: list[Rle] = []
    rejected: list[tuple[Entry, BrokenRecordError]] = []
    for entry in entries:
        try:
            annotation = read_annotation(entry.raw, canvas)
            klass = categories[entry.file].get(annotation.category_id)
            if klass is None:
                raise BrokenRecordError(
                    Reason.UNKNOWN_CATEGORY,
                    f"category_id {annotation.category_id} is none of the categories",
                )
            size = canvas if canvas.height else canvas_of([annotation])
            mask = draw_mask(annotation, size)
        except BrokenRecordError as error:
            rejected.append((entry, error))
            continue
        annotations.append(annotation)
        classes.append(klass)
        runs.append(mask)
    objects = Objects(annotations, classes, Masks(runs, [a.bbox for a in annotations]), rejected)
    return _without_outsiders(objects, entries, canvas)


def _without_outsiders(objects: Objects, entries: Sequence[Entry], canvas: Canvas) -> Objects:
    """Reject objects without a pixel in the image that lie outside of it. Few have no pixel."""
    if not canvas.height or not (objects.masks.areas == 0).any():
        return objects
    broken = {id(entry) for entry, _ in objects.rejected}
    read = [entry for entry in entries if id(entry) not in broken]
    keep = []
    for index in range(len(objects.annotations)):
        try:
            if objects.masks.areas[index] == 0:
                check_within(objects.annotations[index], canvas)
            keep.append(index)
        except BrokenRecordError as error:
            objects.rejected.append((read[index], error))
    return Objects(
        [objects.annotations[index] for index in keep],
        [objects.classes[index] for index in keep],
        Masks(
            [objects.masks.runs[index] for index in keep],
            [objects.masks.given_boxes[index] for index in keep],
        ),
        objects.rejected,
    )


def describe_objects(objects: Objects) -> Columns:
    """The columns of OBJECTS that one set has by itself; the others are empty."""
    annotations = objects.annotations
    columns: Columns = {name: np.zeros(len(annotations), dtype) for name, dtype in OBJECTS.items()}
    columns["klass"][:] = objects.klass
    columns["crowd"][:] = objects.crowd
    shapes = [annotation.segmentation for annotation in annotations]
    polygons = [shape if isinstance(shape, list) else [] for shape in shapes]
    columns["kind"][:] = [_kind_of(shape) for shape in shapes]
    columns["polygons"][:] = [len(rings) for rings in polygons]
    columns["vertices"][:] = [sum(map(_vertices, rings)) for rings in polygons]
    columns["rectangle"][:] = [is_rectangle(annotation) for annotation in annotations]
    areas = objects.masks.areas
    columns["area_given"][:] = [annotation.area is not None for annotation in annotations]
    columns["area"][:] = [
        drawn if annotation.area is None else annotation.area
        for annotation, drawn in zip(annotations, areas.tolist(), strict=True)
    ]
    if annotations:
        given, extent = objects.masks.boxes, objects.masks.extents
        ends, other = given[:, :2] + given[:, 2:], extent[:, :2] + extent[:, 2:]
        off = np.maximum(np.abs(given[:, :2] - extent[:, :2]), np.abs(ends - other)).max(axis=1)
        columns["box_off"][:] = (areas > 0) & (off > BOX_TOLERANCE)
    return columns


def _kind_of(shape: Shape) -> int:
    if isinstance(shape, RunLengths):
        return RUN_LENGTHS
    return POLYGONS if shape else BOX


def _vertices(polygon: list[float]) -> int:
    """Points of an open ring: one that repeats its first point at the end has it once."""
    points = len(polygon) // 2
    return points - 1 if points > 3 and polygon[:2] == polygon[-2:] else points


@dataclass
class Comparison:
    """What is found in one image: columns of the objects of a and b, pairs, and counts."""

    a: Columns
    b: Columns
    pairs: Columns
    class_pairs: Columns
    weak: int
    disagreement: float


def compare_image(a: Objects, b: Objects, compared: bool, min_iou: float) -> Comparison:
    """Match the objects of one image.

    compared: whether the image is in both sets and has one size; else its objects are described
    only. min_iou: least IoU of a match. The disagreement of an image is its objects without match,
    plus matches of different classes, plus what each match lacks to an IoU of 1.
    """
    own, other = describe_objects(a), describe_objects(b)
    if not compared:
        return Comparison(own, other, _empty(PAIRS), _empty(CLASS_PAIRS), 0, 0.0)
    own["compared"][:], other["compared"][:] = True, True
    iou = mask_iou(a.masks, b.masks)
    both = intersections(iou, a.masks.areas, b.masks.areas)
    same = a.klass[:, None] == b.klass[None, :]
    pairs = match.match_best_first(iou, min(min_iou, WEAK_IOU), same)
    values = iou[pairs.a, pairs.b]
    strong = values >= min_iou
    found = match.Pairs(pairs.a[strong], pairs.b[strong])
    own["matched"][found.a], other["matched"][found.b] = True, True
    _score(own, other, iou, both, same, (a.masks.areas, b.masks.areas))
    _mark_splits(a, b, own, other, iou, both, same, found)
    within = match.match_best_first(np.where(same, iou, 0.0), min_iou)
    columns: Columns = {
        "class_a": own["klass"][found.a],
        "class_b": other["klass"][found.b],
        "iou": values[strong],
        "box_iou": box_iou(a.masks.boxes[found.a], b.masks.boxes[found.b]),
    }
    for name in ("crowd", "rectangle"):
        columns[f"{name}_a"], columns[f"{name}_b"] = own[name][found.a], other[name][found.b]
    changed = columns["class_a"] != columns["class_b"]
    own["changed"][found.a], other["changed"][found.b] = changed, changed
    unmatched = len(own["klass"]) + len(other["klass"]) - 2 * len(found.a)
    return Comparison(
        own,
        other,
        columns,
        {"klass": own["klass"][within.a], "iou": iou[within.a, within.b]},
        int((~strong).sum()),
        float(unmatched + changed.sum() + (1.0 - columns["iou"]).sum()),
    )


def _score(
    a: Columns, b: Columns, iou: match.F64, both: match.F64, same: match.Mask,
    areas: tuple[match.F64, match.F64],
) -> None:  # fmt: skip
    """What precision and recall need: matches within classes, crowds aside, and what crowds cover.

    scored_iou: that of the match, 0 without one.
    """
    single = ~a["crowd"][:, None] & ~b["crowd"][None, :]
    scored = match.match_best_first(np.where(same & single, iou, 0.0), SCORED_IOU)
    a["scored_iou"][scored.a] = b["scored_iou"][scored.b] = iou[scored.a, scored.b]
    b["cover"][:] = match.cover_by_crowds(both, areas[1], same, a["crowd"])


def _mark_splits(
    a: Objects, b: Objects, own: Columns, other: Columns, iou: match.F64, both: match.F64,
    same: match.Mask, pairs: match.Pairs,
) -> None:  # fmt: skip
    boxes = box_intersections(a.masks.boxes, b.masks.boxes)
    size_a, size_b = (np.prod(one.masks.boxes[:, 2:], axis=1) for one in (a, b))
    share = match.shares_within(both, b.masks.areas, boxes, size_b, own["crowd"])
    own["split"][:], other["part"][:] = match.find_splits(iou, share, same, pairs)
    share = match.shares_within(both.T, a.masks.areas, boxes.T, size_a, other["crowd"])
    reverse = match.Pairs(pairs.b, pairs.a)
    other["split"][:], own["part"][:] = match.find_splits(iou.T, share, same.T, reverse)


def _empty(columns: Mapping[str, Any]) -> Columns:
    return {name: np.zeros(0, dtype) for name, dtype in columns.items()}
