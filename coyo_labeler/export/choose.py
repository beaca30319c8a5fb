"""Which labels of an image are kept, and which images: pure, on Arrow tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas

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
    """What to keep: labels of at least `threshold`, at most `max_labels` of them an image, and
    images that have at least `min_labels` left. classes: size of the label space.
    """

    threshold: float
    min_labels: int
    max_labels: int | None
    classes: int


def choose(rows: pa.Table, choice: Choice) -> tuple[pa.Table, pa.Table]:
    """The rows to keep, their lists cut, and the others (schemas.EXPORT_REJECTS).

    rows: `labels` and `label_probs`, lists by falling probability (a null list is an empty one),
    and any further columns. Thresholds are compared in double precision, as report's are.

    Raises: InputError naming the image whose lists are broken.
    """
    rows = rows.combine_chunks()
    labels, probs = (_column(rows, name) for name in ("labels", "label_probs"))
    lengths = _lengths(labels)
    values = _check(rows, lengths, labels, probs, choice.classes)
    image = np.repeat(np.arange(len(lengths)), lengths)
    rank = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept = values >= choice.threshold
    left = np.bincount(image[kept], minlength=len(lengths))
    if choice.max_labels is not None:
        kept &= rank < choice.max_labels
    counts = np.bincount(image[kept], minlength=len(lengths))
    passed = left >= choice.min_labels
    offsets = pa.array(np.append(0, np.cumsum(counts)), pa.int32())
    mask = pa.array(kept)
    for name, column in (("labels", labels), ("label_probs", probs)):
        place = rows.schema.get_field_index(name)
        cut = pa.ListArray.from_arrays(offsets, column.flatten().filter(mask))
        rows = rows.set_column(place, rows.schema.field(place), cut.cast(rows.schema[place].type))
    first = np.full(len(lengths), np.nan)
    some = lengths > 0
    first[some] = values[(np.cumsum(lengths) - lengths)[some]]
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


def _column(rows: pa.Table, name: str) -> pa.ListArray:
    column = rows[name]
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _lengths(column: pa.ListArray) -> I64:
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    return np.asarray(lengths).astype(np.int64)


def _check(
    rows: pa.Table, lengths: I64, labels: pa.ListArray, probs: pa.ListArray, classes: int
) -> npt.NDArray[np.float64]:
    """The probabilities, flattened; all lists are found whole."""
    other = _lengths(probs)
    if not np.array_equal(lengths, other):
        at = int(np.flatnonzero(lengths != other)[0])
        _refuse(rows, at, f"has {lengths[at]} labels but {other[at]} probabilities")
    image = np.repeat(np.arange(len(lengths)), lengths)
    classes_of = np.asarray(labels.flatten().to_numpy(zero_copy_only=False))
    outside = ~((classes_of >= 0) & (classes_of < classes))
    if outside.any():
        at = int(np.flatnonzero(outside)[0])
        _refuse(
            rows,
            int(image[at]),
            f"has the label {classes_of[at]}, which is outside label_space (0..{classes - 1}); set "
            "label_space to the one that these labels index",
        )
    values = np.asarray(probs.flatten().to_numpy(zero_copy_only=False)).astype(np.float64)
    strange = ~((values >= 0) & (values <= 1))  # NaN is in no range
    if strange.any():
        at = int(np.flatnonzero(strange)[0])
        _refuse(rows, int(image[at]), f"has the probability {values[at]}, not between 0 and 1")
    rises = (np.diff(values) > 0) & (np.diff(image) == 0)
    if rises.any():
        at = int(image[np.flatnonzero(rises)[0]])
        _refuse(rows, at, "has labels that are not sorted by falling probability; sort them first")
    return values


def _refuse(rows: pa.Table, at: int, what: str) -> None:
    remedy = "" if ";" in what else "; write that row again"
    raise InputError(f"export: labels: id {rows['id'][at]} {what}{remedy}")


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
    told = pc.binary_join_element_wise(
        kept, pa.scalar(" labels left; the highest has "), highest, ""
    )
    details = pc.if_else(pa.array(empty), pa.scalar(None, pa.string()), told)
    columns = [ids.take(pa.array(where)), pa.array(reasons, pa.string()), details]
    return pa.table(columns, schema=schemas.EXPORT_REJECTS)
