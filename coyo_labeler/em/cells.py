"""Cells: one number per (class, worker, answer) describes the skill of all workers.

A vote and a state of its problem fall into one cell, for instance "worker j votes z where the class
is y". EM adds up an expected count per cell, and estimates a probability per cell. A cell has an
integer key, and exists only where it occurs. The cells of a row, whose probabilities sum to one,
have neighbouring keys.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.model import Model
from coyo_labeler.em.responses import Response
from coyo_labeler.em.segments import F64, I32, I64, Bool

#: Log probability of an error of perfect workers: not −inf, so that EM stands a contradiction.
_LOG_IMPOSSIBLE = np.log(1e-100)

#: Outcomes of an answer to a verification, in the order of their keys.
_ANSWERS = 3
_WRONG, _RIGHT, _UNSURE = 0, 1, 2


@dataclass(frozen=True)
class CellSpace:
    """How cells are numbered: first choices, then answers to verifications, then constants.

    choices     confusion  (y · J + j) · C + z            worker j votes z, the class is y
                one_coin   j · 2 + right
    answers     confusion  (t · J + j) · 3 + response     t: whether the question is true
                one_coin   j · 3 + (wrong, right, unsure)
    constants   log probabilities that are never estimated
    """

    model: Model

    @property
    def answers(self) -> int:
        """How many outcomes an answer has."""
        return _ANSWERS

    @property
    def choices(self) -> int:
        """The first key after the choices: that of the first answer."""
        j, c = self.model.workers, self.model.classes
        size: int = {"confusion": c * j * c, "one_coin": 2 * j, "perfect": 0}[
            self.model.worker_model
        ]
        return size

    @property
    def constants(self) -> int:
        """The key of the first constant: a choice where the class is outside the support.

        The other constants are of perfect workers: a wrong, a right, an uninformative answer.
        """
        j = self.model.workers
        rows: int = {"confusion": 2 * j, "one_coin": j, "perfect": 0}[self.model.worker_model]
        return self.choices + rows * _ANSWERS

    @property
    def size(self) -> int:
        """The number of keys; all are below it."""
        return self.constants + 1 + _ANSWERS

    def choice_keys(self, truth: I32, worker: I32, voted: I32) -> I64:
        """Cells of choices, all arrays (n,); truth: the class, negative outside the support."""
        model = self.model
        right = truth == voted
        if model.worker_model == "perfect":
            return np.asarray(self.constants + 1 + right, dtype=np.int64)
        if model.worker_model == "one_coin":
            return np.asarray(worker.astype(np.int64) * 2 + right, dtype=np.int64)
        keys = (truth.astype(np.int64) * model.workers + worker) * model.classes + voted
        return np.where(truth < 0, self.constants, keys)

    def answer_keys(self, true: Bool, worker: I32, response: NDArray[np.int8]) -> I64:
        """Cells of answers, all arrays (n,); true: whether the question is; response: no choice."""
        outcome = np.where(
            response == Response.UNSURE,
            _UNSURE,
            np.where((response == Response.YES) == true, _RIGHT, _WRONG),
        ).astype(np.int64)
        if self.model.worker_model == "perfect":
            return self.constants + 1 + outcome
        row = worker.astype(np.int64)
        if self.model.worker_model == "confusion":
            row = row + true * np.int64(self.model.workers)
            return self.choices + row * _ANSWERS + (response - np.int64(Response.YES))
        return self.choices + row * _ANSWERS + outcome


@dataclass(frozen=True)
class CellTable:
    """Cells, and what the M-step needs to know of each.

    keys: (cells,) sorted. row: (cells,) number of the row that each is normalised in; rows: how
    many there are. pooled: (cells,) index of the pooled cell, which is the same for all workers.
    pooled_key: (pooled cells,) truth · max(C, 3) + outcome, answers after choices. pooled_row:
    (pooled cells,) number of its row. prior: (cells,) h(z | y). log_share: (cells,) is added to
    log θ: the error of a one-coin worker is spread over C − 1 classes; for constants it is all.
    estimated: (cells,) false for constants. worker, truth, voted: (cells,) decoded from the key;
    truth and voted are classes for choices with confusions, else −1. right: (cells,) whether the
    vote is right.
    """

    keys: I64
    row: I64
    rows: int
    pooled: NDArray[Any]
    pooled_key: I64
    pooled_row: I64
    prior: F64
    log_share: F64
    estimated: Bool
    worker: I64
    truth: I64
    voted: I64
    right: Bool


@dataclass(frozen=True)
class Pooling:
    """Which cells differ only in the worker: `pooled` and `pooled_key` of a `CellTable`."""

    pooled: NDArray[Any]
    pooled_key: I64


def describe_cells(space: CellSpace, keys: I64, pooling: Pooling | None = None) -> CellTable:
    """Decode sorted, distinct keys (cells,). pooling: of these cells, where it is known."""
    model = space.model
    j, c = model.workers, model.classes
    choice = keys < space.choices
    constant = keys >= space.constants
    answer = ~choice & ~constant
    outcomes = np.ones(len(keys), dtype=np.int64)
    outcomes[choice] = c if model.worker_model == "confusion" else 2
    outcomes[answer] = _ANSWERS
    base = np.where(choice, 0, np.where(answer, space.choices, space.constants))
    local = keys - base
    row_key, outcome = local // outcomes, local % outcomes
    if model.worker_model == "confusion":
        worker, truth = row_key % max(j, 1), row_key // max(j, 1)
    else:
        worker, truth = row_key, np.zeros_like(row_key)
    right = _right(space, choice, answer, truth, outcome)

    kind = np.where(choice, 0, np.where(answer, 1, 2))
    changed = (np.diff(row_key) != 0) | (np.diff(kind) != 0)
    row = np.concatenate([[0], np.cumsum(changed)]) if len(keys) else np.zeros(0, dtype=np.int64)
    if pooling is None:
        pooled_key = (kind * (c + 1) + truth) * max(c, _ANSWERS) + outcome
        pooled_keys, pooled = np.unique(pooled_key, return_inverse=True)
        pooling = Pooling(pooled, pooled_keys)
    _, pooled_row = np.unique(pooling.pooled_key // max(c, _ANSWERS), return_inverse=True)

    size = np.where(answer, _ANSWERS, c if model.worker_model == "confusion" else 2)
    accuracy = model.prior_accuracy
    prior = np.where(right, accuracy, (1 - accuracy) / np.maximum(size - 1, 1))
    log_share = np.zeros(len(keys))
    if model.worker_model == "one_coin":
        log_share[choice & ~right] = -np.log(max(c - 1, 1))
    log_share[constant] = _constants(model)[(keys - space.constants)[constant]]
    confused = choice & (model.worker_model == "confusion")
    return CellTable(
        keys=keys,
        row=row,
        rows=int(row[-1]) + 1 if len(row) else 0,
        pooled=pooling.pooled,
        pooled_key=pooling.pooled_key,
        pooled_row=pooled_row,
        prior=prior,
        log_share=log_share,
        estimated=~constant,
        worker=np.where(constant, -1, worker),
        truth=np.where(confused, truth, -1),
        voted=np.where(confused, outcome, -1),
        right=right & ~constant,
    )


def _right(
    space: CellSpace, choice: Bool, answer: Bool, truth: NDArray[Any], outcome: NDArray[Any]
) -> Bool:
    if space.model.worker_model == "confusion":
        yes_or_no = np.where(truth == 1, Response.YES, Response.NO) - Response.YES
        right = (choice & (truth == outcome)) | (answer & (outcome == yes_or_no))
        return np.asarray(right, dtype=np.bool_)
    return np.asarray((choice | answer) & (outcome == _RIGHT), dtype=np.bool_)


def _constants(model: Model) -> F64:
    outside = np.log((1 - model.prior_accuracy) / max(model.classes - 1, 1))
    return np.array([outside, _LOG_IMPOSSIBLE, 0.0, 0.0])
