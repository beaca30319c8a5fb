"""A file of features to a file of beliefs: scoring, streaming, and the commit of the result."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coyo_labeler import storage
from coyo_labeler.formats import schemas
from coyo_labeler.formats.embeddings import EmbeddingFile, read_embeddings
from coyo_labeler.learn.model import Learner
from coyo_labeler.learn.out_of_fold import folds_of
from coyo_labeler.learn.softmax import F32, Softmax
from coyo_labeler.learn.teacher import (
    RowGroups,
    checked_lists,
    log_beliefs,
    mass_elsewhere,
    read_beliefs,
)
from coyo_labeler.learn.top_k import top_k
from coyo_labeler.manifest import Counts
from coyo_labeler.receipts import Receipt, Receipts
from coyo_labeler.written import describe_files

I64 = NDArray[np.int64]
T = TypeVar("T")
R = TypeVar("R")

#: Rows of a batch: as many as keep its logits in a cache, but enough to multiply well.
_FEWEST_ROWS, _MOST_ROWS, _NUMBERS = 192, 4096, 1_000_000


@dataclass(frozen=True)
class Job:
    """The work of a run, as every process gets it.

    features: numbers per image. beliefs: where the teacher's lie, if there is one.
    """

    output: str
    fingerprint: str
    features: int
    top_k: int
    beliefs: RowGroups | None


class Scorer:
    """A learner, ready to score: the centring of features is part of its intercepts."""

    def __init__(self, learner: Learner, job: Job) -> None:
        self.learner, self.job = learner, job
        self._whole = _folded(learner.whole, learner)
        self._by_fold = {fold: _folded(model, learner) for fold, model in learner.by_fold.items()}
        self._unseen = float(learner.metrics["unseen_mass"])

    def score(self, image: I64, features: F32, rows: pa.Table | None) -> pa.Table:
        """Beliefs (schemas.BELIEFS) of some images.

        image: (n,). features: (n, d). rows: the teacher's of these images, those that it has.
        """
        learner, job = self.learner, self.job
        scores = self._scores(image, features)
        n = len(image)
        believed = np.zeros(n, dtype=bool)
        elsewhere = np.full(n, self._unseen)
        place = np.zeros(n, np.int64)
        if rows is not None and rows.num_rows:
            ids = rows["id"].to_numpy()
            place = np.minimum(np.searchsorted(ids, image), len(ids) - 1)
            believed = ids[place] == image
            own = rows.take(pa.array(place[believed]))
            teacher = log_beliefs(own, learner.classes, learner.of_classes)
            weights = learner.pool
            teacher *= np.float32(weights.teacher)
            teacher += np.float32(weights.learner) * scores[believed]
            scores[believed] = teacher
            elsewhere[believed] = mass_elsewhere(own, learner.classes, learner.of_classes)
        column, value = top_k(scores, job.top_k)
        scores -= value[:, :1]
        total = np.exp(scores, out=scores).sum(axis=1)
        chance = np.exp((value - value[:, :1]).astype(np.float64)) / total[:, np.newaxis]
        probability = chance * (1 - elsewhere)[:, np.newaxis]
        label = learner.classes[column]
        if believed.any():
            label, probability = self._with_others(label, probability, believed, own)
        return _table(image, label, probability, believed, place, rows)

    def _scores(self, image: I64, features: F32) -> F32:
        """Logits of the learner's classes, (n, C); out of fold for images it was trained on."""
        learner = self.learner
        length = np.sqrt(np.einsum("nd,nd->n", features, features))
        scale = np.where(length > 0, 1.0 / np.maximum(length, 1e-30), 0.0).astype(np.float32)
        scores = _logits(self._whole, features, scale)
        index = np.minimum(np.searchsorted(learner.image, image), len(learner.image) - 1)
        trained = learner.image[index] == image
        if trained.any():
            fold = np.where(trained, folds_of(image, learner.folds), -1)
            for number in np.unique(fold[trained]):
                own = fold == number
                scores[own] = _logits(self._by_fold[int(number)], features[own], scale[own])
        if learner.sharpness != 1.0:
            scores *= np.float32(learner.sharpness)
        return scores

    def _with_others(
        self,
        label: I64,
        probability: NDArray[np.float64],
        believed: NDArray[np.bool_],
        own: pa.Table,
    ) -> tuple[I64, NDArray[np.float64]]:
        """The classes of the teacher that the learner does not know, among the others."""
        learner = self.learner
        lists = checked_lists(own, learner.of_classes)
        inside = np.zeros(learner.of_classes, dtype=bool)
        inside[learner.classes] = True
        entry = np.flatnonzero(~inside[lists.label])
        if not len(entry):
            return label, probability
        row = np.repeat(np.arange(len(lists.image)), lists.lengths)
        total = np.bincount(row, lists.probability, len(lists.image))
        scale = (1 - np.maximum(1 - total, 1e-4)) / np.maximum(total, 1e-30)
        row = row[entry]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        width = int(rank.max()) + 1
        extra = np.zeros((len(label), width), np.int64)
        share = np.full((len(label), width), -1.0)
        target = np.flatnonzero(believed)[row]
        extra[target, rank] = lists.label[entry]
        share[target, rank] = lists.probability[entry] * scale[row]
        labels = np.concatenate([label, extra], axis=1)
        shares = np.concatenate([probability, share], axis=1)
        order = np.lexsort((labels, -shares), axis=1)[:, : self.job.top_k]
        return np.take_along_axis(labels, order, 1), np.take_along_axis(shares, order, 1)


