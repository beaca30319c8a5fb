"""Shards through a teacher: read, decode and prepare ahead of the device, label, gather."""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Queue
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from coyo_labeler import schemas
from coyo_labeler.label import decode
from coyo_labeler.label.decode import ImageError
from coyo_labeler.label.model import Teacher, TopK
from coyo_labeler.label.preprocess import Preset, prepare
from coyo_labeler.label.read import DamagedTarError, Sample, Shard, read_samples


@dataclass(frozen=True)
class ShardResult:
    """What became of one shard: its tables, or why its tar could not be read to the end.

    rejected: failures by reason. seconds: wall time since the one before. busy_seconds: of these,
    in the teacher.
    """

    shard: Shard
    beliefs: pa.Table | None = None
    failures: pa.Table | None = None
    samples: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    busy_seconds: float = 0.0
    damage: str | None = None


@dataclass(frozen=True)
class _Image:
    sample: Sample
    width: int
    height: int
    tensor: torch.Tensor


@dataclass
class _Open:
    """A shard on its way: images that wait for a full batch, and what is labelled so far."""

    shard: Shard
    waiting: list[_Image] = field(default_factory=list)
    images: list[_Image] = field(default_factory=list)
    tops: list[TopK] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    samples: int = 0

    def fail(self, sample: Sample, reason: str, detail: str) -> None:
        self.failures.append(
            {"id": sample.id, "key": sample.key, "reason": reason, "detail": detail}
        )


def label_shards(
    teacher: Teacher, shards: Iterable[Shard], threads: int | None = None
) -> Iterator[ShardResult]:
    """Label shard after shard; the next are read and decoded while the device works on one.

    No batch holds images of two shards, so that the values of a shard do not depend on which other
    shards ran with it. threads: that decode; None: one a core.
    """
    started, busy = time.monotonic(), 0.0
    current: _Open | None = None
    with _Ahead(teacher, shards, threads or os.cpu_count() or 4) as ahead:
        for event in ahead:
            if isinstance(event, Shard):
                current = _Open(event)
                continue
            assert current is not None
            if isinstance(event, DamagedTarError):
                yield ShardResult(current.shard, damage=str(event))
                continue
            if event is not None:
                sample, future = event
                current.samples += 1
                try:
                    current.waiting.append(future.result())
                except ImageError as error:
                    current.fail(sample, error.reason, error.detail)
            if current.waiting and (
                event is None or len(current.waiting) == teacher.spec.batch_size
            ):
                before = time.monotonic()
                current.tops.append(
                    teacher.label(torch.stack([image.tensor for image in current.waiting]))
                )
                busy += time.monotonic() - before
                current.images += [
                    _Image(i.sample, i.width, i.height, torch.empty(0)) for i in current.waiting
                ]
                current.waiting = []
            if event is None:
                now = time.monotonic()
                yield _close(current, now - started, busy)
                started, busy = now, 0.0


def _close(current: _Open, seconds: float, busy: float) -> ShardResult:
    kept: list[tuple[_Image, int, TopK]] = []
    position = 0
    for top in current.tops:
        for row, finite in enumerate(top.finite):
            image = current.images[position]
            position += 1
            if finite:
                kept.append((image, row, top))
            else:
                current.fail(image.sample, decode.NOT_FINITE, "the teacher put out NaN or infinity")
    rejected: dict[str, int] = {}
    for failure in current.failures:
        rejected[failure["reason"]] = rejected.get(failure["reason"], 0) + 1
    failures = sorted(current.failures, key=lambda failure: failure["key"])
    return ShardResult(
        current.shard,
        _beliefs(kept),
        pa.Table.from_pylist(failures, schema=schemas.LABEL_FAILURES),
        current.samples,
        rejected,
        seconds,
        busy,
    )


def _beliefs(kept: list[tuple[_Image, int, TopK]]) -> pa.Table:
    k = kept[0][2].labels.shape[1] if kept else 0
    offsets = pa.array(np.arange(len(kept) + 1, dtype=np.int32) * k)
    labels = [top.labels[row] for _, row, top in kept] or [np.empty(0, np.int32)]
    probs = [top.probs[row] for _, row, top in kept] or [np.empty(0, np.float32)]
    columns = {
        "id": [image.sample.id for image, _, _ in kept],
        "url": [image.sample.url for image, _, _ in kept],
        "imagehash": [image.sample.imagehash for image, _, _ in kept],
        "labels": pa.ListArray.from_arrays(offsets, np.concatenate(labels)),
        "label_probs": pa.ListArray.from_arrays(offsets, np.concatenate(probs)),
        "width": [image.width for image, _, _ in kept],
        "height": [image.height for image, _, _ in kept],
    }
    return pa.table(columns, schema=schemas.BELIEFS)


_Event = Shard | tuple[Sample, "Future[_Image]"] | DamagedTarError | None


class _Ahead:
    """Reads shards in a thread and prepares their images in a pool, a bounded way ahead.

    Yields in order: a Shard, (sample, future of its image) for each, then None at its end or a
    DamagedTarError in place of the rest.
    """

    def __init__(self, teacher: Teacher, shards: Iterable[Shard], threads: int) -> None:
        self._preset: Preset = teacher.preset
        self._exif = teacher.spec.exif_orientation
        self._shards = shards
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._events: Queue[_Event | BaseException | type[StopIteration]] = Queue(
            maxsize=2 * teacher.spec.batch_size + threads
        )
        self._stop = threading.Event()
        self._reader = threading.Thread(target=self._read, name="read", daemon=True)

    def __enter__(self) -> "_Ahead":
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        while self._reader.is_alive():
            while not self._events.empty():
                self._events.get_nowait()
            self._reader.join(timeout=0.05)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[_Event]:
        while True:
            event = self._events.get()
            if event is StopIteration:
                return
            if isinstance(event, BaseException) and not isinstance(event, DamagedTarError):
                raise event
            yield event  # type: ignore[misc]

    def _read(self) -> None:
        try:
            for shard in self._shards:
                self._events.put(shard)
                try:
                    for sample in read_samples(shard):
                        if self._stop.is_set():
                            return
                        image = self._pool.submit(_prepare, sample, self._preset, self._exif)
                        self._events.put((sample, image))
                except DamagedTarError as error:
                    self._events.put(error)
                else:
                    self._events.put(None)
            self._events.put(StopIteration)
        except BaseException as error:  # handed to the thread that waits for events
            self._events.put(error)


def _prepare(sample: Sample, preset: Preset, exif_orientation: bool) -> _Image:
    if sample.image is None:
        raise ImageError(decode.NO_IMAGE, "the tar holds no picture under this key")
    if sample.id is None:
        raise ImageError(decode.NO_ID, "neither its JSON nor the table beside the tar has an id")
    pixels = decode.decode(sample.image, exif_orientation)
    height, width = pixels.shape[:2]
    slim = Sample(
        sample.key, sample.id, sample.url, sample.imagehash, sample.width, sample.height, None
    )
    return _Image(slim, sample.width or width, sample.height or height, prepare(pixels, preset))


__all__ = ["ShardResult", "label_shards"]
