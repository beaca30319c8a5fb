"""The masks of one image's objects, by hotcoco: areas, extents, and how they overlap."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from hotcoco import mask as rle
from numpy.typing import NDArray

from coyo_labeler.compare.records import Annotation, BrokenRecordError, Canvas, Reason, RunLengths

F64 = NDArray[np.float64]
Rle = dict[str, Any]


def canvas_of(annotations: Sequence[Annotation]) -> Canvas:
    """A canvas for an image of unknown size: that of run lengths, else the extent of the shapes."""
    height = width = 1.0
    for annotation in annotations:
        shape = annotation.segmentation
        if isinstance(shape, RunLengths):
            return Canvas(shape.size[0], shape.size[1])
        for polygon in shape or []:
            width, height = max(width, *polygon[0::2]), max(height, *polygon[1::2])
        if annotation.bbox is not None:
            x, y, w, h = annotation.bbox
            width, height = max(width, x + w), max(height, y + h)
    return Canvas(int(np.ceil(height)), int(np.ceil(width)))


def draw_mask(annotation: Annotation, canvas: Canvas) -> Rle:
    """The run lengths of one object; of its bbox where it has no segmentation.

    Raises: BrokenRecordError where its run lengths are damaged.
    """
    shape = annotation.segmentation
    if isinstance(shape, RunLengths):
        height, width = shape.size
        try:
            if isinstance(shape.counts, str):
                runs: Rle = rle.rle_from_string(shape.counts, height, width)
            else:
                runs = rle.frPyObjects({"counts": shape.counts, "size": shape.size}, height, width)
            rle.area(runs)
        except (TypeError, ValueError) as error:
            raise BrokenRecordError(Reason.RLE_COUNTS, f"run lengths: {error}") from None
        return runs
    polygons = shape or [rectangle(annotation.bbox or [0.0, 0.0, 0.0, 0.0])]
    parts: list[Rle] = rle.frPyObjects(polygons, canvas.height, canvas.width)
    return parts[0] if len(parts) == 1 else rle.merge(parts)


def rectangle(box: Sequence[float]) -> list[float]:
    """The polygon of a box of x, y, width and height."""
    x, y, width, height = box
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def is_rectangle(annotation: Annotation) -> bool:
    """Whether a shape is no more than a box: none is given, or four corners along the axes."""
    shape = annotation.segmentation
    if not shape:
        return True
    if isinstance(shape, RunLengths) or len(shape) != 1 or len(shape[0]) not in (8, 10):
        return False
    xs, ys = shape[0][0::2], shape[0][1::2]
    return len(set(xs)) == 2 and len(set(ys)) == 2


@dataclass(frozen=True)
class Masks:
    """The objects of one image in one of the two sets."""

    runs: list[Rle]
    given_boxes: list[list[float] | None]

    def __len__(self) -> int:
        return len(self.runs)

    @cached_property
    def areas(self) -> F64:
        """Pixels of each mask, (objects,)."""
        if not self.runs:
            return np.zeros(0)
        return np.asarray(rle.area(self.runs), dtype=np.float64)

    @cached_property
    def extents(self) -> F64:
        """The box around each mask: x, y, width, height, (objects, 4)."""
        if not self.runs:
            return np.zeros((0, 4))
        return np.asarray(rle.to_bbox(self.runs), dtype=np.float64).reshape(-1, 4)

    @cached_property
    def boxes(self) -> F64:
        """The bbox of each object as it is given, else around its mask, (objects, 4)."""
        boxes = self.extents.copy()
        for index, box in enumerate(self.given_boxes):
            if box is not None:
                boxes[index] = box
        return boxes


def mask_iou(a: Masks, b: Masks) -> F64:
    """Intersection over union of every pair of masks, (a, b); 0 where either is empty."""
    if not len(a) or not len(b):
        return np.zeros((len(a), len(b)))
    iou = np.asarray(rle.iou(a.runs, b.runs, [0] * len(b)), dtype=np.float64)
    empty = (a.areas == 0)[:, None] | (b.areas == 0)[None, :]
    return np.where(empty, 0.0, iou)


def box_iou(a: F64, b: F64) -> F64:
    """Intersection over union of boxes pair by pair; a, b: (pairs, 4) of x, y, width, height."""
    low = np.maximum(a[:, :2], b[:, :2])
    high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    both = np.prod(np.maximum(high - low, 0.0), axis=1)
    union = np.prod(a[:, 2:], axis=1) + np.prod(b[:, 2:], axis=1) - both
    iou: F64 = np.divide(both, union, out=np.zeros(len(a)), where=union > 0)
    return iou


def box_intersections(a: F64, b: F64) -> F64:
    """The area in both boxes of every pair; a: (a, 4), b: (b, 4); result (a, b)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum((a[:, :2] + a[:, 2:])[:, None], (b[:, :2] + b[:, 2:])[None, :])
    area: F64 = np.prod(np.maximum(high - low, 0.0), axis=2)
    return area


def intersections(iou: F64, areas_a: F64, areas_b: F64) -> F64:
    """Pixels in both masks of every pair, from their IoU: IoU (A + B) / (1 + IoU), (a, b)."""
    return iou * (areas_a[:, None] + areas_b[None, :]) / (1.0 + iou)
