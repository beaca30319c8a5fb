"""Learners that never predict an image they were trained on: folds, balanced samples, sharpness."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.hashing import splitmix64
from coyo_labeler.learn.softmax import (
    F32,
    F64,
    Map,
    Softmax,
    class_weights,
    fit_softmax,
    log_softmax,
)

I64 = NDArray[np.int64]

#: Streams of the hash of an id: its fold, and its turn in a sample.
_FOLD, _TURN = 11, 12

#: What is believed of log(1 / temperature) before any evidence: mean and standard deviation.
_SHARPNESS_PRIOR = (0.0, 0.3)
#: Values of log(1 / temperature) that are tried.
_SHARPNESS_GRID = np.linspace(-1.0, 1.5, 101)


def folds_of(image: I64, folds: int) -> I64:
    """The fold of each image (n,), by a hash of its id: whatever else there is."""
    return (splitmix64(image, _FOLD) % np.uint64(folds)).astype(np.int64)


def lowest_hash_first(image: I64) -> NDArray[np.uint64]:
    """The turn of each image in samples, (n,): those with the lowest come first."""
    return splitmix64(image, _TURN)


def sample_by_class(image: I64, label: I64, per_class: int) -> I64:
    """Indices, ascending, of `per_class` images of each label at most, by lowest hash.

    image, label: (n,).
    """
    turn = lowest_hash_first(image)
    order = np.lexsort((turn, label))
    ordered = label[order]
    first = np.ones(len(ordered), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(first)
    rank = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.append(starts, len(ordered))))
    return np.sort(order[rank < per_class])


@dataclass(frozen=True)
class Recipe:
    """How a learner is trained.

    ridge: λ times the number of training images. folds: of out-of-fold predictions. per_class:
    training images per class at most. balance: whether classes weigh the same.
    """

    ridge: float = 0.3
    folds: int = 5
    per_class: int = 500
    balance: bool = True
    max_iterations: int = 100


@dataclass
class CrossFitted:
    """One softmax of all training images, and one per fold that has not seen the fold.

    Each begins from its own last weights, never from another's: those have seen its fold.
    """

    recipe: Recipe
    whole: Softmax | None = None
    by_fold: dict[int, Softmax] = field(default_factory=dict)

    def fit(self, features: F32, image: I64, rows: I64, targets: F32, run: Map = map) -> F32:
        """Train on some rows; logits of all rows (n, C), out of fold for those trained on.

        features: (n, d). image: (n,) ids. rows: indices of training images, ascending. targets:
        (rows, C), each sums to one.
        """
        recipe = self.recipe
        label = targets.argmax(axis=1)
        kept = sample_by_class(image[rows], label, recipe.per_class)
        self.whole = self._fit_one(self.whole, features, rows[kept], targets[kept], run)
        logits = predict(self.whole, features, run)
        fold = folds_of(image[rows], recipe.folds)
        for number in range(recipe.folds):
            held_out = fold == number
            if not held_out.any():
                continue
            others = kept[fold[kept] != number]
            if not len(others):  # nothing else to learn from: no opinion
                logits[rows[held_out]] = 0.0
                continue
            model = self._fit_one(
                self.by_fold.get(number), features, rows[others], targets[others], run
            )
            self.by_fold[number] = model
            logits[rows[held_out]] = model.logits(features[rows[held_out]])
        return logits

    def _fit_one(
        self, start: Softmax | None, features: F32, rows: I64, targets: F32, run: Map
    ) -> Softmax:
        weights = class_weights(targets) if self.recipe.balance else np.ones(len(rows), np.float32)
        return fit_softmax(
            features[rows],
            targets,
            weights,
            self.recipe.ridge / len(rows),
            start,
            self.recipe.max_iterations,
            1e-6,
            run,
        )


def predict(model: Softmax, features: F32, run: Map = map, block: int = 65_536) -> F32:
    """Logits of many rows, (n, C)."""
    n = len(features)
    logits = np.empty((n, len(model.intercept)), np.float32)

    def fill(first: int) -> None:
        rows = slice(first, min(first + block, n))
        logits[rows] = model.logits(features[rows])

    for _ in run(fill, range(0, n, block)):
        pass
    return logits


def shrunk_sharpness(logits: F32, targets: F32) -> float:
    """1 / temperature from images whose class is known, shrunk towards a learner that is right.

    Maximises the likelihood of the known classes times a normal prior of log(1 / temperature). The
    prior decides where few are known; votes do not enter, because the learner's mistakes and the
    votes that it learned from agree, and a fit to them is overconfident.

    logits: (n, C), out of fold. targets: (n, C).
    """
    mean, deviation = _SHARPNESS_PRIOR
    best, highest = mean, -np.inf
    for log_sharpness in _SHARPNESS_GRID:
        value = -((log_sharpness - mean) ** 2) / (2 * deviation**2)
        if len(logits):
            scores = log_softmax(logits * np.float32(np.exp(log_sharpness)))
            value += float(np.einsum("nc,nc->", targets, scores, dtype=np.float64))
        if value > highest:
            best, highest = float(log_sharpness), value
    return float(np.exp(best))


def probabilities(logits: F32, sharpness: float = 1.0) -> F32:
    """Softmax of sharpened logits, (n, C)."""
    scores: F64 | F32 = log_softmax(logits * np.float32(sharpness))
    return np.exp(scores).astype(np.float32, copy=False)