def _folded(model: Softmax, learner: Learner) -> Softmax:
    """The same softmax for features that are not centred."""
    shift = learner.centre @ model.coefficients
    return Softmax(model.coefficients, (model.intercept - shift).astype(np.float32))


def _logits(model: Softmax, features: F32, scale: F32) -> F32:
    d, classes = model.coefficients.shape
    if d < classes:  # whichever is less to multiply
        scores: NDArray[Any] = (features * scale[:, np.newaxis]) @ model.coefficients
    else:
        scores = features @ model.coefficients
        scores *= scale[:, np.newaxis]
    scores += model.intercept
    return np.asarray(scores)


def _table(
    image: I64,
    label: I64,
    probability: NDArray[np.float64],
    believed: NDArray[np.bool_],
    place: I64,
    rows: pa.Table | None,
) -> pa.Table:
    kept = probability > 0
    offsets = np.append(0, np.cumsum(kept.sum(axis=1))).astype(np.int32)
    columns: dict[str, Any] = {
        "id": pa.array(image),
        "labels": pa.ListArray.from_arrays(offsets, pa.array(label[kept].astype(np.int32))),
        "label_probs": pa.ListArray.from_arrays(
            offsets, pa.array(probability[kept].astype(np.float32))
        ),
    }
    for name in ("url", "imagehash", "width", "height"):
        kind = schemas.BELIEFS.field(name).type
        if rows is None or not rows.num_rows:
            columns[name] = pa.nulls(len(image), kind)
        else:
            columns[name] = rows[name].take(pa.array(place, mask=~believed))
    return pa.table(columns).select(schemas.BELIEFS.names).cast(schemas.BELIEFS)


def in_order(pool: Executor, work: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """`work` on every item, results in their order; at most `ahead` are begun and not taken."""
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def batch_rows(classes: int) -> int:
    """How many images are scored at once. It is part of the result: BLAS rounds by shape."""
    return max(_FEWEST_ROWS, min(_MOST_ROWS, _NUMBERS // max(classes, 1)))


def score_file(
    scorer: Scorer, number: int, file: EmbeddingFile, pool: Executor, threads: int
) -> Receipt:
    """Score a file, write its beliefs, then its receipt; returns the receipt."""
    started = time.monotonic()
    job, learner = scorer.job, scorer.learner
    rows_per_batch = batch_rows(len(learner.classes))
    images = out_of_fold = without_belief = 0

    def score(batch: tuple[I64, F32]) -> tuple[pa.Table, int, int]:
        image, features = batch
        rows = None if job.beliefs is None else read_beliefs(job.beliefs, image)
        trained = int(np.isin(image, learner.image, assume_unique=True).sum())
        missing = 0 if rows is None else len(image) - rows.num_rows
        return scorer.score(image, features, rows), trained, missing

    def tables() -> Iterator[pa.Table]:
        nonlocal images, out_of_fold, without_belief
        batches = read_embeddings(file, job.features, rows_per_batch)
        for table, trained, missing in in_order(pool, score, batches, 2 * threads):
            images += table.num_rows
            out_of_fold += trained
            without_belief += missing
            yield table

    name = f"{number:05d}.parquet"
    schema = schemas.BELIEFS.with_metadata(metadata_of(learner))
    storage.write_tables(storage.join(job.output, name), schema, tables())
    details = {
        "out_of_fold": out_of_fold,
        "without_belief": without_belief,
        "files": describe_files(job.output, [name]),
    }
    receipt = Receipt(
        number, job.fingerprint, Counts(images, images), time.monotonic() - started, details
    )
    Receipts(job.output, job.fingerprint).write(receipt)
    return receipt


def metadata_of(learner: Learner) -> dict[str, str]:
    """The learner's fingerprint, for the metadata of files."""
    return {
        "learner.fingerprint": learner.fingerprint,
        "learner.features": str(len(learner.centre)),
        "learner.classes": str(len(learner.classes)),
        "learner.training_images": str(len(learner.image)),
        "learner.folds": str(learner.folds),
        "learner.sharpness": f"{learner.sharpness:.6g}",
        "learner.pool": json.dumps(asdict(learner.pool)),
        "beliefs_are": "categorical",
    }
