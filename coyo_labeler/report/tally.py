"""One pass over rows of labels: everything that the report needs, as sums that add up.

A `Tally` takes Arrow batches and gives a tall table of sums (`SCHEMA`). Tallies of parts of the
data, added by (measure, name, a, b), are the tally of the whole.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler.errors import InputError

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

#: Probability thresholds of COYO-Labeled-300M's published table.
THRESHOLDS = (0.0, 0.05, 0.10, 0.15, 0.20, 0.25)
#: Equal bins of [0, 1] for distributions of probability and risk.
UNIT_BINS = 200
#: Equal bins of [0, 1] of the reliability diagram.
RELIABILITY_BINS = 15
#: Bins per octave of image sides, and the width of a bin of entropy, in nats.
BINS_PER_OCTAVE = 8
ENTROPY_BIN = 0.05
#: Ranks looked at for top-k accuracy.
TOP_K = 5

#: One sum. measure: what was counted; name: of a slice, else empty; a, b: classes or bins;
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


@dataclass(frozen=True)
class Ragged:
    """Lists of candidates, flattened: image i owns `lengths[i]` of them.

    lengths: (images,); labels: (nnz,) class; probs: (nnz,) probability.
    """

    lengths: I64
    labels: I64
    probs: F64

    @property
    def rows(self) -> int:
        """How many images."""
        return len(self.lengths)

    @property
    def starts(self) -> I64:
        """(images,) where the list of each begins."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def row(self) -> I64:
        """(nnz,) the image of each candidate."""
        return np.repeat(np.arange(self.rows), self.lengths)

    @property
    def rank(self) -> I64:
        """(nnz,) place of each candidate in its list, 0 first."""
        return np.arange(len(self.labels)) - np.repeat(self.starts, self.lengths)

    def top(self) -> tuple[I64, F64]:
        """The first label of every image, −1 where it has none, and its probability (0)."""
        labels = np.full(self.rows, -1, dtype=np.int64)
        probs = np.zeros(self.rows)
        some = self.lengths > 0
        labels[some] = self.labels[self.starts[some]]
        probs[some] = self.probs[self.starts[some]]
        return labels, probs


def ragged(batch: pa.RecordBatch, labels: str, probs: str | None) -> Ragged:
    """The list columns of a batch, flattened; a null list is an empty one.

    Raises: InputError where lists of one row differ in length or are not sorted.
    """
    lengths = _lengths(batch.column(labels))
    flat = np.asarray(batch.column(labels).flatten().to_numpy(zero_copy_only=False))
    if probs is None:
        return Ragged(lengths, flat.astype(np.int64), np.ones(len(flat)))
    weights = batch.column(probs)
    if not np.array_equal(lengths, _lengths(weights)):
        raise InputError(
            f"report: a row has more {labels} than {probs} or fewer; write the table again"
        )
    values = np.asarray(weights.flatten().to_numpy(zero_copy_only=False)).astype(np.float64)
    found = Ragged(lengths, flat.astype(np.int64), values)
    steps = np.diff(values) > 0
    steps[found.starts[(found.starts > 0) & (found.starts < len(values))] - 1] = False
    if steps.any():
        raise InputError(
            f"report: {labels} of some rows are not sorted by falling {probs}; sort them first"
        )
    return found


def _lengths(column: pa.ListArray) -> I64:
    lengths: I64 = np.asarray(
        pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    ).astype(np.int64)
    return lengths


