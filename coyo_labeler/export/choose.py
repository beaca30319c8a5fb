"""Which labels of an image are kept, and which images: pure, on Arrow tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_lists import check_label_lists, read_label_lists

I64 = npt.NDArray[np.int64]


class Reason(StrEnum):
    """Why a row of labels is not in the copy."""

    NO_LABELS = "no_labels"  # its list was empty
    BELOW_THRESHOLD = "below_threshold"  # no label reaches the threshold
    TOO_FEW_LABELS = "too_few_labels"  # some do, but fewer than min_labels
    NO_IMAGE = "no_image"  # no tar holds its image
    UNREADABLE_IMAGE = "unreadable_image"  # it must be converted, and does not decode


@dataclass(frozen=True)
class Choice:
    """What to keep: labels of at least `threshold`, at most `max_labels` of them per image, and
    images that have at least `min_labels` left. classes: size of the label space.
    """

    threshold: float
    min_labels: int
    max_labels: int | None
    classes: int


def choose(rows: pa.Table, choice: Choice) -> tuple[pa.Table, pa.Table]:
    """The rows to keep, their lists cut, and the others (schemas.EXPORT_REJECTS).

    rows: `id`, `labels` and `label_probs`, lists by falling probability (a null list is an empty
    one), and any further columns. Thresholds are compared in double precision, as report's are.

    Raises: InputError naming the image whose lists are broken.
    """
    rows = rows.combine_chunks()
    source = "export: labels"
    lists = read_label_lists(rows, source)
    check_label_lists(lists, source, classes=choice.classes, falling=True)
    lengths, values = lists.lengths, lists.probability
    image = np.repeat(np.arange(len(lengths)), lengths)
    rank = np.arange(len(values)) - np.repeat(lists.offsets[:-1], lengths)
    kept = values >= choice.threshold
    left = np.bincount(image[kept], minlength=len(lengths))
    if choice.max_labels is not None:
        kept &= rank < choice.max_labels
    counts = np.bincount(image[kept], minlength=len(lengths))
    passed = left >= choice.min_labels
    offsets = pa.array(np.append(0, np.cumsum(counts)), pa.int32())
    for name, entries in (("labels", lists.label), ("label_probs", lists.probability)):
        index = rows.schema.get_field_index(name)
        cut = pa.ListArray.from_arrays(offsets, pa.array(entries[kept]))
        rows = rows.set_column(index, rows.schema.field(index), cut.cast(rows.schema[index].type))
    first = np.full(len(lengths), np.nan)
    some = lengths > 0
    first[some] = values[lists.offsets[:-1][some]]
    rejects = _rejects(rows["id"], lengths, left, first, ~passed)
    return rows.filter(pa.array(passed)), rejects


def rejected(ids: pa.Array, reason: Reason, details: list[str | None]) -> pa.Table:
    """Rejects of one reason."""
    columns = [ids.cast(pa.int64()), pa.array([str(reason)] * len(ids)), pa.array(details)]
    return pa.table(columns, schema=schemas.EXPORT_REJECTS)


def count_reasons(rejects: pa.Table) -> Mapping[str, int]:
    """Rows by reason."""
    counted = pc.value_counts(rejects["reason"]).to_pylist()
    return {entry["values"]: entry["counts"] for entry in counted}


def _rejects(
    ids: pa.ChunkedArray,
    lengths: I64,
    left: I64,
    first: npt.NDArray[np.float64],
    out: npt.NDArray[np.bool_],
) -> pa.Table:
    where = np.flatnonzero(out)
    empty, none_left = lengths[where] == 0, left[where] == 0
    names = np.array([Reason.NO_LABELS, Reason.BELOW_THRESHOLD, Reason.TOO_FEW_LABELS], object)
    reasons = names[np.where(empty, 0, np.where(none_left, 1, 2))]
    kept = pa.array(left[where]).cast(pa.string())
    highest = pa.array(first[where].astype(np.float32)).cast(pa.string())
    texts = pc.binary_join_element_wise(
        kept, pa.scalar(" labels left; the highest has "), highest, ""
    )
    details = pc.if_else(pa.array(empty), pa.scalar(None, pa.string()), texts)
    columns = [ids.take(pa.array(where)), pa.array(reasons, pa.string()), details]
    return pa.table(columns, schema=schemas.EXPORT_REJECTS)
