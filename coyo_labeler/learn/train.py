"""From a training set to a learner: one softmax of all images, one per fold, its sharpness."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from coyo_labeler.config.learn import LearnSettings
from coyo_labeler.learn.out_of_fold import sample_by_class
from coyo_labeler.learn.softmax import (
    F32,
    Map,
    Softmax,
    class_weights,
    fit_sharpness,
    fit_softmax,
    log_softmax,
)
from coyo_labeler.learn.training_set import TrainingSet
from coyo_labeler.progress import Progress

logger = logging.getLogger(__name__)

I64 = NDArray[np.int64]

#: Weights, and images times weights, up to which L-BFGS works on full batches. Beyond, its hundred
#: passes and more take longer than some epochs of minibatches.
_FULL_BATCH_WEIGHTS, _FULL_BATCH_PRODUCTS = 2_000_000, 100_000_000_000
#: Held-out images that sharpness and the pool are fitted on, at most, and numbers in their logits.
_JUDGED_IMAGES, _JUDGED_NUMBERS = 20_000, 40_000_000

_MAX_ITERATIONS = 200


@dataclass(frozen=True)
class Fitted:
    """The weights, and what they say of some training images that they have not seen.

    judged: (m,) rows of the training set. logits: (m, C) out of fold, not sharpened.
    """

    whole: Softmax
    by_fold: dict[int, Softmax]
    centre: F32
    solver: str
    judged: I64
    logits: F32
    seconds: float


def train(data: TrainingSet, settings: LearnSettings, run: Map) -> tuple[TrainingSet, Fitted]:
    """Fit all softmaxes; returns the images that were used, with centred features, too."""
    started = time.monotonic()
    data = _limited(data, settings.images_per_class)
    d = data.features.shape[1]
    centre = data.features.mean(axis=0, dtype=np.float64).astype(np.float32)
    for block in data.blocks():
        data.features[block] -= centre
    solver = settings.solver
    if solver == "auto":
        weights = (d + 1) * len(data.classes)
        few = weights <= _FULL_BATCH_WEIGHTS
        quick = weights * len(data.image) <= _FULL_BATCH_PRODUCTS
        solver = "lbfgs" if few and quick else "minibatch"
    folds = sorted(set(data.fold.tolist()))
    fit = _solver(solver, data, settings, run, len(folds) + 1)
    whole = fit(None)
    by_fold = {}
    for fold in folds:
        if len(folds) > 1:
            by_fold[fold] = fit(fold)
        else:  # all images lie in one fold: nobody has an opinion that has not seen them
            by_fold[fold] = Softmax(
                np.zeros_like(whole.coefficients), np.zeros_like(whole.intercept)
            )
    judged = _judged(data)
    logits = np.empty((len(judged), len(data.classes)), np.float32)
    for fold, model in by_fold.items():
        own = data.fold[judged] == fold
        logits[own] = model.logits(data.features[judged[own]])
    seconds = time.monotonic() - started
    return data, Fitted(whole, by_fold, centre, solver, judged, logits, seconds)


def _limited(data: TrainingSet, per_class: int | None) -> TrainingSet:
    if per_class is None:
        return data
    label = np.asarray(data.targets.argmax(axis=1)).ravel()
    kept = sample_by_class(data.image, label, per_class)
    return replace(
        data,
        image=data.image[kept],
        features=data.features[kept],
        targets=data.targets[kept],
        fold=data.fold[kept],
    )


def _solver(
    solver: str,
    data: TrainingSet,
    settings: LearnSettings,
    run: Map,
    models: int,
) -> Callable[[int | None], Softmax]:
    """What fits a softmax to all rows but those of one fold."""
    ridge = settings.l2 / len(data.image)
    if solver == "lbfgs":

        def full_batch(without: int | None) -> Softmax:
            blocks = data.blocks(without)
            return fit_softmax(
                data.features,
                data.targets,
                _weights(data, blocks, settings.balance),
                ridge,
                max_iterations=_MAX_ITERATIONS,
                run=run,
                blocks=blocks,
            )

        return full_batch

    from coyo_labeler.learn.minibatch import (  # noqa: PLC0415
        Schedule,
        fit_minibatches,
        resolve_device,
    )

    schedule = Schedule(settings.epochs, settings.minibatch, ridge, settings.seed)
    device = resolve_device(settings.device)
    done = 0
    total = models * settings.epochs * len(data.image)

    def minibatches(without: int | None) -> Softmax:
        with Progress("learn", total, "images", done=done) as progress:

            def count(rows: int) -> None:
                nonlocal done
                done += rows
                progress.update(done)

            blocks = data.blocks(without)
            weights = _weights(data, blocks, settings.balance)
            return fit_minibatches(
                data.features, data.targets, weights, blocks, schedule, device, count
            )

    return minibatches


def _weights(data: TrainingSet, blocks: Sequence[slice], balance: bool) -> F32:
    """Weights of the rows of some blocks, 0 of the others: those are not even counted."""
    weights = np.zeros(len(data.image), np.float32)
    rows = np.concatenate([np.arange(block.start, block.stop) for block in blocks])
    weights[rows] = class_weights(data.targets[rows]) if balance else 1.0
    return weights


def _judged(data: TrainingSet) -> I64:
    """Rows to judge on: all, or an even part of them where they are many."""
    n = len(data.image)
    most = max(1, min(n, _JUDGED_IMAGES, _JUDGED_NUMBERS // max(len(data.classes), 1)))
    return np.unique(np.linspace(0, n - 1, most).astype(np.int64))


def sharpness_of(fitted: Fitted, targets: csr_matrix) -> float:
    """1 / temperature of the learner; never above 1.

    The posteriors that it is judged by were made with a learner's or teacher's help, and so say
    that it is surer than it is (docs/learn.md). Only overconfidence is corrected.
    """
    dense = targets[fitted.judged].toarray()
    return min(1.0, fit_sharpness(fitted.logits, dense))


def learner_log_probability(fitted: Fitted, sharpness: float) -> F32:
    """Log probabilities of the judged images, (m, C)."""
    return log_softmax(fitted.logits * np.float32(sharpness))