@dataclass
class Tally:
    """Sums over the batches that were added. classes: size of the label space."""

    classes: int
    sums: dict[tuple[str, str], dict[tuple[int, int], list[float]]] = field(default_factory=dict)
    dense: dict[tuple[str, int], I64] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch: `labels, label_probs, width, height`, and where present `n_votes, risk,
        entropy, gold` (list), `other_labels, other_probs`, `slices` (list).
        """
        names = set(batch.schema.names)
        own = ragged(batch, "labels", "label_probs")
        if own.labels.size and (own.labels.min() < 0 or own.labels.max() >= self.classes):
            worst = own.labels.max() if own.labels.max() >= self.classes else own.labels.min()
            raise InputError(
                f"report: labels: label {worst} is outside label_space (0..{self.classes - 1}); "
                "set label_space to the space that these labels index"
            )
        top, confidence = own.top()
        self._count_labels(own, top, confidence)
        self._count_sizes(batch)
        if "n_votes" in names:
            self._count_posterior(batch)
        truth = ragged(batch, "gold", None) if "gold" in names else None
        correct = self._count_gold("", own, truth) if truth is not None else None
        if "other_labels" in names:
            other = ragged(batch, "other_labels", "other_probs")
            self._count_agreement(batch, own, other, truth, correct)
        if correct is not None and truth is not None:
            known = truth.lengths > 0
            if "n_votes" in names:
                votes = _integers(batch, "n_votes")
                self._pairs("accuracy_by_votes", np.minimum(votes, 10)[known], correct[known])
            if "slices" in names:
                self._count_slices(batch, known, correct)

    def _count_labels(self, own: Ragged, top: I64, confidence: F64) -> None:
        for index, threshold in enumerate(THRESHOLDS):
            kept = own.labels if index == 0 else own.labels[own.probs >= threshold]
            self._dense("labels", index, kept)
            images = (own.lengths > 0) & (confidence >= threshold)
            self._one("kept", index, 0, int(images.sum()))
        some = own.lengths > 0
        self._one("rows", 0, 0, own.rows)
        self._one("empty", 0, 0, int((~some).sum()))
        self._one("mass", 0, 0, own.rows, total=float(own.probs.sum()))
        self._dense("top1", 0, top[some])
        self._pairs("confidence", unit_bin(confidence[some], UNIT_BINS))

    def _count_sizes(self, batch: pa.RecordBatch) -> None:
        width, height = _integers(batch, "width"), _integers(batch, "height")
        known = (width > 0) & (height > 0)
        self._one("sizes_unknown", 0, 0, int((~known).sum()))
        self._pairs("sizes", octave_bin(width[known]), octave_bin(height[known]))

    def _count_posterior(self, batch: pa.RecordBatch) -> None:
        votes = _integers(batch, "n_votes")
        self._pairs("n_votes", votes)
        risk = unit_bin(_floats(batch, "risk"), UNIT_BINS)
        self._pairs("risk", risk, (votes > 0).astype(np.int64))
        entropy = np.maximum(_floats(batch, "entropy"), 0.0)
        self._pairs("entropy", (entropy / ENTROPY_BIN).astype(np.int64))

    def _count_gold(self, whose: str, own: Ragged, truth: Ragged) -> npt.NDArray[np.bool_]:
        """Count hits; returns for each image whether its first label is true."""
        space = max(self.classes, int(truth.labels.max(initial=0)) + 1)
        true_keys = truth.row * space + truth.labels
        hit = np.isin(own.row * space + own.labels, true_keys)
        known = truth.lengths > 0
        top, confidence = own.top()
        rank = own.rank
        correct = np.zeros(own.rows, dtype=bool)
        correct[own.row[hit & (rank == 0)]] = True
        within = np.zeros(own.rows, dtype=bool)
        within[own.row[hit & (rank < TOP_K)]] = True
        self._one(whose + "gold_rows", 0, 0, int(known.sum()))
        self._one(whose + "gold_top1", 0, 0, int((correct & known).sum()))
        self._one(whose + "gold_top5", 0, 0, int((within & known).sum()))
        bins = unit_bin(confidence[known], RELIABILITY_BINS)
        self._pairs(whose + "reliability", bins, correct[known], confidence[known])
        single = truth.lengths == 1
        expected = truth.labels[truth.starts[single]]
        self._pairs(whose + "confusion", expected, top[single])
        return correct

    def _count_agreement(
        self,
        batch: pa.RecordBatch,
        own: Ragged,
        other: Ragged,
        truth: Ragged | None,
        correct: npt.NDArray[np.bool_] | None,
    ) -> None:
        both = np.asarray(pc.is_valid(batch.column("other_labels")), dtype=bool)
        top, _ = own.top()
        before, confidence = other.top()
        self._one("other_rows", 0, 0, int(both.sum()))
        self._pairs("agreement", before[both], top[both])
        self._pairs("other_risk", unit_bin(1.0 - confidence[both], UNIT_BINS))
        if truth is None or correct is None:
            return
        was = self._count_gold("other_", other, _only(truth, both))
        known = both & (truth.lengths > 0)
        self._pairs("changed", was[known], correct[known])

    def _count_slices(
        self, batch: pa.RecordBatch, known: npt.NDArray[np.bool_], correct: npt.NDArray[np.bool_]
    ) -> None:
        column = batch.column("slices")
        lengths = _lengths(column)
        row = np.repeat(np.arange(len(lengths)), lengths)
        names = np.asarray(column.flatten().to_pylist(), dtype=object)
        judged = known[row] if len(row) else np.zeros(0, dtype=bool)
        for name in sorted(set(names[judged])):
            hits = correct[row[judged & (names == name)]]
            self._one("slice", 0, 0, int((~hits).sum()), name=name)
            self._one("slice", 1, 0, int(hits.sum()), name=name)

    def _one(
        self, measure: str, a: int, b: int, count: int, *, total: float = 0.0, name: str = ""
    ) -> None:
        cell = self.sums.setdefault((measure, name), {}).setdefault((a, b), [0, 0.0])
        cell[0] += count
        cell[1] += total

    def _pairs(
        self,
        measure: str,
        a: npt.NDArray[Any],
        b: npt.NDArray[Any] | None = None,
        weights: F64 | None = None,
    ) -> None:
        """Count how often each (a, b) occurs, and the sum of `weights` over them."""
        if not len(a):
            return
        keys = np.stack([a.astype(np.int64), np.zeros(len(a), np.int64) if b is None else b])
        cells, where, counts = np.unique(keys, axis=1, return_inverse=True, return_counts=True)
        where = where.reshape(-1)
        totals = np.bincount(where, weights, len(counts)) if weights is not None else None
        for index, count in enumerate(counts):
            total = float(totals[index]) if totals is not None else 0.0
            self._one(measure, int(cells[0, index]), int(cells[1, index]), int(count), total=total)

    def _dense(self, measure: str, b: int, labels: I64) -> None:
        counts = np.bincount(labels, minlength=self.classes)
        self.dense[measure, b] = self.dense.get((measure, b), 0) + counts

    def table(self) -> pa.Table:
        """The sums so far, in `SCHEMA`."""
        rows = [
            (measure, name, a, b, int(count), float(total))
            for (measure, name), cells in self.sums.items()
            for (a, b), (count, total) in cells.items()
        ]
        for (measure, b), counts in self.dense.items():
            rows += [(measure, "", int(a), b, int(counts[a]), 0.0) for a in np.flatnonzero(counts)]
        columns = zip(*rows, strict=True) if rows else [[] for _ in SCHEMA]
        return pa.table(
            [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
        )


def unit_bin(values: F64, bins: int) -> I64:
    """The bin of each value of [0, 1] among `bins` equal ones; 1 belongs to the last."""
    return np.clip((values * bins).astype(np.int64), 0, bins - 1)


def octave_bin(pixels: I64) -> I64:
    """The bin of each side in pixels, `BINS_PER_OCTAVE` to a doubling."""
    return np.floor(np.log2(pixels) * BINS_PER_OCTAVE + 1e-9).astype(np.int64)


def _only(lists: Ragged, rows: npt.NDArray[np.bool_]) -> Ragged:
    """The same lists, empty outside `rows`."""
    keep = rows[lists.row]
    return Ragged(np.where(rows, lists.lengths, 0), lists.labels[keep], lists.probs[keep])


def _integers(batch: pa.RecordBatch, name: str) -> I64:
    values: I64 = pc.fill_null(batch.column(name), 0).to_numpy(zero_copy_only=False)
    return values.astype(np.int64)


def _floats(batch: pa.RecordBatch, name: str) -> F64:
    values: F64 = pc.fill_null(batch.column(name), 0.0).to_numpy(zero_copy_only=False)
    return values.astype(np.float64)
