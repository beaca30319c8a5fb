"""What EM found out about each worker: the tables `workers` and `confusions`."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import beta

from coyo_labeler import schemas
from coyo_labeler.merge.arrays import F64, bin_sum
from coyo_labeler.merge.cells import CellTable
from coyo_labeler.merge.model import Model

#: The interval of `accuracy_low` and `accuracy_high`.
_LOW, _HIGH = 0.05, 0.95
#: Columns of a tally: choices, answers yes or no, answers unsure.
CHOICES, ANSWERS, UNSURE = 0, 1, 2


def tally_votes(
    worker: NDArray[np.int32], response: NDArray[np.int8], workers: int
) -> NDArray[np.int64]:
    """Votes of each worker by kind, (J, 3): `CHOICES, ANSWERS, UNSURE`; inputs (votes,)."""
    kind = np.array([CHOICES, ANSWERS, ANSWERS, UNSURE])[response]
    return np.bincount(worker * 3 + kind, minlength=3 * workers).reshape(workers, 3)


def workers_table(
    names: Sequence[str], tally: NDArray[np.int64], table: CellTable, counts: F64, model: Model
) -> pa.Table:
    """One row per worker, as schemas.WORKERS.

    tally: (J, 3) votes by `CHOICES, ANSWERS, UNSURE`; counts: (cells,) expected. accuracy: the mean
    of a Beta that the expected right and wrong votes (unsure ones left aside) make of a prior of
    α votes; its 5 % and 95 % points. log_odds_vs_random: its log-odds less those of guessing, which
    is right once in C choices and in two answers. Null for workers taken to be perfect.
    """
    total = tally.sum(axis=1)
    if model.worker_model == "perfect":
        nothing = pa.nulls(len(names), pa.float64())
        return pa.table([pa.array(names), total, *[nothing] * 4], schema=schemas.WORKERS)
    told = tally[:, CHOICES] + tally[:, ANSWERS]
    right = bin_sum(table.worker[table.right], counts[table.right], len(names))
    right = np.minimum(right, told)
    mean = model.prior_accuracy
    if model.pooling_strength is not None and told.sum() + model.pooling_strength > 0:
        pooled = model.pooling_strength * mean + right.sum()
        mean = pooled / (model.pooling_strength + told.sum())
    strength = model.prior_strength
    # With no prior at all a worker who never erred would have no interval: Jeffreys' prior then.
    prior = np.array([strength * mean, strength * (1 - mean)]) if strength > 0 else np.full(2, 0.5)
    plus, minus = prior[0] + right, prior[1] + told - right
    accuracy = plus / (plus + minus)
    guessing = (tally[:, CHOICES] / model.classes + tally[:, ANSWERS] / 2) / np.maximum(told, 1)
    guessing = np.where(told > 0, guessing, 0.5)
    return pa.table(
        [
            pa.array(names),
            total,
            accuracy,
            beta.ppf(_LOW, plus, minus),
            beta.ppf(_HIGH, plus, minus),
            np.log(plus) - np.log(minus) - np.log(guessing) + np.log1p(-guessing),
        ],
        schema=schemas.WORKERS,
    )


def confusions_table(names: Sequence[str], table: CellTable, counts: F64) -> pa.Table:
    """Expected confusion counts above zero, as schemas.CONFUSIONS, by worker and classes."""
    kept = np.flatnonzero((table.truth >= 0) & (table.voted >= 0) & (counts > 0))
    order = kept[np.lexsort((table.voted[kept], table.truth[kept], table.worker[kept]))]
    return pa.table(
        [
            pa.array(names, pa.string()).take(pa.array(table.worker[order])),
            table.truth[order].astype(np.int32),
            table.voted[order].astype(np.int32),
            counts[order],
        ],
        schema=schemas.CONFUSIONS,
    )
