"""What a simulation starts from: features, true classes and images that are known at the start."""

import logging
import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coyo_labeler import storage
from coyo_labeler.config.simulate import SimulateSettings
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.embeddings import find_embeddings, read_embeddings
from coyo_labeler.formats.label_lists import check_label_lists, read_label_lists
from coyo_labeler.formats.label_spaces import LabelSpace, load_label_space
from coyo_labeler.formats.pairs import plan_pairs, read_pairs
from coyo_labeler.formats.parquet_splits import plan_splits, read_split
from coyo_labeler.learn.features import normalise
from coyo_labeler.learn.softmax import F32

logger = logging.getLogger(__name__)

I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_BATCH = 16_384
#: More classes than this, and the dense arrays of a simulation are too large.
_MOST_CLASSES = 1000


@dataclass(frozen=True)
class Images:
    """The images of a simulation, by id.

    image: (n,) ids. features: (n, d). truth: (n,) classes. known: (n,) whether it is known at the
    start. left_out: how many true classes are of no image with features. teacher: (n, C) beliefs.
    """

    image: I64
    features: F32
    truth: I64
    known: Bool
    classes: int
    left_out: dict[str, int]
    teacher: F32 | None = None

    def with_features(self, features: F32) -> "Images":
        """The same images with other features."""
        return replace(self, features=features)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a simulation needs of them, by name."""
        arrays: dict[str, NDArray[Any]] = {
            "image": self.image,
            "features": self.features,
            "truth": self.truth,
            "known": self.known,
        }
        return arrays if self.teacher is None else {**arrays, "teacher": self.teacher}


@dataclass(frozen=True)
class Truths:
    """image: (n,) ids, sorted, distinct. label: (n,)."""

    image: I64
    label: I64


def read_truths(key: str, url: str, space: LabelSpace) -> Truths:
    """True classes by image.

    Raises: InputError naming an image that has two, or a label outside the label space.
    """
    tables = [schemas.GOLD.empty_table()]
    for part in plan_pairs(key, url, schemas.GOLD, sys.maxsize):
        tables.extend(read_pairs(key, part, schemas.GOLD, space))
    table = pa.concat_tables(tables).drop_null().sort_by("image_id")
    image = table["image_id"].to_numpy()
    label = table["label"].to_numpy().astype(np.int64)
    twice = np.flatnonzero(image[1:] == image[:-1])
    if len(twice):
        raise InputError(f"{key}: {url}: image {image[twice[0]]} has two rows; keep one per image")
    outside = np.flatnonzero((label < 0) | (label >= space.size))
    if len(outside):
        raise InputError(
            f"{key}: {url}: image {image[outside[0]]} has the label {label[outside[0]]}, which is "
            f"outside label_space (0..{space.size - 1}); correct the row, or set label_space"
        )
    return Truths(image, label)


def read_images(settings: SimulateSettings, least_classes: int = 0) -> Images:
    """The images that have features and a true class.

    least_classes: how many there are at least, by the crowd.

    Raises: InputError naming the key at fault.
    """
    if settings.embeddings is None and settings.beliefs is None:
        raise InputError("embeddings: the learner needs features; give embeddings, beliefs or both")
    space = _label_space(settings)
    gold = read_truths("gold", settings.gold, space)
    seeds = Truths(np.zeros(0, np.int64), np.zeros(0, np.int64))
    if settings.seed_gold is not None:
        seeds = read_truths("seed_gold", settings.seed_gold, space)
    truths = _joined(gold, seeds)
    classes = space.size
    if settings.label_space is None:
        classes = max(int(truths.label.max(initial=-1)) + 1, least_classes, 1)
    if classes > _MOST_CLASSES:
        raise InputError(
            f"gold: {classes:,} classes; a simulation holds {_MOST_CLASSES:,} at most: give gold "
            "of fewer classes, numbered from 0"
        )
    image, features, teacher = _read_features(settings, truths.image, classes)
    known = np.isin(image, seeds.image)
    if known.all():
        raise InputError(
            "gold: no image with features is left besides those of seed_gold; give the true "
            "classes of more images"
        )
    return Images(
        image,
        features,
        truths.label[np.searchsorted(truths.image, image)],
        known,
        classes,
        {"true_classes_without_features": len(truths.image) - len(image)},
        teacher,
    )


def _label_space(settings: SimulateSettings) -> LabelSpace:
    if settings.label_space is not None:
        return load_label_space(settings.label_space)
    return LabelSpace("the classes", sys.maxsize)


def _joined(gold: Truths, seeds: Truths) -> Truths:
    """All true classes. Raises: InputError where both tables have an image, and differ."""
    image = np.union1d(gold.image, seeds.image)
    label = np.empty(len(image), np.int64)
    label[np.searchsorted(image, seeds.image)] = seeds.label
    label[np.searchsorted(image, gold.image)] = gold.label
    differing = np.flatnonzero(label[np.searchsorted(image, seeds.image)] != seeds.label)
    if len(differing):
        raise InputError(
            f"seed_gold: image {seeds.image[differing[0]]} has another class than in gold; correct "
            "one of them"
        )
    if not len(image):
        raise InputError("gold: there is not one true class; give image_id, label")
    return Truths(image, label)


def _read_features(
    settings: SimulateSettings, wanted: I64, classes: int
) -> tuple[I64, F32, F32 | None]:
    """The wanted images by id, their features, and the teacher's beliefs where they are given.

    Features are the embedding, the teacher's centred log probabilities, or both.
    """
    if settings.beliefs is None:
        assert settings.embeddings is not None
        return *_by_id("embeddings", *_read_embeddings(settings.embeddings, wanted)), None
    image, teacher = _by_id("beliefs", *_read_beliefs(settings.beliefs, wanted, classes))
    if settings.embeddings is not None:
        other, features = _by_id("embeddings", *_read_embeddings(settings.embeddings, wanted))
        image, own, others = np.intersect1d(image, other, return_indices=True)
        if not len(image):
            raise InputError("beliefs: no image has both a belief and features; give those of one")
        teacher = teacher[own]
    logs = np.log(teacher)
    logs = normalise(logs - logs.mean(axis=1, keepdims=True))
    if settings.embeddings is not None:
        logs = np.concatenate([features[others], logs], axis=1)
    return image, logs, teacher


def _by_id(key: str, image: I64, rows: F32) -> tuple[I64, F32]:
    """Rows in the order of their ids. Raises: InputError where an id occurs twice."""
    order = np.argsort(image, kind="stable")
    image = image[order]
    twice = np.flatnonzero(image[1:] == image[:-1])
    if len(twice):
        raise InputError(f"{key}: id {image[twice[0]]} has two rows; keep one per image")
    return image, rows if (order[1:] > order[:-1]).all() else rows[order]


def _read_embeddings(url: str, wanted: I64) -> tuple[I64, F32]:
    embeddings = find_embeddings("embeddings", url)
    rows = len(wanted)
    image = np.empty(rows, np.int64)
    features = np.empty((rows, embeddings.features), np.float32)
    filled = 0
    for file in embeddings.files:
        for ids, matrix in read_embeddings(file, embeddings.features, _BATCH):
            kept = np.isin(ids, wanted)
            n = int(kept.sum())
            if filled + n > rows:
                raise InputError(f"embeddings: {url} has an id twice; keep one row per image")
            image[filled : filled + n] = ids[kept]
            features[filled : filled + n] = normalise(matrix[kept])
            filled += n
    if not filled:
        raise InputError(
            f"embeddings: no image of {url} has a true class in gold; give gold of these images "
            "(by the same ids)"
        )
    return image[:filled], features[:filled]


def _read_beliefs(url: str, wanted: I64, classes: int) -> tuple[I64, F32]:
    """Ids, and probabilities of all classes (n, C): what a belief leaves over is spread evenly."""
    columns = pa.schema([schemas.BELIEFS.field(n) for n in ("id", "labels", "label_probs")])
    images, rows = [], []
    for split in plan_splits("beliefs", storage.locate(url, "posterior"), columns, sys.maxsize):
        for table in read_split(split, batch_rows=_BATCH):
            lists = read_label_lists(table, f"beliefs: {split.url}")
            check_label_lists(lists, f"beliefs: {split.url}", classes=classes, distinct=True)
            dense = np.zeros((len(lists.image), classes))
            row = np.repeat(np.arange(len(lists.image)), lists.lengths)
            dense[row, lists.label] = lists.probability
            dense /= np.maximum(dense.sum(axis=1, keepdims=True), 1.0)  # sigmoids sum to more
            left = np.maximum(1 - dense.sum(axis=1, keepdims=True), 1e-4)
            dense += left / classes
            kept = np.isin(lists.image, wanted)
            images.append(np.asarray(lists.image[kept], np.int64))
            rows.append((dense[kept] / dense[kept].sum(axis=1, keepdims=True)).astype(np.float32))
    image = np.concatenate(images) if images else np.zeros(0, np.int64)
    if not len(image):
        raise InputError(f"beliefs: no image of {url} has a true class in gold; give its gold")
    return image, np.concatenate(rows)
