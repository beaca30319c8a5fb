"""Everything that the report needs, as sums from one pass over the rows of labels.

Tallies of parts of the data, added up by key, give the tally of the whole (`sums.Ledger`). `PAIRS`,
`SCORES` and `EXAMPLES` can have many cells: `aggregate` reduces them before they reach the driver.
All other measures have at most a few cells per class.
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler.errors import InputError
from coyo_labeler.formats.published import THRESHOLDS
from coyo_labeler.report.ragged import F64, I64, Mask, Ragged, candidates_of, lengths_of, sets_of
from coyo_labeler.report.sums import Cells, Ledger, key_of
from coyo_labeler.report.tree_tally import TreeTally

#: Equal bins of [0, 1] for distributions of probability and risk.
UNIT_BINS = 300
#: Bins per octave of image sides, and the width of a bin of entropy, in nats.
BINS_PER_OCTAVE = 8
ENTROPY_BIN = 0.05
#: Ranks that count for top-k accuracy.
TOP_K = 5
#: Scores are ranked by their log-odds, in this many equal bins from −LOGIT_END to LOGIT_END.
LOGIT_BINS = 1024
LOGIT_END = 12.0
#: Images with this many votes or more form one group.
MOST_VOTES = 10
#: Label spaces up to this size get a full confusion matrix.
MATRIX_CLASSES = 25

#: Measures of pairs of classes, of scores by class, and of single images worth a look.
PAIRS = ("confusion", "other_confusion", "moves", "tree_confusion", "other_tree_confusion")
SCORES = ("scores", "other_scores")
EXAMPLES = ("uncertain", "changed", "wrong")


@dataclass
class Tally:
    """The sums over all added batches.

    classes: size of the label space. examples: number of images to keep of each kind. tree: what is
    counted along the tree above the classes; None where there is none.
    """

    classes: int
    examples: int = 0
    tree: TreeTally | None = None
    ledger: Ledger = field(default_factory=Ledger)
    by_class: dict[tuple[str, int], I64] = field(default_factory=dict)
    extremes: dict[str, tuple[I64, F64]] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch: `id, labels, label_probs, width, height`, and where present `n_votes,
        risk, entropy, gold` (list), `other_labels, other_probs`, `slices` (list).

        Raises: InputError if a label is outside the label space, or a list is malformed.
        """
        columns = set(batch.schema.names)
        own = candidates_of(batch, "report: labels", "labels", "label_probs", self.classes)
        first, confidence = own.first()
        ids = _integers(batch, "id")
        self._count_labels(own, first, confidence)
        self._count_sizes(batch)
        if self.tree is not None:
            self.tree.count_lists(self.ledger, own)
        self._keep("uncertain", ids, 1.0 - confidence, own.lengths > 0)
        votes = _integers(batch, "n_votes") if "n_votes" in columns else None
        if votes is not None:
            self._count_posterior(batch, votes)
        truth = sets_of(batch, "gold") if "gold" in columns else None
        if truth is not None:
            self._check_gold(truth)
        right = self._judge("", own, truth) if truth is not None else None
        if "other_labels" in columns:
            self._compare(batch, ids, own, truth, right)
        if truth is None or right is None:
            return
        known = truth.lengths > 0
        self._keep("wrong", ids, confidence, known & ~right)
        if votes is not None:
            self.ledger.tally("by_votes", np.minimum(votes, MOST_VOTES)[known], right[known])
        if "slices" in columns:
            self._count_slices(batch, known, right)

    def total(self) -> Ledger:
        """The sums so far, of all measures."""
        ledger = Ledger({key: list(parts) for key, parts in self.ledger.parts.items()})
        for (measure, b), counts in self.by_class.items():
            used = np.flatnonzero(counts)
            keys = key_of(used, np.full_like(used, b))
            ledger.put(measure, Cells(keys, counts[used], np.zeros(len(used))))
        for kind, (ids, scores) in self.extremes.items():
            ledger.put(kind, Cells(ids, np.ones_like(ids), scores))
        return ledger

    def _check_gold(self, truth: Ragged) -> None:
        labels = truth.labels
        if labels.size and (labels.min() < 0 or labels.max() >= self.classes):
            worst = labels.max() if labels.max() >= self.classes else labels.min()
            raise InputError(
                f"report: gold: label {worst} is outside label_space (0..{self.classes - 1}); "
                "set label_space to the one that these labels index"
            )

    def _count_labels(self, own: Ragged, first: I64, confidence: F64) -> None:
        some = own.lengths > 0
        for index, threshold in enumerate(THRESHOLDS):
            labels = own.labels if index == 0 else own.labels[own.probs >= threshold]
            self._count_classes("labels", labels, index)
            images = int((some & (confidence >= threshold)).sum())
            self.ledger.count("kept", images, a=index)
        self.ledger.count("rows", own.images)
        self.ledger.count("empty", int((~some).sum()))
        self._count_classes("first", first[some])
        self.ledger.tally("confidence", unit_bin(confidence[some]))

    def _count_sizes(self, batch: pa.RecordBatch) -> None:
        width, height = _integers(batch, "width"), _integers(batch, "height")
        known = (width > 0) & (height > 0)
        self.ledger.count("sizes_unknown", int((~known).sum()))
        self.ledger.tally("sizes", octave_bin(width[known]), octave_bin(height[known]))

    def _count_posterior(self, batch: pa.RecordBatch, votes: I64) -> None:
        self.ledger.tally("n_votes", votes)
        self.ledger.tally("risk", unit_bin(_floats(batch, "risk")), votes > 0)
        entropy = np.maximum(_floats(batch, "entropy"), 0.0)
        self.ledger.tally("entropy", (entropy / ENTROPY_BIN).astype(np.int64))

    def _judge(self, prefix: str, own: Ragged, truth: Ragged) -> Mask:
        """Count hits; returns whether the first label of each image is true, (images,).

        prefix: of the measures, "" or "other_".
        """
        hit, rank, image = own.hits(truth), own.rank, own.image
        first, confidence = own.first()
        known = truth.lengths > 0
        right, within = np.zeros((2, own.images), dtype=bool)
        right[image[hit & (rank == 0)]] = True
        if self.tree is not None:
            self.tree.count_truth(self.ledger, prefix, own, truth)
        within[image[hit & (rank < TOP_K)]] = True
        ledger = self.ledger
        ledger.count(prefix + "known", int(known.sum()))
        ledger.count(prefix + "within", int((within & known).sum()))
        ledger.tally(prefix + "right", unit_bin(confidence[known]), right[known], confidence[known])
        self._count_classes(prefix + "true", truth.labels)
        judged = known[image]
        for index, threshold in enumerate(THRESHOLDS):
            above = judged & (own.probs >= threshold)
            ledger.count(prefix + "kept_labels", int(above.sum()), a=index)
            ledger.count(prefix + "kept_hits", int((above & hit).sum()), a=index)
        bins = logit_bin(own.probs[judged])
        ledger.tally(prefix + "scores", own.labels[judged], 2 * bins + hit[judged])
        ledger.tally(prefix + "pooled", bins, hit[judged])
        single = truth.lengths == 1
        expected = truth.labels[truth.starts[single]]
        given = first[single]
        ledger.tally(prefix + "confusion", expected, given, confidence[single])
        self._count_classes(prefix + "support", expected)
        self._count_classes(prefix + "predicted", given[given >= 0])
        self._count_classes(prefix + "correct", expected[expected == given])
        return right

    def _compare(
        self,
        batch: pa.RecordBatch,
        ids: I64,
        own: Ragged,
        truth: Ragged | None,
        right: Mask | None,
    ) -> None:
        both = np.asarray(pc.is_valid(batch.column("other_labels")), dtype=bool)
        other = candidates_of(batch, "report: compare", "other_labels", "other_probs", self.classes)
        now, confidence = own.first()
        before, other_confidence = other.first()
        self.ledger.count("both", int(both.sum()))
        self.ledger.tally("moves", before[both], now[both])
        self._count_classes("was", before[both & (before >= 0)])
        self._count_classes("stayed", now[both & (before == now) & (now >= 0)])
        self.ledger.tally("other_risk", unit_bin(1.0 - other_confidence[both]))
        # The probability that the other folder gives to our first label.
        former = np.zeros(own.images)
        same = other.labels == now[other.image]
        former[other.image[same]] = other.probs[same]
        self._keep("changed", ids, confidence - former, both & (before != now) & (now >= 0))
        if truth is None or right is None:
            return
        was = self._judge("other_", other, truth.only(both))
        known = both & (truth.lengths > 0)
        self.ledger.tally("changed_right", was[known], right[known])

    def _count_slices(self, batch: pa.RecordBatch, known: Mask, right: Mask) -> None:
        column = batch.column("slices")
        image = np.repeat(np.arange(batch.num_rows), lengths_of(column))
        names = column.flatten().dictionary_encode()
        codes = np.asarray(names.indices).astype(np.int64)
        for code, name in enumerate(names.dictionary.to_pylist()):
            hits = right[image[(codes == code) & known[image]]]
            self.ledger.tally("slice", hits, name=name)

    def _count_classes(self, measure: str, labels: I64, b: int = 0) -> None:
        counts = np.bincount(labels, minlength=self.classes)
        before = self.by_class.get((measure, b))
        self.by_class[measure, b] = counts if before is None else before + counts

    def _keep(self, kind: str, ids: I64, scores: F64, candidates: Mask) -> None:
        """Keep the images with the highest scores, ties by id."""
        if not self.examples:
            return
        former_ids, former_scores = self.extremes.get(kind, (np.zeros(0, np.int64), np.zeros(0)))
        ids = np.concatenate([former_ids, ids[candidates]])
        scores = np.concatenate([former_scores, scores[candidates]])
        best = np.lexsort((ids, -scores))[: self.examples]
        self.extremes[kind] = ids[best], scores[best]


