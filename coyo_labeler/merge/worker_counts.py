"""The expected counts of the last E-step, written as the tables `confusions` and `skills`.

The driver writes one part of each where it holds all cells; else each shard writes its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.em.cells import CellSpace, CellTable
from coyo_labeler.em.segments import F64
from coyo_labeler.merge.earlier import SKILLS_FOLDER, skills_table
from coyo_labeler.merge.workers import confusions_table, count_pairs, right_votes


@dataclass(frozen=True)
class WorkerCounts:
    """right: (J,) expected right votes of each worker. pairs: as of `count_pairs`."""

    right: F64
    pairs: pa.Table


def write_counts(
    output: str,
    part: int,
    workers: Sequence[str],
    space: CellSpace,
    table: CellTable,
    counts: F64,
    shared: Sequence[int] = (),
) -> WorkerCounts:
    """Write part `part` of both tables; returns what these cells say of the workers.

    table, counts: (cells,) of the cells here. shared: see `count_pairs`.
    """
    for folder, rows in (
        ("confusions", confusions_table(workers, table, counts)),
        (SKILLS_FOLDER, skills_table(workers, space, table.keys, counts)),
    ):
        storage.write_parquet(storage.join(output, folder, f"part-{part:05d}.parquet"), rows)
    right = right_votes(table, counts, len(workers))
    return WorkerCounts(right, count_pairs(table, counts, shared))
