"""Simulated workers: their confusion matrices, and what they answer.

`uniform:0.7`: everybody is right in 70 %, and mistakes are spread evenly. `structured:0.7`:
mistakes follow confusions that all workers share in part, as people's do, and the accuracies of
workers differ.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.hashing import splitmix64

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: Standard deviations of the accuracies of structured workers, and of classes.
_SPREAD_OF_WORKERS, _SPREAD_OF_CLASSES = 0.06, 0.15
#: The share of mistakes outside the classes that are commonly confused.
_ANYWHERE = 0.1
#: Times that accuracies are moved towards the mean that was asked for.
_SHIFTS = 50
#: Classes that one class is commonly confused with.
_CONFUSED_WITH = 3


@dataclass(frozen=True)
class Crowd:
    """theta: (workers, truth, voted) θ_j(z | y), rows sum to one. names: of the workers."""

    theta: F64
    names: tuple[str, ...]

    @property
    def workers(self) -> int:
        """How many there are."""
        return len(self.names)

    @property
    def accuracy(self) -> float:
        """The mean over workers and classes of θ_j(y | y)."""
        return float(np.diagonal(self.theta, axis1=1, axis2=2).mean())

    def answer(self, image: I64, worker: I64, truth: I64, seed: int) -> I64:
        """What workers vote, (n,). It depends on image, worker and seed alone.

        So one worker says the same of one image under every policy, whenever asked.
        """
        draw = uniform(image, seed, 1 + worker)
        cumulated = np.cumsum(self.theta[worker, truth], axis=1)
        voted = (draw[:, np.newaxis] >= cumulated).sum(axis=1)
        return np.asarray(np.minimum(voted, self.theta.shape[2] - 1), dtype=np.int64)


def uniform(key: I64, seed: int, stream: int | I64 = 0) -> F64:
    """Numbers in [0, 1), as if at random, from keys (n,), a seed and a stream."""
    start = np.uint64(splitmix64(np.array([seed], np.int64))[0])
    streams = splitmix64(np.asarray(stream, np.int64).reshape(-1) ^ start.astype(np.int64), 2)
    mixed = splitmix64(splitmix64(key.astype(np.int64), 3) ^ streams)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def uniform_crowd(workers: int, classes: int, accuracy: float) -> Crowd:
    """Everybody has one accuracy, and mistakes are spread evenly."""
    mistakes = (1 - accuracy) / max(classes - 1, 1)
    theta = np.full((workers, classes, classes), mistakes)
    every = np.arange(classes)
    theta[:, every, every] = accuracy if classes > 1 else 1.0
    return Crowd(theta, _names(workers))


def structured_crowd(workers: int, classes: int, accuracy: float, seed: int) -> Crowd:
    """Workers whose mistakes share a structure, with `accuracy` on average.

    A class is mostly taken for a few others, the same for everyone in half of the cases; the other
    half is a worker's own. Accuracies vary by class (0.15) and by worker (0.06).
    """
    rng = np.random.default_rng([seed, workers, classes])
    if classes == 1:
        return uniform_crowd(workers, 1, accuracy)
    shared = _mistakes(rng, classes)
    hard = rng.normal(0, _SPREAD_OF_CLASSES, classes)
    theta = np.empty((workers, classes, classes))
    every = np.arange(classes)
    for worker in range(workers):
        mistakes = (shared + _mistakes(rng, classes)) / 2
        right = accuracy + hard - hard.mean() + rng.normal(0, _SPREAD_OF_WORKERS)
        right = np.clip(right, 0.02, 0.99)
        theta[worker] = mistakes * (1 - right)[:, np.newaxis]
        theta[worker, every, every] = right
    for _ in range(_SHIFTS):  # a class cannot move below 0 or above 1, so that one may fall short
        shift = accuracy - np.diagonal(theta, axis1=1, axis2=2).mean()
        theta = _shifted(theta, float(shift))
    return Crowd(theta, _names(workers))


def _mistakes(rng: np.random.Generator, classes: int) -> F64:
    """Which class is taken for which, (truth, voted); rows sum to one, the diagonal is zero."""
    common = min(_CONFUSED_WITH, classes - 1)
    mistakes = np.full((classes, classes), _ANYWHERE / (classes - 1))
    for truth in range(classes):
        others = np.delete(np.arange(classes), truth)
        taken = rng.permutation(others)[:common]
        mistakes[truth, taken] += (1 - _ANYWHERE) * rng.dirichlet(np.ones(common))
        mistakes[truth, truth] = 0.0
    return np.asarray(mistakes / mistakes.sum(axis=1, keepdims=True))


def _shifted(theta: F64, shift: float) -> F64:
    """All accuracies moved by `shift` as far as they can, mistakes in proportion."""
    every = np.arange(theta.shape[1])
    right = theta[:, every, every]
    moved = np.clip(right + shift, 0.0, 1.0)
    scaled = theta * ((1 - moved) / np.maximum(1 - right, 1e-12))[:, :, np.newaxis]
    scaled[:, every, every] = moved
    return np.asarray(scaled / scaled.sum(axis=2, keepdims=True))


def _names(workers: int) -> tuple[str, ...]:
    return tuple(f"w{number}" for number in range(workers))
