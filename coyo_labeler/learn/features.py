"""Features as the learner takes them: of unit length, centred, in principal components."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.learn.softmax import F32, F64, Map

#: Rows whose products are added up at once. Part of the result: another number rounds otherwise.
_BLOCK = 16_384


def normalise(features: F32) -> F32:
    """Rows of unit length, (n, d); a row of zeros stays one."""
    length = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))
    scale = np.where(length > 0, 1.0 / np.maximum(length, 1e-30), 0.0)
    return (features * scale[:, np.newaxis].astype(np.float32)).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Projection:
    """An affine map of features. centre: (d,). axes: (d, k), scaled."""

    centre: F32
    axes: F32

    def apply(self, features: F32) -> F32:
        """Features (n, d) to components (n, k)."""
        return np.asarray((features - self.centre) @ self.axes, dtype=np.float32)


def principal_components(features: F32, components: int, run: Map = map) -> Projection:
    """The map to the first principal components, scaled so that rows have unit mean square length.

    features: (n, d). components: at most d and n are kept. The signs of axes are fixed, and blocks
    are added up in their order: the result does not depend on the threads behind `run`.
    """
    n, d = features.shape
    blocks = [slice(first, min(first + _BLOCK, n)) for first in range(0, n, _BLOCK)]
    centre = _sum(run(lambda rows: features[rows].sum(axis=0, dtype=np.float64), blocks)) / n
    middle = centre.astype(np.float32)

    def products(rows: slice) -> NDArray[np.float64]:
        block = features[rows] - middle
        return np.asarray(block.T @ block, dtype=np.float64)

    covariance = _sum(run(products, blocks)) / n
    values, vectors = np.linalg.eigh(covariance)
    kept = min(components, d, n)
    axes = vectors[:, ::-1][:, :kept]
    variance = float(np.maximum(values[::-1][:kept], 0.0).sum())
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, np.arange(kept)])
    scale = 1.0 / np.sqrt(variance) if variance > 0 else 1.0
    return Projection(middle, (axes * scale).astype(np.float32))


def _sum(parts: Iterable[F64]) -> F64:
    total: F64 | None = None
    for part in parts:
        total = part if total is None else total + part
    assert total is not None
    return total
