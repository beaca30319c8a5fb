"""What is learned: the posteriors of some images, and their features, in memory.

Images are ordered by fold and then by hash, so that the rows of a fold lie together.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from coyo_labeler import storage
from coyo_labeler.config.learn import LearnSettings
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.columns import check_types
from coyo_labeler.formats.embeddings import EmbeddingFile, Embeddings, read_embeddings
from coyo_labeler.formats.label_lists import LabelLists, check_label_lists, read_label_lists
from coyo_labeler.formats.parquet_splits import Split, plan_splits, read_split
from coyo_labeler.learn.features import normalise
from coyo_labeler.learn.out_of_fold import folds_of, lowest_hash_first
from coyo_labeler.learn.softmax import F32, Map, blocks_of

I64 = NDArray[np.int64]

_ROWS_PER_SPLIT = 500_000
_BATCH = 16_384

_LABELS = pa.schema([schemas.BELIEFS.field(name) for name in ("id", "labels", "label_probs")])
_VOTED = pa.schema([*_LABELS, schemas.POSTERIOR.field("n_votes")])


@dataclass(frozen=True)
class Targets:
    """Posteriors to learn from.

    image: (n,) ids, sorted, distinct. matrix: (n, classes of the label space), each row sums to
    one. rows: images that `labels` has; passed: of them that pass `train_on`.
    """

    image: I64
    matrix: csr_matrix
    rows: int
    passed: int


def read_targets(settings: LearnSettings, classes: int, run: Map) -> Targets:
    """The images to learn from.

    Raises: InputError where `labels` lacks a column, holds a wrong value, or has no such image.
    """
    url = storage.locate(settings.labels, "posterior")
    voted = settings.train_on == "voted"
    splits = plan_splits("labels", url, _LABELS, _ROWS_PER_SPLIT)
    if voted:
        for file in sorted({split.url for split in splits}):
            names = storage.read_footer("labels", file).schema.to_arrow_schema()
            if "n_votes" not in names.names:
                raise InputError(
                    f"labels: {file} has no column 'n_votes', so that nobody knows which images "
                    "have a vote; give the output of merge, or set train_on=confident"
                )
            check_types("labels", file, names, _VOTED)
        splits = plan_splits("labels", url, _VOTED, _ROWS_PER_SPLIT)

    def read(split: Split) -> tuple[LabelLists, int, int]:
        return _read_split(split, settings, classes)

    parts = list(run(read, splits))
    rows, passed = sum(part[1] for part in parts), sum(part[2] for part in parts)
    if not passed:
        wanted = "a vote" if voted else f"a top probability of {settings.confidence:g} or more"
        raise InputError(
            f"labels: no image of {settings.labels} has {wanted}, so there is nothing to learn "
            "from; " + ("collect votes and merge first" if voted else "lower confidence")
        )
    lists = _lowest(_concatenate([part[0] for part in parts]), settings.max_training_images)
    order = np.argsort(lists.image, kind="stable")
    lists = _take(lists, order)
    twice = np.flatnonzero(lists.image[1:] == lists.image[:-1])
    if len(twice):
        raise InputError(
            f"labels: id {lists.image[twice[0]]} has two rows; an id must occur once, drop one"
        )
    shape = (len(lists.image), classes)
    mass = np.add.reduceat(lists.probability, lists.offsets[:-1])
    values = lists.probability / np.repeat(mass, lists.lengths)
    matrix = csr_matrix((values.astype(np.float32), lists.label, lists.offsets), shape=shape)
    return Targets(np.asarray(lists.image, np.int64), matrix, rows, passed)


def _read_split(split: Split, settings: LearnSettings, classes: int) -> tuple[LabelLists, int, int]:
    """The images of a split to learn from, how many it has, and how many pass `train_on`."""
    kept: list[LabelLists] = []
    rows = passed = 0
    for table in read_split(split, batch_rows=_BATCH):
        source = f"labels: {split.url}"
        lists = read_label_lists(table, source)
        check_label_lists(lists, source, classes=classes, distinct=True)
        filled = lists.lengths > 0
        top = np.zeros(len(filled))
        top[filled] = (
            np.maximum.reduceat(lists.probability, lists.offsets[:-1][filled])
            if (filled.any())
            else 0.0
        )
        if settings.train_on == "voted":
            votes = table["n_votes"].fill_null(0).to_numpy()
            wanted = votes > 0
        else:
            wanted = top >= settings.confidence
        wanted &= top > 0  # an empty list says nothing
        rows += table.num_rows
        passed += int(wanted.sum())
        kept.append(_take(lists, np.flatnonzero(wanted)))
        if sum(len(part.image) for part in kept) > 2 * settings.max_training_images:
            kept = [_lowest(_concatenate(kept), settings.max_training_images)]
    return _concatenate(kept), rows, passed


def _lowest(lists: LabelLists, most: int) -> LabelLists:
    """The images of the lowest hash."""
    if len(lists.image) <= most:
        return lists
    return _take(lists, np.argsort(lowest_hash_first(lists.image), kind="stable")[:most])


def _take(lists: LabelLists, rows: I64) -> LabelLists:
    lengths = lists.lengths[rows]
    offsets = np.append(0, np.cumsum(lengths))
    entries = np.repeat(lists.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
    return LabelLists(lists.image[rows], offsets, lists.label[entries], lists.probability[entries])


def _concatenate(parts: list[LabelLists]) -> LabelLists:
    if not parts:
        empty = np.zeros(0, np.int64)
        return LabelLists(empty, np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0))
    lengths = np.concatenate([part.lengths for part in parts])
    return LabelLists(
        np.concatenate([part.image for part in parts]),
        np.append(0, np.cumsum(lengths)),
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.probability for part in parts]),
    )


@dataclass(frozen=True)
class TrainingSet:
    """Images with features and posteriors, by fold.

    image: (n,) ids. features: (n, d), rows of unit length. targets: (n, C) over the classes that
    occur. classes: (C,) the labels of these. fold: (n,) ascending. found: how many images to learn
    from have features; n may be fewer.
    """

    image: I64
    features: F32
    targets: csr_matrix
    classes: I64
    fold: I64
    found: int

    def rows_of(self, fold: int) -> slice:
        """The rows of a fold."""
        first, last = np.searchsorted(self.fold, [fold, fold + 1])
        return slice(int(first), int(last))

    def blocks(self, without: int | None = None) -> list[slice]:
        """Blocks of rows, those of one fold left out."""
        folds = range(int(self.fold[-1]) + 1)
        spans = [self.rows_of(fold) for fold in folds if fold != without]
        return [block for span in spans for block in blocks_of(span.start, span.stop)]


def gather(
    targets: Targets, embeddings: Embeddings, settings: LearnSettings, run: Map
) -> TrainingSet:
    """The features of the images to learn from; images without features are left out.

    Raises: InputError where no image has features, or an id has two rows of features.
    """
    fold = folds_of(targets.image, settings.folds)
    order = np.lexsort((lowest_hash_first(targets.image), fold))
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    features = np.zeros((len(order), embeddings.features), np.float32)
    filled = np.zeros(len(order), dtype=bool)
    lock = threading.Lock()

    def fill(file: EmbeddingFile) -> None:
        for ids, matrix in _wanted(file, embeddings.features, targets.image):
            rows = position[np.searchsorted(targets.image, ids)]
            with lock:
                twice = filled[rows] | (np.bincount(rows, minlength=1)[rows] > 1)
                filled[rows] = True
            if twice.any():
                raise InputError(
                    f"embeddings: {file.url}: id {ids[twice.argmax()]} has two rows of features; "
                    "keep one per image"
                )
            features[rows] = normalise(matrix)

    for _ in run(fill, embeddings.files):
        pass
    if not filled.any():
        raise InputError(
            f"embeddings: none of the {len(order):,} images to learn from has features in "
            f"{settings.embeddings}; give the features of the images of labels (by the same ids)"
        )
    chosen = order[filled]
    if not filled.all():
        features = _closed_up(features, filled)
    matrix = targets.matrix[chosen]
    classes = np.flatnonzero(np.asarray(matrix.sum(axis=0)).ravel() > 0)
    return TrainingSet(
        targets.image[chosen],
        features,
        matrix[:, classes],
        classes.astype(np.int64),
        fold[chosen],
        len(chosen),
    )


def _closed_up(features: F32, kept: NDArray[np.bool_]) -> F32:
    """The rows that are kept, at the front of the same memory: two copies may not fit."""
    rows = np.flatnonzero(kept)
    for first in range(0, len(rows), _BATCH):
        block = rows[first : first + _BATCH]
        features[first : first + len(block)] = features[block]  # no row moves down
    return features[: len(rows)]


def _wanted(file: EmbeddingFile, features: int, image: I64) -> Iterator[tuple[I64, F32]]:
    for ids, matrix in read_embeddings(file, features, _BATCH):
        index = np.minimum(np.searchsorted(image, ids), len(image) - 1)
        kept = image[index] == ids
        if kept.any():
            yield ids[kept], matrix[kept]
