"""A file of features to a file of beliefs: scoring, streaming, and the commit of the result."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
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

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
T = TypeVar("T")
R = TypeVar("R")

#: Rows of a batch: as many as keep its logits in a cache, but enough to multiply well.
_FEWEST_ROWS, _MOST_ROWS, _NUMBERS = 192, 4096, 1_000_000
#: Rows of features that stay in a cache, for few classes.
_BLOCK_ROWS, _FEW_CLASSES = 512, 100


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
        self._labels = learner.classes.astype(np.int32)
        self._unseen = float(learner.metrics["unseen_mass"])

    def score(self, image: I64, features: F32, rows: pa.Table | None) -> tuple[pa.Table, int]:
        """Beliefs (schemas.BELIEFS) of some images, and how many of them are out of fold.

        image: (n,). features: (n, d). rows: the teacher's of these images, those that it has.
        """
        learner, job = self.learner, self.job
        scores, trained = self._scores(image, features)
        believed: Bool | None = None
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
        column, value = top_k(scores, job.top_k)
        chance = np.exp(value - value[:, :1])
        if value.shape[1] == scores.shape[1]:
            total = _row_sums(chance)
        else:
            scores -= value[:, :1]
            total = _row_sums(np.exp(scores, out=scores))
        within = np.full(len(image), 1 - self._unseen, np.float32)
        if believed is not None:
            within[believed] = 1 - mass_elsewhere(own, learner.classes, learner.of_classes)
        chance *= (within / total)[:, np.newaxis]
        label = self._labels[column]
        if rows is None or believed is None or not believed.any():
            return _table(image, label, chance, {}), trained
        label, chance = self._with_others(label, chance, believed, own)
        carried = {
            name: rows[name].take(pa.array(place, mask=~believed)) for name in schemas.CARRIED
        }  # null where the teacher has no row
        return _table(image, label, chance, carried), trained

    def _scores(self, image: I64, features: F32) -> tuple[F32, int]:
        """Logits of the learner's classes, (n, C); out of fold for images it was trained on.

        Their number is the second.
        """
        learner = self.learner
        scores = np.empty((len(image), len(learner.classes)), np.float32)
        scale = np.empty(len(image), np.float32)
        # Few classes: the lengths take as long as the product, unless features are still in a cache
        block = _BLOCK_ROWS if scores.shape[1] <= _FEW_CLASSES else max(len(image), 1)
        for first in range(0, len(image), block):
            part = slice(first, first + block)
            scale[part] = _inverse_lengths(features[part])
            _logits(self._whole, features[part], scale[part], scores[part])
        index = np.minimum(np.searchsorted(learner.image, image), len(learner.image) - 1)
        trained = learner.image[index] == image
        if trained.any():
            fold = np.where(trained, folds_of(image, learner.folds), -1)
            for number in np.unique(fold[trained]):
                own = np.flatnonzero(fold == number)
                held_out = np.empty((len(own), scores.shape[1]), np.float32)
                _logits(self._by_fold[int(number)], features[own], scale[own], held_out)
                scores[own] = held_out
        if learner.sharpness != 1.0:
            scores *= np.float32(learner.sharpness)
        return scores, int(trained.sum())

    def _with_others(
        self,
        label: I32,
        probability: F32,
        believed: Bool,
        own: pa.Table,
    ) -> tuple[I32, F32]:
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
        extra = np.zeros((len(label), width), np.int32)
        share = np.full((len(label), width), -1.0, np.float32)
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


def _inverse_lengths(features: F32) -> F32:
    """1 / length of each row, (n,); 0 of a row of zeros."""
    # A product of each row with itself: BLAS is twice as fast at it as einsum.
    squares = np.matmul(features[:, np.newaxis, :], features[:, :, np.newaxis])[:, 0, 0]
    length = np.sqrt(squares, out=squares)
    with np.errstate(divide="ignore"):
        return np.where(length > 0, np.reciprocal(length), np.float32(0))


def _logits(model: Softmax, features: F32, scale: F32, logits: F32) -> None:
    """Write the logits (n, C) of features that are scaled first."""
    d, classes = model.coefficients.shape
    if d < classes:  # whichever is less to multiply
        np.matmul(features * scale[:, np.newaxis], model.coefficients, out=logits)
    else:
        np.matmul(features, model.coefficients, out=logits)
        logits *= scale[:, np.newaxis]
    logits += model.intercept


def _row_sums(values: F32) -> F32:
    """(n,); a product with ones is faster than a sum over short rows."""
    return np.asarray(values @ np.ones(values.shape[1], np.float32))


def _table(image: I64, label: I32, probability: F32, carried: Mapping[str, Any]) -> pa.Table:
    """label, probability: (n, k), of which those are listed that are above 0. carried: columns."""
    kept = probability > 0
    n, k = label.shape
    if kept.all():
        offsets = np.arange(n + 1, dtype=np.int32) * np.int32(k)
        label, probability = label.ravel(), probability.ravel()
    else:
        offsets = np.append(0, np.cumsum(kept.sum(axis=1))).astype(np.int32)
        label, probability = label[kept], probability[kept]
    columns: dict[str, Any] = {"id": pa.array(image), **carried}
    for name, values in (("labels", label), ("label_probs", probability)):
        kind = schemas.BELIEFS.field(name).type
        columns[name] = pa.ListArray.from_arrays(offsets, pa.array(values), type=kind)
    return pa.Table.from_arrays(
        [
            columns[field.name] if field.name in columns else pa.nulls(n, field.type)
            for field in schemas.BELIEFS
        ],
        schema=schemas.BELIEFS,
    )


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
        missing = 0 if rows is None else len(image) - rows.num_rows
        return *scorer.score(image, features, rows), missing

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
