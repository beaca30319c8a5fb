"""Runs shards through a teacher without a pause between them, and makes the tables of each."""

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from coyo_labeler.formats import schemas
from coyo_labeler.formats.image_shards import Failure, Sample, Shard
from coyo_labeler.label.ahead import Chunk, End, ReadAhead, Ready
from coyo_labeler.label.devices import Device, Promise, open_device
from coyo_labeler.label.model import Teacher

#: Why an image has no belief though its picture can be read; see also `faults.Fault`.
NOT_FINITE = "not_finite"
BELOW_THRESHOLD = "below_threshold"


@dataclass(frozen=True)
class ShardResult:
    """The result for one shard: its tables, or why its tar could not be read to the end.

    below: beliefs of images below the sampling threshold. embeddings: of the images in beliefs, if
    requested. rejected: counts by reason. seconds: since the previous shard was done; busy_seconds:
    how many of them the device worked. damage: why the tar could not be read to the end.
    """

    shard: Shard
    beliefs: pa.Table
    below: pa.Table
    failures: pa.Table
    embeddings: pa.Table | None
    samples: int
    rejected: dict[str, int]
    seconds: float
    busy_seconds: float
    damage: str | None = None


@dataclass(frozen=True)
class _Row:
    """One labelled image; without its pixels."""

    sample: Sample
    width: int
    height: int
    labels: npt.NDArray[np.int32]
    probs: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float16] | None


@dataclass
class _Open:
    """A shard in progress: samples that wait for a full batch, and the results so far.

    unsent: how many samples wait.
    """

    shard: Shard
    waiting: "list[Future[Chunk]]" = field(default_factory=list)
    unsent: int = 0
    rows: list[_Row] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    samples: int = 0
    busy_seconds: float = 0.0
    damage: str | None = None

    def fail(self, sample: Sample | Failure, reason: str, detail: str) -> None:
        self.failures.append(
            {"id": sample.id, "key": sample.name, "reason": reason, "detail": detail}
        )


#: A batch on the device, or (without images) the end of a shard.
_Sent = tuple[_Open, list[Ready], Promise | None]


def label_shards(
    teacher: Teacher,
    shards: Iterable[Shard],
    *,
    cores: int,
    decode_threads: int | None = None,
    min_top1: float = 0.0,
) -> Iterator[ShardResult]:
    """Label shard after shard, in order.

    No batch holds images of two shards, and batches are cut by position in the tar, so the values
    of a shard do not depend on what else ran. cores: how many may be used. decode_threads: for a
    GPU; None: one per core. min_top1: sampling threshold on the top-1 probability.
    """
    device = open_device(teacher, cores, decode_threads)
    bound = teacher.batch * (device.depth + 1)
    exif = teacher.spec.exif_orientation
    ahead = ReadAhead(shards, device.shrink, exif, device.pool, teacher.batch, bound)
    sent: deque[_Sent] = deque()
    current: _Open | None = None
    finish = _Finish(teacher, min_top1)
    try:
        with ahead:
            for event in ahead:
                if isinstance(event, Shard):
                    current = _Open(event)
                    continue
                assert current is not None
                if isinstance(event, End):
                    current.damage = event.damage
                    _send(device, current, sent)
                    sent.append((current, [], None))
                else:
                    count, chunk = event
                    current.samples += count
                    current.unsent += count
                    current.waiting.append(chunk)
                    if current.unsent == teacher.batch:
                        _send(device, current, sent)
                while len(sent) > device.depth or (sent and sent[0][2] is None):
                    result = finish.take(sent.popleft())
                    if result is not None:
                        yield result
            while sent:
                result = finish.take(sent.popleft())
                if result is not None:
                    yield result
    finally:
        device.close()


def _send(device: Device, current: _Open, sent: deque[_Sent]) -> None:
    ready: list[Ready] = []
    for sample in chain.from_iterable(chunk.result() for chunk in current.waiting):
        if isinstance(sample, Failure):
            current.fail(sample, sample.fault, sample.detail)
        else:
            ready.append(sample)
    current.waiting, current.unsent = [], 0
    if ready:
        sent.append((current, ready, device.submit([image.tensor for image in ready])))


class _Finish:
    """Turns answered batches into rows, and the rows of a whole shard into tables."""

    def __init__(self, teacher: Teacher, min_top1: float) -> None:
        self._teacher, self._min_top1 = teacher, min_top1
        self._since = time.monotonic()

    def take(self, entry: _Sent) -> ShardResult | None:
        """Wait for one batch; at the end of a shard, its result."""
        current, images, promise = entry
        if promise is None:
            return self._close(current)
        done = promise()
        current.busy_seconds += done.busy_seconds
        answers = done.answers
        for position, image in enumerate(images):
            if not answers.finite[position]:
                current.fail(image.sample, NOT_FINITE, "the teacher's output has NaN or infinity")
                continue
            features = answers.embeddings
            current.rows.append(
                _Row(
                    image.sample,
                    image.width,
                    image.height,
                    answers.labels[position],
                    answers.probs[position],
                    None if features is None else features[position],
                )
            )
        return None

    def _close(self, current: _Open) -> ShardResult:
        above = [row for row in current.rows if row.probs[0] >= self._min_top1]
        below = [row for row in current.rows if row.probs[0] < self._min_top1]
        rejected = Counter(failure["reason"] for failure in current.failures)
        if below:
            rejected[BELOW_THRESHOLD] = len(below)
        failures = sorted(current.failures, key=lambda failure: str(failure["key"]))
        since, self._since = self._since, time.monotonic()
        return ShardResult(
            current.shard,
            _beliefs(above, self._teacher.k),
            _beliefs(below, self._teacher.k),
            pa.Table.from_pylist(failures, schema=schemas.LABEL_FAILURES),
            _embeddings(above, self._teacher.features) if self._teacher.spec.embeddings else None,
            current.samples,
            dict(rejected),
            self._since - since,
            current.busy_seconds,
            current.damage,
        )


def _beliefs(rows: list[_Row], k: int) -> pa.Table:
    offsets = pa.array(np.arange(len(rows) + 1, dtype=np.int32) * k)
    labels = np.concatenate([row.labels for row in rows]) if rows else np.empty(0, np.int32)
    probs = np.concatenate([row.probs for row in rows]) if rows else np.empty(0, np.float32)
    columns = {
        "id": [row.sample.id for row in rows],
        "url": [row.sample.url for row in rows],
        "imagehash": [row.sample.imagehash for row in rows],
        "labels": pa.ListArray.from_arrays(offsets, labels),
        "label_probs": pa.ListArray.from_arrays(offsets, probs),
        "width": [row.width for row in rows],
        "height": [row.height for row in rows],
    }
    return pa.table(columns, schema=schemas.BELIEFS)


def _embeddings(rows: list[_Row], size: int) -> pa.Table:
    """id int64, embedding fixed_size_list<float16> of `size` numbers."""
    vectors = [row.embedding for row in rows if row.embedding is not None]
    values = pa.array(np.concatenate(vectors) if vectors else np.empty(0, np.float16))
    return pa.table(
        {
            "id": pa.array([row.sample.id for row in rows], pa.int64()),
            "embedding": pa.FixedSizeListArray.from_arrays(values, size),
        }
    )
