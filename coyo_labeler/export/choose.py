"""Chooses the images to export and the labels of each; works on Arrow tables, without I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler.export.roll_up import RollUp, roll_up
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_lists import check_label_lists, read_label_lists

I64 = npt.NDArray[np.int64]


class Reason(StrEnum):
    """Why a row of labels is not in the copy."""

    NO_LABELS = "no_labels"  # its list was empty
    BELOW_THRESHOLD = "below_threshold"  # no label reaches the threshold
    TOO_FEW_LABELS = "too_few_labels"  # some do, but fewer than min_labels
    NO_IMAGE = "no_image"  # no tar holds its image
    UNREADABLE_IMAGE = "unreadable_image"  # it must be converted but does not decode


@dataclass(frozen=True)
class Choice:
    """What to keep: labels of at least `threshold`, at most `max_labels` of them per image, and
    images that have at least `min_labels` left. classes: size of the label space. roll_up: what
    becomes of the lists before that; None: nothing.
    """

    threshold: float
    min_labels: int
    max_labels: int | None
    classes: int
    roll_up: RollUp | None = None


def choose(rows: pa.Table, choice: Choice) -> tuple[pa.Table, pa.Table]:
    """The rows to keep, with their lists cut, and the rejects (schemas.EXPORT_REJECTS).

    rows: `id`, `labels` and `label_probs`, lists by probability descending (a null list is empty),
    and any further columns. Thresholds are compared in double precision, as in report.

    Raises: InputError naming the image whose lists are invalid.
    """
    rows = rows.combine_chunks()
    source = "export: labels"
    lists = read_label_lists(rows, source)
    check_label_lists(lists, source, classes=choice.classes, falling=True)
    if choice.roll_up is not None:
        lists = roll_up(lists, choice.roll_up)
    lengths, values = lists.lengths, lists.probability
    image = np.repeat(np.arange(len(lengths)), lengths)
    rank = np.arange(len(values)) - np.repeat(lists.offsets[:-1], lengths)
    chosen = values >= choice.threshold
    above = np.bincount(image[chosen], minlength=len(lengths))
    if choice.max_labels is not None:
        chosen &= rank < choice.max_labels
    counts = np.bincount(image[chosen], minlength=len(lengths))
    passed = above >= choice.min_labels
    offsets = pa.array(np.append(0, np.cumsum(counts)), pa.int32())
    for name, entries in (("labels", lists.label), ("label_probs", lists.probability)):
        index = rows.schema.get_field_index(name)
        cut = pa.ListArray.from_arrays(offsets, pa.array(entries[chosen]))
        rows = rows.set_column(index, rows.schema.field(index), cut.cast(rows.schema[index].type))
    first = np.full(len(lengths), np.nan)
    some = lengths > 0
    first[some] = values[lists.offsets[:-1][some]]
    rejects = _rejects(rows["id"], lengths, above, first, ~passed)
    return rows.filter(pa.array(passed)), rejects


def rejects_of(ids: pa.Array, reason: Reason, details: list[str | None]) -> pa.Table:
    """Rejects for one reason. details: one per id."""
    columns = [ids.cast(pa.int64()), pa.array([str(reason)] * len(ids)), pa.array(details)]
    return pa.table(columns, schema=schemas.EXPORT_REJECTS)


def count_reasons(rejects: pa.Table) -> Mapping[str, int]:
    """Rows by reason."""
    counts = pc.value_counts(rejects["reason"]).to_pylist()
    return {entry["values"]: entry["counts"] for entry in counts}


def _rejects(
    ids: pa.ChunkedArray,
    lengths: I64,
    above: I64,
    first: npt.NDArray[np.float64],
    rejected: npt.NDArray[np.bool_],
) -> pa.Table:
    """The rejects of the masked rows.

    lengths, above: (rows,) labels of each row, and how many reach the threshold. first: (rows,)
    the highest probability.
    """
    rows = np.flatnonzero(rejected)
    empty, none_above = lengths[rows] == 0, above[rows] == 0
    names = np.array([Reason.NO_LABELS, Reason.BELOW_THRESHOLD, Reason.TOO_FEW_LABELS], object)
    reasons = names[np.where(empty, 0, np.where(none_above, 1, 2))]
    counts = pa.array(above[rows]).cast(pa.string())
    highest = pa.array(first[rows].astype(np.float32)).cast(pa.string())
    texts = pc.binary_join_element_wise(
        counts, pa.scalar(" labels left; the highest has "), highest, ""
    )
    details = pc.if_else(pa.array(empty), pa.scalar(None, pa.string()), texts)
    columns = [ids.take(pa.array(rows)), pa.array(reasons, pa.string()), details]
    return pa.table(columns, schema=schemas.EXPORT_REJECTS)
