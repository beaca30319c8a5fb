"""Multinomial logistic regression with soft targets: fit by L-BFGS, prediction, temperature.

The loss of features x, targets q, row weights w (normalised to sum to one) and ridge λ is

    L(W, b) = −Σ_i w_i Σ_c q_i(c) log softmax(W x_i + b)(c) + λ/2 ‖W‖²

Rows are worked on in blocks of a fixed size, and the sums of blocks are added in their order, so
that the result does not depend on how many threads work. The caller keeps BLAS at one thread per
block (`one_thread_blas`).

Liu & Nocedal, Mathematical Programming 45, 1989 (L-BFGS); Guo et al., ICML 2017 (temperature).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.sparse import csr_matrix, issparse

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
T = TypeVar("T")
R = TypeVar("R")

#: Rows of a block. It is part of the result: another size rounds sums another way.
BLOCK = 4096
#: Bounds of 1 / temperature.
_LEAST_SHARPNESS, _MOST_SHARPNESS = 0.05, 20.0


class Map(Protocol):
    """`map`, or that of a pool of threads: results in the order of the items."""

    def __call__(self, work: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        """`work` on every item."""


@contextmanager
def one_thread_blas() -> Iterator[None]:
    """Keep BLAS at one thread inside the `with` block: its sums depend on how many it has."""
    # Training on a GPU does not need it.
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    with threadpool_limits(1, "blas"):
        yield


@dataclass(frozen=True)
class Softmax:
    """The weights of a linear softmax. coefficients: (features, C). intercept: (C,). float32."""

    coefficients: F32
    intercept: F32

    def logits(self, features: NDArray[Any]) -> F32:
        """Log odds up to a constant per row, (n, C). features: (n, features)."""
        values = features.astype(np.float32, copy=False) @ self.coefficients
        values += self.intercept
        return values


def fit_softmax(
    features: F32,
    targets: F32 | csr_matrix,
    weights: F32,
    ridge: float,
    start: Softmax | None = None,
    max_iterations: int = 100,
    tolerance: float = 1e-6,
    run: Map = map,
    blocks: Sequence[slice] | None = None,
) -> Softmax:
    """The weights that minimise the loss above.

    features: (n, d). targets: (n, C), dense or sparse, each row sums to one. weights: (n,), 0 or
    more, not all 0. start: weights to begin from. tolerance: of the relative change of the loss.
    run: how blocks of rows are worked on. blocks: the rows to fit; None: all.
    """
    n, d = features.shape
    classes = targets.shape[1]
    if blocks is None:
        blocks = blocks_of(0, n)
    total_weight = sum(float(weights[rows].sum(dtype=np.float64)) for rows in blocks)
    shares = weights / np.float32(total_weight)

    def loss(flat: F64) -> tuple[float, F64]:
        matrix = flat.reshape(d + 1, classes)
        model = Softmax(matrix[:-1].astype(np.float32), matrix[-1].astype(np.float32))
        total = 0.5 * ridge * float(np.vdot(matrix[:-1], matrix[:-1]))
        gradient = np.zeros_like(matrix)
        gradient[:-1] = ridge * matrix[:-1]

        def of_block(rows: slice) -> tuple[float, F32, F64]:
            block = targets[rows]
            dense: F32 = block.toarray() if issparse(block) else block  # type: ignore[union-attr]
            return _loss_of_block(model, features[rows], dense, shares[rows])

        for value, slope, bias_slope in run(of_block, blocks):
            total += value
            gradient[:-1] += slope
            gradient[-1] += bias_slope
        return total, gradient.ravel()

    flat = np.zeros((d + 1) * classes)
    if start is not None:
        flat[:] = np.vstack([start.coefficients, start.intercept]).ravel()
    fitted = minimize(
        loss,
        flat,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iterations, "ftol": tolerance, "gtol": 1e-7},
    ).x.reshape(d + 1, classes)
    return Softmax(fitted[:-1].astype(np.float32), fitted[-1].astype(np.float32))


def blocks_of(first: int, last: int) -> list[slice]:
    """Blocks of the rows from `first` to `last`, excluded."""
    return [slice(start, min(start + BLOCK, last)) for start in range(first, last, BLOCK)]


def _loss_of_block(
    model: Softmax, features: F32, targets: F32, shares: F32
) -> tuple[float, F32, F64]:
    """The loss of some rows, and its gradients by coefficients and intercept."""
    scores = model.logits(features)
    log_softmax(scores)
    value = -float(np.einsum("nc,nc,n->", targets, scores, shares, dtype=np.float64))
    np.exp(scores, out=scores)
    scores -= targets
    scores *= shares[:, np.newaxis]
    return value, features.T @ scores, scores.sum(axis=0, dtype=np.float64)


def log_softmax(scores: F32) -> F32:
    """Turn logits (n, C) into log probabilities, in place; returns them."""
    scores -= scores.max(axis=1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return scores


def class_weights(targets: F32 | csr_matrix) -> F32:
    """Row weights under which every class has the same sum of targets, (n,).

    targets: (n, C) soft, dense or sparse. A class with less than one expected row counts as if it
    had one.
    """
    mass = np.maximum(np.asarray(targets.sum(axis=0, dtype=np.float64)).ravel(), 1.0)
    return np.asarray(targets @ (1.0 / mass).astype(np.float32), dtype=np.float32)


def fit_sharpness(logits: F32, targets: F32, weights: F32 | None = None) -> float:
    """1 / temperature that maximises Σ_i w_i Σ_c q_i(c) log softmax(s · logits_i)(c).

    logits: (n, C) of rows that the model was not fitted on. targets: (n, C). 1 without rows.
    """
    if len(logits) == 0:
        return 1.0
    rows = np.ones(len(logits), np.float32) if weights is None else weights

    def loss(log_sharpness: float) -> float:
        scores = log_softmax(logits * np.float32(np.exp(log_sharpness)))
        return -float(np.einsum("nc,nc,n->", targets, scores, rows, dtype=np.float64))

    bounds = (float(np.log(_LEAST_SHARPNESS)), float(np.log(_MOST_SHARPNESS)))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))
