"""What EM estimated about each worker: the tables `workers` and `confusions`."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import betaincinv

from coyo_labeler.em.cells import CellTable
from coyo_labeler.em.model import Model
from coyo_labeler.em.segments import F64, bin_sum, distinct
from coyo_labeler.em.tallies import ANSWERS, CHOICES, UNSURE
from coyo_labeler.formats import schemas

#: The interval of `accuracy_low` and `accuracy_high`.
_LOW, _HIGH = 0.05, 0.95
#: Pairs of classes that are kept for each part of the cells.
_MOST_PAIRS = 1000


def right_votes(table: CellTable, counts: F64, workers: int) -> F64:
    """Expected right votes of each worker, (J,); counts: (cells,) expected."""
    cells = table.decode()
    return bin_sum(cells.worker[cells.right], counts[cells.right], workers)


def workers_table(
    names: Sequence[str], tally: NDArray[np.int64], right: F64, model: Model
) -> pa.Table:
    """One row per worker, as schemas.WORKERS.

    tally: (J, 5) `em.tallies.Tallies`; right: (J,) `right_votes`. accuracy: the mean of the Beta
    distribution that a prior worth α votes becomes with the expected right and wrong votes (unsure
    ones do not count); accuracy_low and accuracy_high: its 5 % and 95 % points. log_odds_vs_random:
    its log-odds minus those of guessing, which is right once in C choices and once in two answers.
    All are null for workers taken to be perfect.
    """
    total = tally[:, : UNSURE + 1].sum(axis=1)
    if model.worker_model == "perfect":
        nothing = pa.nulls(len(names), pa.float64())
        return pa.table([pa.array(names), total, *[nothing] * 4], schema=schemas.WORKERS)
    judged = tally[:, CHOICES] + tally[:, ANSWERS]
    right = np.minimum(right, judged)
    mean = model.prior_accuracy
    if model.pooling_strength is not None and judged.sum() + model.pooling_strength > 0:
        pooled = model.pooling_strength * mean + right.sum()
        mean = pooled / (model.pooling_strength + judged.sum())
    strength = model.prior_strength
    # With no prior at all a worker who never erred would have no interval: Jeffreys' prior then.
    prior = np.array([strength * mean, strength * (1 - mean)]) if strength > 0 else np.full(2, 0.5)
    plus, minus = prior[0] + right, prior[1] + judged - right
    accuracy = plus / (plus + minus)
    guessing = (tally[:, CHOICES] / model.classes + tally[:, ANSWERS] / 2) / np.maximum(judged, 1)
    guessing = np.where(judged > 0, guessing, 0.5)
    return pa.table(
        [
            pa.array(names),
            total,
            accuracy,
            betaincinv(plus, minus, _LOW),
            betaincinv(plus, minus, _HIGH),
            np.log(plus) - np.log(minus) - np.log(guessing) + np.log1p(-guessing),
        ],
        schema=schemas.WORKERS,
    )


def count_pairs(table: CellTable, counts: F64, shared: Sequence[int] = ()) -> pa.Table:
    """Expected votes of all workers by true and voted class, where these differ.

    Only the `_MOST_PAIRS` most frequent pairs are listed, and all pairs of the true classes that
    are `shared` with other shards, for these counts are only a part of theirs. Columns true_label
    and voted_label (int32), count (float64).
    """
    cells = table.decode()
    wrong = np.flatnonzero((cells.truth >= 0) & (cells.truth != cells.voted) & (counts > 0))
    pooled = np.zeros(len(table.pooled_key))
    np.add.at(pooled, table.pooled[wrong], counts[wrong])
    seen = distinct(np.sort(table.pooled[wrong].astype(np.int64)))
    first = np.zeros(len(pooled), dtype=np.int64)
    first[table.pooled[wrong]] = wrong
    top = seen[np.argsort(-pooled[seen], kind="stable")[:_MOST_PAIRS]]
    kept = distinct(
        np.sort(np.concatenate([top, seen[np.isin(cells.truth[first[seen]], list(shared))]]))
    )
    return pa.table(
        {
            "true_label": cells.truth[first[kept]].astype(np.int32),
            "voted_label": cells.voted[first[kept]].astype(np.int32),
            "count": pooled[kept],
        }
    )


def confusions_table(names: Sequence[str], table: CellTable, counts: F64) -> pa.Table:
    """Expected confusion counts above zero, as schemas.CONFUSIONS, by worker and classes."""
    cells = table.decode()
    kept = np.flatnonzero((cells.truth >= 0) & (cells.voted >= 0) & (counts > 0))
    order = kept[np.lexsort((cells.voted[kept], cells.truth[kept], cells.worker[kept]))]
    return pa.table(
        [
            pa.array(names, pa.string()).take(pa.array(cells.worker[order])),
            cells.truth[order].astype(np.int32),
            cells.voted[order].astype(np.int32),
            counts[order],
        ],
        schema=schemas.CONFUSIONS,
    )
