"""The M-step of worker skill: from expected counts to log probabilities.

    θ_j(z | y) = (α g(z | y) + n_j(y, z)) / (α + n_j(y, ·))
    g(z | y)   = (β h(z | y) + N(y, z)) / (β + N(y, ·))      `pooling: none`: g = h
    h(z | y)   = a if z = y, else (1 − a) / (C − 1)

n_j: expected counts of worker j; N: of all workers. Each worker is shrunk towards the pool by a
Dirichlet prior (Dawid & Skene 1979; Liao, Kar & Fidler 2021). Cells without a count are not stored.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from coyo_labeler.em.cells import CellTable
from coyo_labeler.em.exact_sum import ExactSum
from coyo_labeler.em.model import Model
from coyo_labeler.em.passes import pooled_pass, skill_pass
from coyo_labeler.em.segments import F64, I64, bin_sum
from coyo_labeler.em.threads import in_threads


@dataclass(frozen=True)
class Skill:
    """log_theta: (cells,). log_prior: () log Dirichlet density of all rows, 0 without counts."""

    log_theta: F64
    log_prior: ExactSum


@dataclass(frozen=True)
class PooledCounts:
    """Pooled counts of classes of which a table holds only some workers.

    cell: (n,) indices of pooled cells, count: (n,) N(y, z) of each. row: (m,) indices of pooled
    rows, row_count: (m,) N(y, ·) of each.
    """

    cell: I64
    count: F64
    row: I64
    row_count: F64


def estimate_skill(
    table: CellTable,
    counts: F64,
    model: Model,
    shared: PooledCounts | None = None,
    threads: int = 1,
) -> Skill:
    """θ of every cell from expected counts (cells,), and the log of its prior.

    θ is the mode of the posterior under a Dirichlet(α g + 1) prior. The log density of that prior,
    up to a constant, is

        −α Σ_rows KL(g ‖ θ) = Σ_rows (α log(α / (α + n·)) + Σ_z α g log(1 + n / (α g)))

    With `Model.shared_skill` θ is g, and has no prior.

    shared: the pooled counts of all workers, for classes of which `table` holds only some workers.
    threads: how many ranges of cells are computed side by side; the result does not depend on it.
    """
    alpha = model.prior_strength
    ranges = _ranges(table, threads)
    pooled = _pooled_skill(table, counts, model, shared, ranges)
    if model.shared_skill:
        with np.errstate(divide="ignore"):
            return Skill((np.log(pooled) + table.log_share)[table.pooled], ExactSum.zeros())
    with np.errstate(divide="ignore"):
        prior = pooled if alpha == 0 else alpha * pooled
        log_prior = np.log(prior)
    log_theta = np.empty(len(table.keys))
    pooled_cell = table.pooled.view(np.uint32)

    def work(begin: int, end: int) -> tuple[float, float]:
        return skill_pass(
            table.row, pooled_cell, counts, alpha, prior, log_prior, table.log_share,
            begin, end, log_theta,
        )  # fmt: skip

    parts = in_threads(work, ranges)
    log_theta[table.estimated :] = table.log_share[table.pooled[table.estimated :]]
    return Skill(log_theta, ExactSum.of_parts(parts))


def _pooled_skill(
    table: CellTable,
    counts: F64,
    model: Model,
    shared: PooledCounts | None,
    ranges: Sequence[tuple[int, int]],
) -> F64:
    """The pooled skill g, (pooled cells,)."""
    beta = model.pooling_strength
    if beta is None:
        return table.prior
    sums = np.zeros((2, len(table.pooled_row)))

    def work(begin: int, end: int) -> None:
        pooled_pass(table.pooled.view(np.uint32), counts, begin, end, sums)

    in_threads(work, ranges)
    pooled_counts = sums.sum(axis=0)
    rows = int(table.pooled_row.max()) + 1 if len(table.pooled_row) else 0
    row_counts = bin_sum(table.pooled_row, pooled_counts, rows)
    if shared is not None:
        pooled_counts[shared.cell] = shared.count
        row_counts[shared.row] = shared.row_count
    denominator = beta + row_counts[table.pooled_row]
    with np.errstate(divide="ignore", invalid="ignore"):
        pooled = (beta * table.prior + pooled_counts) / denominator
    return np.where(denominator > 0, pooled, table.prior)


def _ranges(table: CellTable, most: int) -> list[tuple[int, int]]:
    """The estimated cells in at most `most` ranges.

    No pooled row is cut, so each number is added up in one range, in the order of its cells.
    """
    count = table.estimated
    first = (
        bisect_left(range(count), row, key=lambda cell: table.pooled_row[table.pooled[cell]])
        for row in table.pooled_row[table.pooled[(np.arange(1, most) * count) // most]]
    )
    return list(pairwise(sorted({0, count, *first}))) if count else []
