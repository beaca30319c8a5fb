"""Tallies of parts of the data, aggregated into those of the whole and cut to what is shown.

A tally is packed into rows by (measure, name, bucket). One task adds up all rows of such a group.
Pairs, scores and examples are then cut to what the report shows, so that little travels.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

import numpy as np
import pyarrow as pa

from coyo_labeler.report.ranking import listed_areas
from coyo_labeler.report.sums import PACKED, Aggregates, Cells, Ledger
from coyo_labeler.report.tally import EXAMPLES, MATRIX_CLASSES, PAIRS, SCORES, Tally
from coyo_labeler.report.tree_tally import TreeTally

#: Buckets of classes that pairs and scores are split into, so that many tasks add them up.
BUCKETS = 32

Packed = tuple[str, str, int, bytes]


def tally_batches(
    batches: Iterable[pa.RecordBatch], classes: int, examples: int, tree: TreeTally | None = None
) -> Iterator[pa.RecordBatch]:
    """The packed tally (PACKED) of some rows of labels."""
    tally = Tally(classes, examples, tree)
    for batch in batches:
        tally.add(batch)
    for (measure, name), cells in tally.total().items():
        split = measure in PAIRS or measure in SCORES
        buckets = cells.a % BUCKETS if split else np.zeros(len(cells.key), dtype=np.int64)
        for bucket in np.unique(buckets):
            yield _row(measure, name, int(bucket), cells[buckets == bucket])


def add_batches(
    batches: Iterable[pa.RecordBatch], classes: int, examples: int, top: int
) -> Iterator[pa.RecordBatch]:
    """The packed sums of packed tallies, which must be sorted by (measure, name, bucket)."""
    for (measure, name, bucket), group in groupby(_rows(batches), itemgetter(0, 1, 2)):
        ledger = Ledger()
        for *_, stream in group:
            ledger.put(measure, Cells.unpacked(stream))
        for _, cells in ledger.items():
            yield _row(measure, name, bucket, _cut(measure, cells, classes, examples, top))


def unpack(packed: pa.Table) -> Aggregates:
    """The aggregates of all rows, from the packed sums of all buckets."""
    ledger = Ledger()
    for measure, name, _, stream in _rows(packed.to_batches()):
        ledger.put(measure, Cells.unpacked(stream), name)
    return Aggregates.of(ledger)


def _cut(measure: str, cells: Cells, classes: int, examples: int, top: int) -> Cells:
    if measure in EXAMPLES:
        return extremes(cells, examples)
    if measure in SCORES:
        return listed_areas(cells)
    if measure in PAIRS and classes > MATRIX_CLASSES:
        return most_frequent(cells, top)
    return cells


def extremes(cells: Cells, examples: int | None = None) -> Cells:
    """The `examples` images with the highest scores, the highest first; ties by id."""
    return cells[np.lexsort((cells.key, -cells.total))[:examples]]


def most_frequent(cells: Cells, top: int) -> Cells:
    """The `top` most frequent pairs of different classes, in falling order; ties by class."""
    different = cells[cells.a != cells.b]
    return different[np.lexsort((different.key, -different.count))[:top]]


def _row(measure: str, name: str, bucket: int, cells: Cells) -> pa.RecordBatch:
    columns = [pa.array([measure]), pa.array([name]), pa.array([bucket], pa.int32())]
    return pa.RecordBatch.from_arrays([*columns, pa.array([cells.packed()])], schema=PACKED)


def _rows(batches: Iterable[pa.RecordBatch]) -> Iterator[Packed]:
    for batch in batches:
        yield from zip(*(batch.column(name).to_pylist() for name in PACKED.names), strict=True)