def unit_bin(values: F64) -> I64:
    """The bin of each value of [0, 1] among `UNIT_BINS`; 1 falls into the last."""
    return np.clip((values * UNIT_BINS).astype(np.int64), 0, UNIT_BINS - 1)


def logit_bin(probs: F64) -> I64:
    """The bin of each probability's log-odds among `LOGIT_BINS`, open at both ends."""
    tiny = 1e-9
    logits = np.log(np.clip(probs, tiny, 1)) - np.log(np.clip(1 - probs, tiny, 1))
    scaled = (logits + LOGIT_END) / (2 * LOGIT_END) * LOGIT_BINS
    return np.clip(scaled.astype(np.int64), 0, LOGIT_BINS - 1)


def octave_bin(pixels: I64) -> I64:
    """The bin of each side in pixels, `BINS_PER_OCTAVE` to a doubling."""
    return np.floor(np.log2(pixels) * BINS_PER_OCTAVE + 1e-9).astype(np.int64)


def _integers(batch: pa.RecordBatch, name: str) -> I64:
    column = pc.fill_null(batch.column(name), 0)
    return np.asarray(column.to_numpy(zero_copy_only=False)).astype(np.int64)


def _floats(batch: pa.RecordBatch, name: str) -> F64:
    column = pc.fill_null(batch.column(name), 0.0)
    return np.asarray(column.to_numpy(zero_copy_only=False)).astype(np.float64)
