"""Histograms of the catalog: counts that add up over its parts."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

I64 = npt.NDArray[np.int64]

#: Lower edges of the bins; the last one is open.
SHORTER_SIDE = (0, 128, 200, 256, 320, 384, 448, 512, 640, 768, 1024, 1536, 2048, 4096)
ASPECT_RATIO = (1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
GROUP_SIZE = (1, 2, 3, 4, 5, 9, 17, 33, 65, 129, 1025)


class Statistics:
    """Histograms of the kept rows' shorter sides (px) and aspect ratios, and of rows per hash."""

    def __init__(self) -> None:
        self._counts = {
            "shorter_side": np.zeros(len(SHORTER_SIDE), np.int64),
            "aspect_ratio": np.zeros(len(ASPECT_RATIO), np.int64),
            "rows_per_hash": np.zeros(len(GROUP_SIZE), np.int64),
        }

    def add(self, kept: pa.Table, group_sizes: I64) -> None:
        """Count the rows that have a width and a height, and groups by their number of rows."""
        sides = kept.select(["width", "height"]).drop_null()
        width, height = sides["width"].to_numpy(), sides["height"].to_numpy()
        shorter, longer = np.minimum(width, height), np.maximum(width, height)
        real = shorter > 0
        self._count("shorter_side", shorter, SHORTER_SIDE)
        self._count("aspect_ratio", longer[real] / shorter[real], ASPECT_RATIO)
        self._count("rows_per_hash", group_sizes, GROUP_SIZE)

    def _count(self, name: str, values: npt.NDArray[Any], edges: tuple[float, ...]) -> None:
        bins = np.searchsorted(np.array(edges), values, side="right") - 1
        self._counts[name] += np.bincount(bins[bins >= 0], minlength=len(edges))

    def to_json(self) -> dict[str, list[int]]:
        """The counts of each histogram."""
        return {name: counts.tolist() for name, counts in self._counts.items()}


def sum_up(parts: Iterable[Mapping[str, list[int]]]) -> dict[str, dict[str, list[Any]]]:
    """The histograms of all parts together, each with the lower edges of its bins."""
    total = Statistics().to_json()
    for part in parts:
        for name, counts in part.items():
            total[name] = [a + b for a, b in zip(total[name], counts, strict=True)]
    edges = {
        "shorter_side": SHORTER_SIDE,
        "aspect_ratio": ASPECT_RATIO,
        "rows_per_hash": GROUP_SIZE,
    }
    return {name: {"from": list(edges[name]), "rows": total[name]} for name in total}
