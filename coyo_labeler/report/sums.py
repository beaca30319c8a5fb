"""Sums by key: the result of a pass over rows, small enough to send and to add up."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from coyo_labeler.report.ragged import F64, I64

#: The sums of one measure, packed. name: that of a slice, else empty. bucket: all sums of one key
#: are in the same bucket. cells: an Arrow IPC stream of `CELLS`, compressed with zstd.
PACKED = pa.schema(
    [
        pa.field("measure", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("bucket", pa.int32(), nullable=False),
        pa.field("cells", pa.binary(), nullable=False),
    ]
)
CELLS = pa.schema([("key", pa.int64()), ("count", pa.int64()), ("total", pa.float64())])

#: Cells of one measure that are collected before equal keys are added up.
_MAX_UNMERGED = 1 << 21


def key_of(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> I64:
    """Two numbers from −1 to 2^31 − 2 as one key. Keys sort in the order of the pairs."""
    return (a.astype(np.int64) + 1 << 32) | (b.astype(np.int64) + 1)


@dataclass(frozen=True)
class Cells:
    """Sums of one measure by key; three arrays of shape (n,).

    key: two numbers, classes or bins, as one (`key_of`), or the id of an image. count: number of
    rows. total: a sum of probabilities over these rows. After `merged`, keys are distinct and
    ascending.
    """

    key: I64
    count: I64
    total: F64

    @classmethod
    def none(cls) -> "Cells":
        """No cells."""
        zero = np.zeros(0, dtype=np.int64)
        return cls(zero, zero, np.zeros(0))

    @classmethod
    def counted(cls, keys: I64) -> "Cells":
        """The number of occurrences of each key, merged."""
        keys = np.sort(keys)
        first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else keys
        count = np.diff(np.append(first, len(keys)))
        return cls(keys[first], count, np.zeros(len(first)))

    @classmethod
    def concatenated(cls, parts: Iterable["Cells"]) -> "Cells":
        """All cells of some parts; equal keys are not yet added up."""
        cells = list(parts)
        if len(cells) == 1:
            return cells[0]
        keys, counts, totals = ([getattr(c, name) for c in cells] for name in CELLS.names)
        return cls(np.concatenate(keys), np.concatenate(counts), np.concatenate(totals))

    @property
    def a(self) -> I64:
        """The first number of each key."""
        return (self.key >> 32) - 1

    @property
    def b(self) -> I64:
        """The second number of each key."""
        return (self.key & 0xFFFFFFFF) - 1

    def __getitem__(self, chosen: npt.NDArray[Any]) -> "Cells":
        return Cells(self.key[chosen], self.count[chosen], self.total[chosen])

    def merged(self) -> "Cells":
        """Equal keys added up, in ascending order."""
        if not len(self.key):
            return self
        order = np.argsort(self.key, kind="stable")
        key = self.key[order]
        first = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
        count = np.add.reduceat(self.count[order], first)
        return Cells(key[first], count, np.add.reduceat(self.total[order], first))

    def packed(self) -> bytes:
        """As an Arrow IPC stream."""
        batch = pa.RecordBatch.from_arrays(
            [pa.array(self.key), pa.array(self.count), pa.array(self.total)], schema=CELLS
        )
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_stream(sink, CELLS, options=options) as writer:
            writer.write_batch(batch)
        stream: bytes = sink.getvalue().to_pybytes()
        return stream

    @classmethod
    def unpacked(cls, stream: bytes) -> "Cells":
        """The reverse of `packed`."""
        table = pa.ipc.open_stream(stream).read_all()
        return cls(*(table.column(name).to_numpy() for name in CELLS.names))


@dataclass
class Ledger:
    """Sums under construction: cells by (measure, name)."""

    parts: dict[tuple[str, str], list[Cells]] = field(default_factory=dict)

    def count(self, measure: str, rows: int, total: float = 0.0, *, a: int = 0, b: int = 0) -> None:
        """Add to one cell."""
        key = key_of(np.array([a]), np.array([b]))
        self.put(measure, Cells(key, np.array([rows]), np.array([total])))

    def tally(
        self,
        measure: str,
        a: npt.NDArray[Any],
        b: npt.NDArray[Any] | None = None,
        weights: F64 | None = None,
        *,
        name: str = "",
    ) -> None:
        """Count every pair (a[i], b[i]), and add weights[i] to its `total`."""
        keys = key_of(a, np.zeros(len(a), dtype=np.int64) if b is None else b)
        if weights is None:
            self.put(measure, Cells.counted(keys), name)
        else:
            self.put(measure, Cells(keys, np.ones_like(keys), weights).merged(), name)

    def put(self, measure: str, cells: Cells, name: str = "") -> None:
        """Add cells."""
        if not len(cells.key):
            return
        parts = self.parts.setdefault((measure, name), [])
        parts.append(cells)
        if len(parts) > 1 and sum(len(part.key) for part in parts) > _MAX_UNMERGED:
            parts[:] = [Cells.concatenated(parts).merged()]

    def items(self) -> Iterator[tuple[tuple[str, str], Cells]]:
        """All cells by (measure, name), merged."""
        for key, parts in self.parts.items():
            yield key, Cells.concatenated(parts).merged()


@dataclass(frozen=True)
class Aggregates:
    """The sums over all rows, by (measure, name)."""

    cells: dict[tuple[str, str], Cells]

    @classmethod
    def of(cls, ledger: Ledger) -> "Aggregates":
        """The sums that a ledger holds."""
        return cls(dict(ledger.items()))

    def __contains__(self, measure: str) -> bool:
        return (measure, "") in self.cells

    def of_measure(self, measure: str, name: str = "") -> Cells:
        """The cells of a measure; no cells if nothing was counted."""
        return self.cells.get((measure, name), Cells.none())

    def count(self, measure: str, a: int = 0, b: int = 0, *, name: str = "") -> int:
        """One count; 0 if nothing was counted."""
        cells = self.of_measure(measure, name)
        return int(cells.count[cells.key == key_of(np.array([a]), np.array([b]))].sum())

    def dense(self, measure: str, size: int, b: int | None = None) -> I64:
        """Counts by `a`, shape (size,), for one `b` or for all; larger `a` count as the last."""
        cells = self.of_measure(measure)
        if b is not None:
            cells = cells[cells.b == b]
        index = np.minimum(cells.a, size - 1)
        return np.bincount(index, cells.count, size).astype(np.int64)

    def dense_total(self, measure: str, size: int) -> F64:
        """Totals by `a`, shape (size,)."""
        cells = self.of_measure(measure)
        totals: F64 = np.bincount(cells.a, cells.total, size).astype(np.float64)
        return totals

    def names(self, measure: str) -> list[str]:
        """The names under which a measure was counted."""
        return sorted(name for other, name in self.cells if other == measure)
