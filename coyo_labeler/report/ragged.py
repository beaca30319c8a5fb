"""List columns of an Arrow batch as flat NumPy arrays."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler.formats.label_lists import check_label_lists, read_label_lists

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Ragged:
    """The candidates of some images, flattened: image i has `lengths[i]` of them, in order.

    lengths: (images,); labels: (nnz,) class; probs: (nnz,) probability.
    """

    lengths: I64
    labels: I64
    probs: F64

    @property
    def images(self) -> int:
        """The number of images."""
        return len(self.lengths)

    @property
    def starts(self) -> I64:
        """(images,) index of the first candidate of each image."""
        starts: I64 = np.cumsum(self.lengths) - self.lengths
        return starts

    @property
    def image(self) -> I64:
        """(nnz,) index of the image of each candidate."""
        return np.repeat(np.arange(self.images), self.lengths)

    @property
    def rank(self) -> I64:
        """(nnz,) rank of each candidate within its image, from 0."""
        rank: I64 = np.arange(len(self.labels)) - np.repeat(self.starts, self.lengths)
        return rank

    def first(self) -> tuple[I64, F64]:
        """(images,) the first label of each image and its probability; −1 and 0 without labels."""
        labels = np.full(self.images, -1, dtype=np.int64)
        probs = np.zeros(self.images)
        some = self.lengths > 0
        labels[some] = self.labels[self.starts[some]]
        probs[some] = self.probs[self.starts[some]]
        return labels, probs

    def only(self, images: Mask) -> "Ragged":
        """The same images, without the candidates of those outside the mask."""
        keep = images[self.image]
        return Ragged(np.where(images, self.lengths, 0), self.labels[keep], self.probs[keep])

    def hits(self, truth: "Ragged") -> Mask:
        """(nnz,) whether each candidate is among the labels of its image in `truth`."""
        if truth.lengths.max(initial=0) <= 1:  # at most one label per image: no search needed
            expected, _ = truth.first()
            return np.asarray(self.labels == expected[self.image])
        space = 1 + max(self.labels.max(initial=0), truth.labels.max(initial=0))
        hits: Mask = np.isin(self.image * space + self.labels, truth.image * space + truth.labels)
        return hits


def sets_of(batch: pa.RecordBatch, name: str) -> Ragged:
    """A column of label sets; null counts as an empty set."""
    labels = _flat(batch.column(name)).astype(np.int64)
    return Ragged(lengths_of(batch.column(name)), labels, np.ones(len(labels)))


def candidates_of(
    batch: pa.RecordBatch, source: str, labels: str, probs: str, classes: int
) -> Ragged:
    """Two list columns, labels and their descending probabilities; a null is an empty list.

    source: the setting that named the table, for messages. classes: size of the label space.

    Raises: InputError naming the image whose lists are invalid.
    """
    lists = read_label_lists(batch, source, labels, probs)
    check_label_lists(lists, source, classes=classes, distinct=True, falling=True)
    return Ragged(lists.lengths, lists.label.astype(np.int64), lists.probability)


def lengths_of(column: pa.ListArray) -> I64:
    """(rows,) the length of each list, 0 for a null."""
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False)).astype(np.int64)


def _flat(column: pa.ListArray) -> npt.NDArray[np.generic]:
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False))
