"""The column `candidates` of votes: sets of classes, as lists or as text."""

import json
import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coyo_labeler.em.segments import distinct
from coyo_labeler.formats.class_names import classes_or_null
from coyo_labeler.formats.columns import is_text, without_views
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.votes.nodes import Nodes

#: What stands between the classes of a text.
_BETWEEN = re.compile(r"[\s,;|]+")


@dataclass(frozen=True)
class Sets:
    """The set of each row, with what is wrong with it; all (n,).

    classes: lists of int32, sorted and distinct; null where a row has none. missing: the row was
    asked for and has no class. bad: one is no class. outside: one is outside the label space.
    """

    classes: pa.Array
    missing: NDArray[np.bool_]
    bad: NDArray[np.bool_]
    outside: NDArray[np.bool_]


def read_sets(
    column: pa.ChunkedArray | pa.Array | None,
    wanted: NDArray[np.bool_],
    space: LabelSpace,
    nodes: Nodes | None = None,
) -> Sets:
    """The sets of the rows that are wanted (n,); the others are not looked at.

    column: lists of classes (numbers or names), or texts such as "3 17 29" or "[3, 17, 29]".
    nodes: where a class, or a node above, stands for all classes at or below it.
    """
    n = len(wanted)
    missing, bad, outside = (np.zeros(n, dtype=bool) for _ in range(3))
    rows = np.flatnonzero(wanted)
    if column is None or len(rows) == 0:
        missing[rows] = True
        return Sets(pa.nulls(n, pa.list_(pa.int32())), missing, bad, outside)
    lists = _lists(column, rows)
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0)).astype(np.int64)
    of_row = np.repeat(np.arange(len(rows)), lengths)
    values = pc.list_flatten(lists)
    number = classes_or_null(values, space)
    outside_number = pc.or_(pc.less(number, 0), pc.greater_equal(number, space.size))
    outside[rows[of_row[np.asarray(pc.fill_null(outside_number, False)).astype(bool)]]] = True
    if nodes is not None:
        number = nodes.numbers(values, number)
    known = np.asarray(pc.is_valid(number)).astype(bool)
    label = np.asarray(pc.fill_null(number, -1).to_numpy(zero_copy_only=False)).astype(np.int64)
    bad[rows[of_row[~known]]] = True
    missing[rows[lengths == 0]] = True
    usable = ~(missing | bad | outside)[rows]
    kept = usable[of_row]
    width = int(label.max(initial=0)) + 1
    row, label = np.divmod(distinct(rows[of_row[kept]] * width + label[kept]), width)
    sizes = np.bincount(row, minlength=n)
    offsets = pa.array(np.append(0, np.cumsum(sizes)), pa.int32())
    classes = pa.ListArray.from_arrays(
        offsets, pa.array(label, pa.int32()), mask=pa.array(sizes == 0)
    )
    return Sets(classes if nodes is None else nodes.close(classes), missing, bad, outside)


def count_offered(column: pa.ChunkedArray | pa.Array | None, choice: NDArray[np.bool_]) -> pa.Array:
    """How many classes each choice was offered, (n,) int32; 0 where that is not known.

    column: as of `read_sets`. choice: (n,), the rows to be counted.
    """
    counts = np.zeros(len(choice), dtype=np.int32)
    rows = np.flatnonzero(choice)
    if column is not None and len(rows):
        lengths = pc.list_value_length(_lists(column, rows))
        counts[rows] = np.asarray(pc.fill_null(lengths, 0))
    return pa.array(counts)


def _lists(column: pa.ChunkedArray | pa.Array, rows: NDArray[np.int64]) -> pa.Array:
    """The lists of some rows, also of those that are texts."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    lists = without_views(without_views(column).take(pa.array(rows)))
    if is_text(lists.type) or pa.types.is_null(lists.type):
        lists = _split(lists.cast(pa.string()))
    return lists


def _split(texts: pa.Array) -> pa.Array:
    """Texts as lists of texts, null where they are null. What is no list of classes stays whole."""
    encoded = texts.dictionary_encode()
    lists = [_classes_of(text) for text in encoded.dictionary.to_pylist()]
    return pa.array(lists, pa.list_(pa.string())).take(encoded.indices)


def _classes_of(text: str) -> list[str]:
    text = text.strip()
    if text.startswith("["):
        try:
            values = json.loads(text)
        except ValueError:  # such as [3 17 29], which NumPy prints
            return [part for part in _BETWEEN.split(text.strip("[]")) if part]
        if all(isinstance(value, int | str) for value in values):
            return [str(value) for value in values]
        return [text]
    return [part for part in _BETWEEN.split(text) if part]
