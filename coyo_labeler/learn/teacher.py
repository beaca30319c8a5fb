"""The teacher's beliefs of given images, from files of any names and order.

The footer of a file says which ids each row group can hold; only those are read that can hold some
of the wanted ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.columns import cast_table, check_types
from coyo_labeler.formats.label_lists import LabelLists, check_label_lists, read_label_lists
from coyo_labeler.formats.parquet_splits import bound_row_groups, parquet_files, read_footers
from coyo_labeler.learn.softmax import F32

I64 = NDArray[np.int64]

#: What is left to each class that a belief does not list, at least.
_LEAST = np.float32(1e-9)
#: The least that a belief leaves over to all classes that it does not list, as in merge.
_FLOOR = 1e-4


@dataclass(frozen=True)
class RowGroups:
    """The row groups of all files of beliefs. Arrays: (groups,)."""

    files: tuple[str, ...]
    file: I64
    group: I64
    lowest: I64
    highest: I64


def index_beliefs(url: str) -> RowGroups:
    """The row groups of beliefs, or of the posterior of a merge.

    Raises: InputError naming a file that is not readable or lacks a column.
    """
    folder = storage.locate(url, "posterior")
    files = parquet_files("beliefs", folder, "give what label or merge wrote")
    entries: list[tuple[int, int, int, int]] = []
    for number, metadata in enumerate(read_footers("beliefs", files)):
        present = metadata.schema.to_arrow_schema()
        check_types("beliefs", files[number], present, schemas.BELIEFS, optional=schemas.CARRIED)
        entries.extend(
            (number, group.number, group.lowest, group.highest)
            for group in bound_row_groups(metadata, "id")
        )
    columns = np.array(entries, np.int64).reshape(-1, 4).T
    return RowGroups(tuple(files), *columns)


def read_beliefs(index: RowGroups, image: I64) -> pa.Table:
    """The rows (schemas.BELIEFS) of the images (n,), in the order of their ids.

    Raises: InputError where an id has two rows.
    """
    wanted = np.unique(image)
    tables = [schemas.BELIEFS.empty_table()]
    if len(wanted):
        first = np.searchsorted(wanted, index.lowest)
        last = np.searchsorted(wanted, index.highest, side="right")
        for file in np.unique(index.file[first < last]):
            groups = index.group[(index.file == file) & (first < last)]
            tables.append(_read_groups(index.files[file], groups.tolist(), wanted))
    table = pa.concat_tables(tables).sort_by("id").combine_chunks()
    ids = table["id"].to_numpy()
    twice = np.flatnonzero(ids[1:] == ids[:-1])
    if len(twice):
        raise InputError(
            f"beliefs: id {ids[twice[0]]} has two rows; an id must occur once, drop one"
        )
    return table


def _read_groups(url: str, groups: Sequence[int], wanted: I64) -> pa.Table:
    tables = []
    with storage.open_parquet("beliefs", url) as parquet:
        for group in groups:
            with storage.parsing_parquet("beliefs", url):
                read = parquet.read_row_group(group, columns=schemas.BELIEFS.names)
            read = cast_table(read, schemas.BELIEFS, f"beliefs: {url}", 0)
            ids = read["id"].to_numpy()
            place = np.minimum(np.searchsorted(wanted, ids), len(wanted) - 1)
            tables.append(read.filter(pa.array(wanted[place] == ids)))
    return pa.concat_tables(tables)


def log_beliefs(table: pa.Table, classes: I64, of_classes: int) -> F32:
    """Log probabilities of some classes, normalised over them, (n, C).

    What a belief leaves over is spread evenly over the classes that it does not list.
    """
    lists = checked_lists(table, of_classes)
    share = _spread_share(lists, of_classes)
    dense = np.repeat(share[:, np.newaxis].astype(np.float32), len(classes), axis=1)
    column = np.full(of_classes, -1, np.int64)
    column[classes] = np.arange(len(classes))
    row = np.repeat(np.arange(len(lists.image)), lists.lengths)
    known = column[lists.label] >= 0
    scale = _scale(lists)
    dense[row[known], column[lists.label][known]] = (
        lists.probability[known] * np.repeat(scale, lists.lengths)[known]
    ).astype(np.float32)
    dense = np.maximum(dense, _LEAST)
    dense /= dense.sum(axis=1, keepdims=True)
    return np.asarray(np.log(dense, out=dense))


def mass_elsewhere(table: pa.Table, classes: I64, of_classes: int) -> NDArray[np.float64]:
    """The belief in all classes but some, (n,); classes: these."""
    lists = checked_lists(table, of_classes)
    share = _spread_share(lists, of_classes)
    inside = np.zeros(of_classes, dtype=bool)
    inside[classes] = True
    row = np.repeat(np.arange(len(lists.image)), lists.lengths)
    other = ~inside[lists.label]
    values = lists.probability * np.repeat(_scale(lists), lists.lengths)
    listed = np.bincount(row[other], values[other], len(lists.image))
    listed_others = np.bincount(row[other], minlength=len(lists.image))
    return np.asarray(listed + share * (of_classes - len(classes) - listed_others))


def checked_lists(table: pa.Table, of_classes: int) -> LabelLists:
    """The lists of beliefs. Raises: InputError naming an image whose list is wrong."""
    lists = read_label_lists(table, "beliefs")
    check_label_lists(lists, "beliefs", classes=of_classes, distinct=True)
    return lists


def _scale(lists: LabelLists) -> NDArray[np.float64]:
    """What probabilities are multiplied with, so that they and the rest sum to one, (n,)."""
    row = np.repeat(np.arange(len(lists.image)), lists.lengths)
    total = np.bincount(row, lists.probability, len(lists.image))
    return np.asarray((1 - np.maximum(1 - total, _FLOOR)) / np.maximum(total, 1e-30))


def _spread_share(lists: LabelLists, of_classes: int) -> NDArray[np.float64]:
    """What each class that an image's belief does not list has of it, (n,)."""
    row = np.repeat(np.arange(len(lists.image)), lists.lengths)
    total = np.bincount(row, lists.probability, len(lists.image))
    others = of_classes - lists.lengths
    return np.asarray(
        np.where(others > 0, np.maximum(1 - total, _FLOOR) / np.maximum(others, 1), 0)
    )
