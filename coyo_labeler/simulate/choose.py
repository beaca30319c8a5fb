"""Which images are asked about next, and whom: the policies."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.learn.softmax import F32, F64

I64 = NDArray[np.int64]

#: The least risk whose logarithm is taken.
_LEAST_RISK = 1e-9
#: Assignments of greedy workers are made for so many images at a time.
_GREEDY_BLOCK = 8192


def risk_of(posterior: F32) -> F64:
    """1 − the highest probability, (n,). posterior: (n, C)."""
    return np.asarray(1.0 - posterior.max(axis=1).astype(np.float64))


def _by_risk(posterior: F32, votes: I64, draw: F64) -> F64:
    return risk_of(posterior)


def _by_noisy_risk(posterior: F32, votes: I64, draw: F64) -> F64:
    """Log risk with Gumbel noise: a draw without replacement in proportion to risk.

    Kool, van Hoof & Welling, ICML 2019.
    """
    return np.log(np.maximum(risk_of(posterior), _LEAST_RISK)) + gumbel(draw)


def _unvoted_first(posterior: F32, votes: I64, draw: F64) -> F64:
    return draw - votes


def _at_random(posterior: F32, votes: I64, draw: F64) -> F64:
    return draw


def _by_margin(posterior: F32, votes: I64, draw: F64) -> F64:
    """Minus the distance of the two highest probabilities."""
    if posterior.shape[1] == 1:
        return np.zeros(len(posterior))
    top = np.partition(posterior, -2, axis=1)[:, -2:].astype(np.float64)
    return np.asarray(top[:, 0] - top[:, 1])


def _by_entropy(posterior: F32, votes: I64, draw: F64) -> F64:
    logs = np.log(np.maximum(posterior, np.float32(1e-12)))
    return np.asarray(-np.einsum("nc,nc->n", posterior, logs, dtype=np.float64))


#: How much each image is wanted, (n,), from its posterior (n, C), its votes (n,) and a draw in
#: [0, 1) (n,).
POLICIES: dict[str, Callable[[F32, I64, F64], F64]] = {
    "risk": _by_risk,
    "gumbel": _by_noisy_risk,
    "unvoted": _unvoted_first,
    "random": _at_random,
    "margin": _by_margin,
    "entropy": _by_entropy,
}


def gumbel(draw: F64) -> F64:
    """Standard Gumbel noise from draws in [0, 1)."""
    return -np.log(-np.log(np.clip(draw, 1e-16, 1 - 1e-16)))


def most_wanted(score: F64, draw: F64, number: int) -> I64:
    """Indices of the `number` highest scores; ties are broken by the draw, then by the index."""
    order = np.lexsort((draw, -score))
    return order[:number].astype(np.int64)


def assign_at_random(draws: F64, asked: NDArray[np.bool_], load: I64, quota: int | None) -> I64:
    """A worker for each image, (n,), −1 where nobody may answer.

    draws: (n,) in [0, 1). asked: (n, workers) who has answered about the image already. load:
    (workers,) votes of each in this round; it is updated. quota: of them at most.
    """
    chosen = np.full(len(draws), -1, np.int64)
    workers = len(load)
    if workers == 0:
        return chosen
    first = np.minimum((draws * workers).astype(np.int64), workers - 1)
    if quota is None:
        return _next_free(first, asked)
    for image, start in enumerate(first):
        free = ~asked[image] & (load < quota)
        if free.any():
            turn = (start + np.arange(workers)) % workers
            chosen[image] = turn[free[turn].argmax()]
            load[chosen[image]] += 1
    return chosen


def _next_free(first: I64, asked: NDArray[np.bool_]) -> I64:
    """The first worker from `first` on, in a circle, who has not answered; −1 if all have."""
    workers = asked.shape[1]
    turn = (first[:, np.newaxis] + np.arange(workers)) % workers
    free = ~np.take_along_axis(asked, turn, axis=1)
    chosen = np.take_along_axis(turn, free.argmax(axis=1)[:, np.newaxis], axis=1)[:, 0]
    return np.where(free.any(axis=1), chosen, -1)


def assign_greedily(
    posterior: F32,
    accuracy: F64,
    asked: NDArray[np.bool_],
    load: I64,
    quota: int,
) -> I64:
    """The worker with the highest expected accuracy on each image, in their order, (n,).

    posterior: (n, C). accuracy: (workers, C) θ_j(y | y). The rest as of `assign_at_random`: a
    worker whose quota is used up is passed over, and −1 is for images about which nobody may be
    asked.
    """
    chosen = np.full(len(posterior), -1, np.int64)
    for first in range(0, len(posterior), _GREEDY_BLOCK):
        rows = slice(first, first + _GREEDY_BLOCK)
        expected = posterior[rows].astype(np.float64) @ accuracy.T
        expected[asked[rows]] = -1.0
        preferred = np.argsort(-expected, axis=1, kind="stable")
        for image, order in enumerate(preferred):
            free = order[(load[order] < quota) & (expected[image, order] >= 0)]
            if len(free):
                chosen[first + image] = free[0]
                load[free[0]] += 1
    return chosen
