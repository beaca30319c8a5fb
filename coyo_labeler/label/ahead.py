"""Shards read and decoded ahead of the device, in order and within bounds."""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from queue import Queue

import numpy as np
import numpy.typing as npt
import torch

from coyo_labeler.formats import pictures
from coyo_labeler.formats.faults import ImageError
from coyo_labeler.formats.image_shards import Failure, Sample, Shard, read_samples
from coyo_labeler.formats.tars import DamagedTarError


@dataclass(frozen=True)
class Ready:
    """An image that can be labelled. sample: without its bytes. width, height: of the original.

    tensor: the result of the device's `shrink` for its pixels.
    """

    sample: Sample
    width: int
    height: int
    tensor: torch.Tensor


@dataclass(frozen=True)
class End:
    """The end of a shard. damage: why its tar could not be read to the end; None if it could."""

    damage: str | None = None


#: What becomes of successive samples of a shard, in the tar's order.
Chunk = list[Ready | Failure]

#: The start of a shard, samples of it and their number, the end of the shard.
Event = Shard | tuple[int, "Future[Chunk]"] | End

#: Samples that go to a decoding thread together, at most: what threads hand to each other costs
#: them the interpreter's lock, and on 16 cores held them to half the speed of decoding.
_CHUNK = 8


class ReadAhead:
    """Reads shards in one thread and decodes their images in a pool; iterate inside a `with` block.

    batch: chunks never hold samples of two batches, where every so many samples of a shard are one.
    bound: how many samples may be read but not yet taken, and at least a chunk. pool: is left open
    at the end.
    """

    def __init__(
        self,
        shards: Iterable[Shard],
        shrink: Callable[[npt.NDArray[np.uint8]], torch.Tensor],
        exif_orientation: bool,
        pool: Executor,
        batch: int,
        bound: int,
    ) -> None:
        self._shards, self._shrink, self._exif = shards, shrink, exif_orientation
        self._pool, self._chunk = pool, math.gcd(batch, _CHUNK)
        self._events: Queue[Event | BaseException | None] = Queue(max(1, bound // self._chunk))
        self._stop = threading.Event()
        self._reader = threading.Thread(target=self._read, name="read", daemon=True)

    def __enter__(self) -> "ReadAhead":
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        while True:
            while not self._events.empty():
                event = self._events.get_nowait()
                if isinstance(event, tuple):
                    event[1].cancel()
            if not self._reader.is_alive():
                break
            self._reader.join(timeout=0.05)

    def __iter__(self) -> Iterator[Event]:
        while (event := self._events.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event

    def _read(self) -> None:
        try:
            for shard in self._shards:
                self._events.put(shard)
                damage = None
                chunk: list[Sample | Failure] = []
                try:
                    for sample in read_samples(shard):
                        chunk.append(sample)
                        if len(chunk) == self._chunk:
                            self._decode(chunk)
                            chunk = []
                        if self._stop.is_set():
                            return
                except DamagedTarError as error:
                    damage = error.why
                if chunk:
                    self._decode(chunk)
                self._events.put(End(damage))
            self._events.put(None)
        except BaseException as error:  # raised again by the thread that iterates
            self._events.put(error)

    def _decode(self, chunk: Sequence[Sample | Failure]) -> None:
        self._events.put((len(chunk), self._pool.submit(self._decoded, chunk)))

    def _decoded(self, chunk: Sequence[Sample | Failure]) -> Chunk:
        return [self._ready(sample) if isinstance(sample, Sample) else sample for sample in chunk]

    def _ready(self, sample: Sample) -> Ready | Failure:
        try:
            pixels = pictures.decode(sample.image, self._exif)
        except ImageError as error:
            return Failure(sample.key, sample.id, error.fault, error.detail)
        height, width = pixels.shape[:2]
        return Ready(
            replace(sample, image=b""),
            sample.width or width,
            sample.height or height,
            self._shrink(pixels),
        )
