"""Sums by key: what a pass over the rows leaves, small enough to travel and to add up."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from coyo_labeler.report.ragged import F64, I64

#: One sum. measure: what was counted; name: of a slice, else empty; a, b: classes, bins or ids;
#: count: rows; total: a sum of probabilities over them.
SCHEMA = pa.schema(
    [
        pa.field("measure", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("a", pa.int64(), nullable=False),
        pa.field("b", pa.int64(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("total", pa.float64(), nullable=False),
    ]
)

#: Cells of one measure that may lie about before equal keys are added up.
_LOOSE = 1 << 20


@dataclass(frozen=True)
class Cells:
    """Sums of one measure: (n,) each; no (a, b) comes twice once `merged`."""

    a: I64
    b: I64
    count: I64
    total: F64

    @classmethod
    def none(cls) -> "Cells":
        """No sums at all."""
        zero = np.zeros(0, dtype=np.int64)
        return cls(zero, zero, zero, np.zeros(0))

    @classmethod
    def concatenated(cls, parts: Iterable["Cells"]) -> "Cells":
        """All cells of some parts, equal keys still apart."""
        columns = zip(*((p.a, p.b, p.count, p.total) for p in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    def merged(self) -> "Cells":
        """Equal keys added up, in the order of (a, b)."""
        if not len(self.a):
            return self
        order = np.lexsort((self.b, self.a))
        a, b = self.a[order], self.b[order]
        first = np.flatnonzero(np.append(True, (a[1:] != a[:-1]) | (b[1:] != b[:-1])))
        return Cells(
            a[first],
            b[first],
            np.add.reduceat(self.count[order], first),
            np.add.reduceat(self.total[order], first),
        )


@dataclass
class Ledger:
    """Sums that grow: cells by (measure, name)."""

    parts: dict[tuple[str, str], list[Cells]] = field(default_factory=dict)

    def count(self, measure: str, rows: int, total: float = 0.0, *, a: int = 0, b: int = 0) -> None:
        """Add to one cell."""
        self.put(measure, Cells(np.array([a]), np.array([b]), np.array([rows]), np.array([total])))

    def tally(
        self,
        measure: str,
        a: npt.NDArray[np.generic],
        b: npt.NDArray[np.generic] | None = None,
        weights: F64 | None = None,
        *,
        name: str = "",
    ) -> None:
        """Count every (a[i], b[i]); `total` grows by weights[i]."""
        keys = a.astype(np.int64)
        other = np.zeros_like(keys) if b is None else b.astype(np.int64)
        totals = np.zeros(len(keys)) if weights is None else weights
        self.put(measure, Cells(keys, other, np.ones_like(keys), totals).merged(), name)

    def put(self, measure: str, cells: Cells, name: str = "") -> None:
        """Add cells."""
        if not len(cells.a):
            return
        parts = self.parts.setdefault((measure, name), [])
        parts.append(cells)
        if len(parts) > 1 and sum(len(part.a) for part in parts) > _LOOSE:
            parts[:] = [Cells.concatenated(parts).merged()]

    def table(self) -> pa.Table:
        """All sums in `SCHEMA`, no key twice."""
        tables = [
            _table(measure, name, Cells.concatenated(parts).merged())
            for (measure, name), parts in self.parts.items()
        ]
        return pa.concat_tables(tables) if tables else SCHEMA.empty_table()


def _table(measure: str, name: str, cells: Cells) -> pa.Table:
    n = len(cells.a)
    words = [pa.array([word] * n, pa.string()) for word in (measure, name)]
    numbers = [pa.array(column) for column in (cells.a, cells.b, cells.count, cells.total)]
    return pa.table([*words, *numbers], schema=SCHEMA)


@dataclass(frozen=True)
class Sums:
    """Sums of the whole, by (measure, name)."""

    cells: dict[tuple[str, str], Cells]

    @classmethod
    def of(cls, table: pa.Table) -> "Sums":
        """From a table in `SCHEMA`; equal keys are added up."""
        cells: dict[tuple[str, str], Cells] = {}
        encoded = [
            table.column(key).combine_chunks().dictionary_encode() for key in ("measure", "name")
        ]
        codes = [np.asarray(column.indices).astype(np.int64) for column in encoded]
        values = [np.asarray(table.column(key)) for key in ("a", "b", "count", "total")]
        group = codes[0] * (1 + codes[1].max(initial=0)) + codes[1]
        for code in np.unique(group):
            at = np.flatnonzero(group == code)
            key = tuple(
                column.dictionary[int(index[at[0]])].as_py()
                for column, index in zip(encoded, codes, strict=True)
            )
            cells[key] = Cells(*(value[at] for value in values)).merged()
        return cls(cells)

    def __contains__(self, measure: str) -> bool:
        return (measure, "") in self.cells

    def of_measure(self, measure: str, name: str = "") -> Cells:
        """The cells of a measure, none where nothing was counted."""
        return self.cells.get((measure, name), Cells.none())

    def count(self, measure: str, a: int = 0, b: int = 0, *, name: str = "") -> int:
        """One count, 0 where nothing was counted."""
        cells = self.of_measure(measure, name)
        return int(cells.count[(cells.a == a) & (cells.b == b)].sum())

    def dense(self, measure: str, size: int, b: int | None = None) -> I64:
        """Counts (size,) by `a`, of one `b` or over all; an `a` beyond the end is the last."""
        cells = self.of_measure(measure)
        chosen = slice(None) if b is None else cells.b == b
        dense = np.zeros(size, dtype=np.int64)
        np.add.at(dense, np.minimum(cells.a[chosen], size - 1), cells.count[chosen])
        return dense

    def dense_total(self, measure: str, size: int) -> F64:
        """Totals (size,) by `a`."""
        cells = self.of_measure(measure)
        dense = np.zeros(size)
        np.add.at(dense, cells.a, cells.total)
        return dense

    def names(self, measure: str) -> list[str]:
        """The names under which a measure was counted."""
        return sorted(name for found, name in self.cells if found == measure)
