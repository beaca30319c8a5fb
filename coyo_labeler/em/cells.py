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

    keys: (cells,) sorted. estimated: how many are estimated; the others, at the end, are constants.
    row: (cells,) number of the row that each is normalised in. pooled: (cells,) index of the pooled
    cell, which is the same for all workers. pooled_key: (pooled cells,) truth · max(C, 3) +
    outcome, answers after choices, then constants. pooled_row: (pooled cells,) number of its row.
    prior: (pooled cells,) h(z | y). log_share: (pooled cells,) is added to log θ: the error of a
    one-coin worker is spread over C − 1 classes; for constants it is all.
    """

    space: CellSpace
    keys: I64
    estimated: int
    row: I32
    pooled: I32
    pooled_key: I64
    pooled_row: I64
    prior: F64
    log_share: F64

    def decode(self) -> "DecodedCells":
        """What each cell is about; computed when it is asked for, for it takes much memory."""
        return _decode(self.space, self.keys)


@dataclass(frozen=True)
class DecodedCells:
    """worker, truth, voted: (cells,) decoded from the key; worker is −1 for constants, truth and
    voted are classes for choices with confusions, else −1. right: (cells,) whether the vote is."""

    worker: I64
    truth: I64
    voted: I64
    right: Bool


@dataclass(frozen=True)
class Pooling:
    """Which cells differ only in the worker: `pooled` and `pooled_key` of a `CellTable`."""

    pooled: I32
    pooled_key: I64


def describe_cells(space: CellSpace, keys: I64, pooling: Pooling | None = None) -> CellTable:
    """Decode sorted, distinct keys (cells,). pooling: of these cells, where it is known."""
    parts = _split_keys(space, keys)
    changed = (np.diff(parts.row) != 0) | (np.diff(parts.kind) != 0)
    row = np.zeros(len(keys), dtype=np.int32)
    np.cumsum(changed, out=row[1:])
    if pooling is None:
        pooled_keys, pooled = np.unique(_pooled_keys(space, parts), return_inverse=True)
        pooling = Pooling(pooled.astype(np.int32), pooled_keys)
    width = max(space.model.classes, _ANSWERS)
    _, pooled_row = np.unique(pooling.pooled_key // width, return_inverse=True)
    prior, log_share = _of_pooled(space, pooling.pooled_key)
    return CellTable(
        space=space,
        keys=keys,
        estimated=int(np.searchsorted(keys, space.constants)),
        row=row,
        pooled=pooling.pooled,
        pooled_key=pooling.pooled_key,
        pooled_row=pooled_row,
        prior=prior,
        log_share=log_share,
    )


#: Kinds of cells, in the order of their keys.
_CHOICE, _ANSWER, _CONSTANT = 0, 1, 2


@dataclass(frozen=True)
class _Parts:
    """Of keys (n,): kind; row: number of the row within the kind; truth; worker; outcome."""

    kind: NDArray[np.int8]
    row: I64
    truth: I64
    worker: I64
    outcome: I64


def _split_keys(space: CellSpace, keys: I64) -> _Parts:
    j, c = max(space.model.workers, 1), space.model.classes
    confusion = space.model.worker_model == "confusion"
    choices, constants = np.searchsorted(keys, [space.choices, space.constants])
    kind = np.full(len(keys), _ANSWER, dtype=np.int8)
    kind[:choices], kind[constants:] = _CHOICE, _CONSTANT
    row, outcome = np.empty_like(keys), np.empty_like(keys)
    for part, first, outcomes in (
        (slice(0, choices), 0, c if confusion else 2),
        (slice(choices, constants), space.choices, _ANSWERS),
        (slice(constants, None), space.constants, 1),
    ):
        np.divmod(keys[part] - first, outcomes, out=(row[part], outcome[part]))
    truth, worker = np.divmod(row, j) if confusion else (np.zeros_like(row), row.copy())
    truth[constants:], worker[constants:] = row[constants:], -1
    return _Parts(kind, row, truth, worker, outcome)


def _pooled_keys(space: CellSpace, parts: _Parts) -> I64:
    c = space.model.classes
    return (parts.kind * np.int64(c + 1) + parts.truth) * max(c, _ANSWERS) + parts.outcome


def _of_pooled(space: CellSpace, pooled_keys: I64) -> tuple[F64, F64]:
    """`prior` and `log_share` of a `CellTable`."""
    model = space.model
    group, outcome = np.divmod(pooled_keys, max(model.classes, _ANSWERS))
    kind, truth = np.divmod(group, model.classes + 1)
    choice, answer = kind == _CHOICE, kind == _ANSWER
    right = _right(space, choice, answer, truth, outcome)
    size = np.where(answer, _ANSWERS, model.classes if model.worker_model == "confusion" else 2)
    accuracy = model.prior_accuracy
    prior = np.where(right, accuracy, (1 - accuracy) / np.maximum(size - 1, 1))
    log_share = np.zeros(len(pooled_keys))
    if model.worker_model == "one_coin":
        log_share[choice & ~right] = -np.log(max(model.classes - 1, 1))
    constant = kind >= _CONSTANT
    log_share[constant] = _constants(model)[(group - _CONSTANT * (model.classes + 1))[constant]]
    return prior, log_share


def _decode(space: CellSpace, keys: I64) -> DecodedCells:
    parts = _split_keys(space, keys)
    choice, answer = parts.kind == _CHOICE, parts.kind == _ANSWER
    confused = choice & (space.model.worker_model == "confusion")
    return DecodedCells(
        worker=parts.worker,
        truth=np.where(confused, parts.truth, -1),
        voted=np.where(confused, parts.outcome, -1),
        right=_right(space, choice, answer, parts.truth, parts.outcome),
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
