"""Cells divided into shards, for skills that are too many for one machine to hold.

A shard owns a range of keys. Keys are ordered by true class, worker and voted class, so a shard
holds every row (class, worker) whole, and its M-step needs nothing from other shards except for
classes that lie across a bound: their pooled counts go to every shard that has a part of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.cells import CellSpace, CellTable, Pooling, describe_cells
from coyo_labeler.em.exact_sum import ExactSum
from coyo_labeler.em.model import Model
from coyo_labeler.em.segments import (
    F64,
    I32,
    I64,
    bin_sum,
    distinct,
    find,
    offsets_of,
)
from coyo_labeler.em.skill import PooledCounts, Skill, estimate_skill

#: Keys that represent all cells of a partition where bounds are looked for.
_SAMPLES = 2048


@dataclass(frozen=True)
class Shards:
    """bounds: (S + 1,) keys; shard s owns those in [bounds[s], bounds[s + 1])."""

    bounds: I64

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def cut(self, cells: I64) -> I64:
        """Where the sorted cells of a partition are cut, (S + 1,) offsets."""
        return np.searchsorted(cells, self.bounds)


def sample_cells(cells: I64) -> I64:
    """Some keys, evenly spaced among the sorted cells of a partition."""
    if len(cells) <= _SAMPLES:
        return np.array(cells)
    return cells[(np.arange(_SAMPLES) * len(cells)) // _SAMPLES]


def plan_shards(
    samples: Sequence[I64], lengths: Sequence[int], space: CellSpace, shards: int
) -> Shards:
    """Bounds that give every shard about as many cells, and cut no row of a worker.

    samples, lengths: `sample_cells` of each partition, and how many cells it has. The worker model
    is confusion. Cells of answers (a few per worker) belong to the last shard.
    """
    keys = np.concatenate([*samples, np.zeros(0, np.int64)])
    weights = np.concatenate(
        [
            *(np.full(len(s), n / max(len(s), 1)) for s, n in zip(samples, lengths, strict=True)),
            np.zeros(0),
        ]
    )
    order = np.argsort(keys, kind="stable")
    before = np.cumsum(weights[order]) - weights[order]
    wanted = np.arange(1, shards) * (weights.sum() / shards)
    inner = keys[order][np.minimum(np.searchsorted(before, wanted), max(len(keys) - 1, 0))]
    c = space.model.classes
    inner = np.minimum(inner // c * c, space.choices)
    inner = distinct(inner[(inner > 0) & (inner < space.choices)])
    return Shards(np.concatenate([[0], inner, [space.size]]).astype(np.int64))


def shared_classes(shards: Shards, space: CellSpace) -> list[I64]:
    """For each shard the classes that another shard has a part of too, sorted; two at most."""
    per_class = space.model.workers * space.model.classes
    split = np.where(shards.bounds % per_class != 0, shards.bounds // per_class, -1)
    split[0] = split[-1] = -1
    return [distinct(np.sort(pair[pair >= 0])) for pair in np.stack([split[:-1], split[1:]], 1)]


@dataclass(frozen=True)
class ClassCounts:
    """Pooled counts of one true class: voted (n,) sorted, count (n,)."""

    truth: int
    voted: I64
    count: ExactSum


def class_counts(cells: I64, counts: F64, truth: int, space: CellSpace) -> ClassCounts:
    """The counts of one class in the cells of a partition, all workers together."""
    c = space.model.classes
    per_class = space.model.workers * c
    start, stop = np.searchsorted(cells, [truth * per_class, (truth + 1) * per_class])
    voted = cells[start:stop] % c
    dense = ExactSum.of_bins(voted, counts[start:stop], c)
    seen = distinct(np.sort(voted))
    return ClassCounts(truth, seen, dense[seen])


@dataclass(frozen=True)
class ShardCells:
    """The cells of a shard, and where those of each partition are among them.

    cells: (n,) keys, sorted. pooled, pooled_key: of their table. index: the indices of each
    partition's cells among them, one partition after the other; offsets: (partitions + 1,).
    """

    cells: I64
    pooled: I32
    pooled_key: I64
    index: I32
    offsets: I64

    def index_of(self, partition: int) -> I32:
        """The indices of a partition's cells among all of the shard."""
        return self.index[self.offsets[partition] : self.offsets[partition + 1]]

    def table(self, space: CellSpace) -> CellTable:
        """The cells with what the M-step needs to know of each."""
        return describe_cells(space, self.cells, Pooling(self.pooled, self.pooled_key))


def gather_cells(slices: Sequence[I64], space: CellSpace) -> ShardCells:
    """The cells of a shard from those of each partition, sorted, in the order of partitions."""
    cells = distinct(np.sort(np.concatenate([*slices, np.zeros(0, np.int64)])))
    table = describe_cells(space, cells)
    index = [np.searchsorted(cells, own) for own in slices]
    return ShardCells(
        cells,
        table.pooled.astype(np.int32),
        table.pooled_key,
        np.concatenate([*index, np.zeros(0, np.int64)]).astype(np.int32),
        offsets_of(np.array([len(own) for own in slices], dtype=np.int64)),
    )


def shard_skill(
    table: CellTable, counts: F64, shared: Sequence[ClassCounts], model: Model
) -> Skill:
    """The M-step of one shard. counts: (cells,); shared: all counts of classes across bounds."""
    if not shared or model.pooling_strength is None:
        return estimate_skill(table, counts, model)
    width = max(model.classes, 3)
    cells: list[NDArray[np.int64]] = []
    numbers: list[F64] = []
    totals: list[F64] = []
    for each in shared:
        index, known = find(table.pooled_key, each.truth * width + each.voted)
        cells.append(index[known])
        count = each.count.total()
        numbers.append(count[known])
        totals.append(bin_sum(np.zeros(len(count), np.int64), count, 1))  # in the order of classes
    truths = np.array([each.truth for each in shared])
    row, known = find(distinct(table.pooled_key // width), truths)
    row_totals = np.concatenate(totals)[known]
    pooled = PooledCounts(np.concatenate(cells), np.concatenate(numbers), row[known], row_totals)
    return estimate_skill(table, counts, model, pooled)


def add_class_counts(parts: Sequence[ClassCounts], classes: int) -> list[ClassCounts]:
    """The counts of each class over all partitions, by class."""
    added: list[ClassCounts] = []
    for truth in sorted({part.truth for part in parts}):
        own = [part for part in parts if part.truth == truth]
        voted = np.concatenate([part.voted for part in own])
        dense = ExactSum.concatenate([part.count for part in own]).by_bin(voted, classes)
        seen = distinct(voted)
        added.append(ClassCounts(truth, seen, dense[seen]))
    return added
