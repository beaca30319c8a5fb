"""Which objects of two sets are the same: one-to-one by IoU, and one against several.

Arrays of one image: rows are the objects of a, columns those of b.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Pairs(NamedTuple):
    """Objects of a and of b that were paired, (pairs,), in falling order of IoU."""

    a: I64
    b: I64


def match_best_first(iou: F64, floor: float, same: Mask | None = None) -> Pairs:
    """Pair objects one-to-one: of all pairs that are left, the one with the highest IoU.

    iou: (a, b). floor: pairs below it are never made. same: (a, b), preferred among pairs of equal
    IoU, such as those of one class; then the lower row and column. The pairs above a higher floor
    are the first of these.
    """
    rows, columns = np.nonzero((iou >= floor) & (iou > 0))
    values = iou[rows, columns]
    other = np.zeros(len(rows), bool) if same is None else ~same[rows, columns]
    order = np.lexsort((columns, rows, other, -values))
    used_a, used_b = set(), set()
    pairs: list[tuple[int, int]] = []
    for a, b in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if a not in used_a and b not in used_b:
            used_a.add(a)
            used_b.add(b)
            pairs.append((a, b))
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Pairs(found[:, 0], found[:, 1])


#: A part lies in the whole by this share of itself, and is not nearly all of it.
PART_SHARE = 0.5
WHOLE_IOU = 0.8


def find_splits(iou: F64, share: F64, same: Mask, pairs: Pairs) -> tuple[Mask, Mask]:
    """Objects of a, the wholes, in whose place b has several objects of the class, the parts.

    iou, share: (a, b); share: of each object of b that lies in each of a, see `shares_within`.
    same: (a, b), of one class. pairs: the class-blind matches.

    A part lies in the whole by half of itself or more and is paired with no other object. Two parts
    or more make a split; a part of two wholes belongs to the one that it covers best. A whole that
    b has too, by an IoU of 0.8, is not split.

    Returns which objects of a are split, (a,), and which of b are parts of one, (b,).
    """
    partner = np.full(iou.shape[1], -1)
    partner[pairs.b] = pairs.a
    rows = np.arange(iou.shape[0])
    free = (partner[None, :] < 0) | (partner[None, :] == rows[:, None])
    part = same & free & (share >= PART_SHARE)
    part[pairs.a[iou[pairs.a, pairs.b] >= WHOLE_IOU]] = False
    if not part.any():
        return np.zeros(iou.shape[0], bool), np.zeros(iou.shape[1], bool)
    best = np.where(part, share, -1.0).argmax(axis=0)
    part &= best[None, :] == rows[:, None]
    split = part.sum(axis=1) >= 2
    return split, (part & split[:, None]).any(axis=0)


def shares_within(
    both: F64, area_parts: F64, boxes_both: F64, box_area_parts: F64, crowd: Mask
) -> F64:
    """The share of each object of b that lies in each of a, (a, b).

    both: pixels in both masks; area_parts: (b,). boxes_both, box_area_parts: the same for bboxes,
    which count for the crowds of a, (a,): the mask of a crowd is rough, and need only be touched.
    """
    masks = np.divide(both, area_parts, out=np.zeros_like(both), where=area_parts > 0)
    boxes = np.divide(boxes_both, box_area_parts, out=np.zeros_like(both), where=box_area_parts > 0)
    return np.where(crowd[:, None], np.where(both > 0, boxes, 0.0), masks)


def cover_by_crowds(both: F64, area_b: F64, same: Mask, crowd_a: Mask) -> F64:
    """The share of each object of b that lies in one crowd of its class in a, at best, (b,).

    COCO's evaluation leaves out what a crowd covers: it is neither right nor wrong.
    """
    if not crowd_a.any() or not len(area_b):
        return np.zeros(len(area_b))
    share = np.divide(both, area_b[None, :], out=np.zeros_like(both), where=area_b[None, :] > 0)
    return np.asarray(np.where(same & crowd_a[:, None], share, 0.0).max(axis=0))
