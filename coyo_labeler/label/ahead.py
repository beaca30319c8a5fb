"""Shards read and decoded ahead of the device, in order and within bounds."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from queue import Queue

import numpy as np
import numpy.typing as npt
import torch

from coyo_labeler.formats import pictures
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


#: The start of a shard, one of its samples, a sample that cannot be used, the end of the shard.
Event = Shard | tuple[Sample, "Future[Ready]"] | Failure | End


class ReadAhead:
    """Reads shards in one thread and decodes their images in a pool; iterate inside a `with` block.

    The future of a sample raises ImageError if its image cannot be labelled. bound: how many
    samples may be read but not yet taken. pool: is left open at the end.
    """

    def __init__(
        self,
        shards: Iterable[Shard],
        shrink: Callable[[npt.NDArray[np.uint8]], torch.Tensor],
        exif_orientation: bool,
        pool: Executor,
        bound: int,
    ) -> None:
        self._shards, self._shrink, self._exif = shards, shrink, exif_orientation
        self._pool = pool
        self._events: Queue[Event | BaseException | None] = Queue(maxsize=bound)
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
                try:
                    for sample in read_samples(shard):
                        if self._stop.is_set():
                            return
                        if isinstance(sample, Failure):
                            self._events.put(sample)
                            continue
                        future = self._pool.submit(self._make_ready, sample)
                        self._events.put((replace(sample, image=b""), future))
                except DamagedTarError as error:
                    damage = error.why
                self._events.put(End(damage))
            self._events.put(None)
        except BaseException as error:  # raised again by the thread that iterates
            self._events.put(error)

    def _make_ready(self, sample: Sample) -> Ready:
        pixels = pictures.decode(sample.image, self._exif)
        height, width = pixels.shape[:2]
        return Ready(
            replace(sample, image=b""),
            sample.width or width,
            sample.height or height,
            self._shrink(pixels),
        )
