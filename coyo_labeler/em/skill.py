"""The M-step of worker skill: from expected counts to log probabilities.

    θ_j(z | y) = (α g(z | y) + n_j(y, z)) / (α + n_j(y, ·))
    g(z | y)   = (β h(z | y) + N(y, z)) / (β + N(y, ·))      `pooling: none`: g = h
    h(z | y)   = a if z = y, else (1 − a) / (C − 1)

n_j: expected counts of worker j; N: of all workers. Each worker is shrunk towards the pool by a
Dirichlet prior (Dawid & Skene 1979; Liao, Kar & Fidler 2021). Cells without a count are not stored.
"""

from dataclasses import dataclass

import numpy as np

from coyo_labeler.em.cells import CellTable
from coyo_labeler.em.exact_sum import ExactSum
from coyo_labeler.em.model import Model
from coyo_labeler.em.segments import F64, I64, bin_sum


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
    table: CellTable, counts: F64, model: Model, shared: PooledCounts | None = None
) -> Skill:
    """θ of every cell from expected counts (cells,), and the log of its prior.

    θ is the mode of the posterior under a Dirichlet(α g + 1) prior. The log density of that prior,
    up to a constant, is

        −α Σ_rows KL(g ‖ θ) = Σ_rows (α log(α / (α + n·)) + Σ_z α g log(1 + n / (α g)))

    shared: the pooled counts of all workers, for classes of which `table` holds only some workers.
    """
    alpha = model.prior_strength
    counts = np.where(table.estimated, counts, 0.0)
    pooled = _pooled_skill(table, counts, model, shared)
    row_counts = bin_sum(table.row, counts, table.rows)
    denominator = alpha + row_counts[table.row]
    with np.errstate(divide="ignore", invalid="ignore"):
        theta = np.where(denominator > 0, (alpha * pooled + counts) / denominator, pooled)
        log_theta = np.log(theta) + table.log_share
    log_theta[~table.estimated] = table.log_share[~table.estimated]
    if alpha == 0:
        return Skill(log_theta, ExactSum.zeros())
    shrunk = np.where(pooled > 0, alpha * pooled, 1.0)
    cells = np.where(pooled > 0, alpha * pooled * np.log1p(counts / shrunk), 0.0)
    log_prior = ExactSum.of(cells) - ExactSum.of(alpha * np.log1p(row_counts / alpha))
    return Skill(log_theta, log_prior)


def _pooled_skill(table: CellTable, counts: F64, model: Model, shared: PooledCounts | None) -> F64:
    """The pooled skill g of each cell, (cells,)."""
    beta = model.pooling_strength
    if beta is None:
        return table.prior
    pooled_counts = ExactSum.of_bins(table.pooled, counts, len(table.pooled_row)).total()
    rows = int(table.pooled_row.max()) + 1 if len(table.pooled_row) else 0
    row_counts = bin_sum(table.pooled_row, pooled_counts, rows)
    if shared is not None:
        pooled_counts[shared.cell] = shared.count
        row_counts[shared.row] = shared.row_count
    denominator = beta + row_counts[table.pooled_row][table.pooled]
    with np.errstate(divide="ignore", invalid="ignore"):
        pooled = (beta * table.prior + pooled_counts[table.pooled]) / denominator
    return np.where(denominator > 0, pooled, table.prior)
