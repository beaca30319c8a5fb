"""Runs batches on a device: pictures go in, a promise of answers comes back, several at a time.

A CPU runs one batch per core, each on one thread: no core waits for another inside a layer. The
same threads decode, so there are never more busy threads than cores. A CUDA device receives the
next batch while it computes the current one, resizes on the device, and copies answers back while
it computes.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from coyo_labeler.label.model import Answers, Teacher
from coyo_labeler.label.preprocess import Preset, prepare
from coyo_labeler.label.resize import prepare_in_a_row

#: Pictures with more pixels are resized before they are sent to a GPU: they are few, and large.
MAX_SENT_PIXELS = 4_000_000


@dataclass(frozen=True)
class Done:
    """The answers for a batch, and the seconds that the device worked on it."""

    answers: Answers
    busy_seconds: float


#: Waits for the batch and returns it.
Promise = Callable[[], Done]


class Device(Protocol):
    """Runs batches. depth: how many batches to keep in flight.

    pool: threads that decode the images of later batches.
    """

    depth: int
    pool: ThreadPoolExecutor

    def shrink(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Prepare a decoded picture to wait for its batch; called in decoding threads.

        pixels: (height, width, 3). Returns them unchanged, or the input (3, size, size) float32.
        """

    def submit(self, images: Sequence[torch.Tensor]) -> Promise:
        """Start a batch of images that `shrink` returned."""

    def close(self) -> None:
        """Release threads and memory."""


def open_device(teacher: Teacher, cores: int, decode_threads: int | None = None) -> Device:
    """Open the teacher's device.

    cores: how many this process may use. decode_threads: for a GPU; None: one per core.
    """
    if teacher.device.type == "cuda":
        return CudaDevice(teacher, decode_threads or cores)
    return CpuDevice(teacher, cores)


def _threads(count: int, name: str) -> ThreadPoolExecutor:
    """Threads that each work on one core."""
    return ThreadPoolExecutor(
        count, thread_name_prefix=name, initializer=torch.set_num_threads, initargs=(1,)
    )


class CpuDevice:
    """Each core runs its own batch, and decodes later images."""

    def __init__(self, teacher: Teacher, cores: int) -> None:
        self._teacher, self._cores = teacher, cores
        self.depth = 2 * cores
        # Applies to threads that start from now on, not to the caller's.
        self._threads_before = torch.get_num_threads()
        self.pool = _threads(cores, "batch")

    def shrink(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """The prepared image."""
        return prepare(pixels, self._teacher.preset)

    def submit(self, images: Sequence[torch.Tensor]) -> Promise:
        """Queue a batch for the next free core."""
        return self.pool.submit(self._run, images).result

    def _run(self, images: Sequence[torch.Tensor]) -> Done:
        start = time.perf_counter()
        answers = to_answers(self._teacher.answer(torch.stack(list(images))))
        return Done(answers, (time.perf_counter() - start) / self._cores)

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self._threads_before)


class CudaDevice:
    """Computes one batch, while the next is copied there and the previous one back."""

    depth = 2

    def __init__(self, teacher: Teacher, decode_threads: int) -> None:
        self._teacher = teacher
        self.pool = _threads(decode_threads, "decode")
        # PyTorch would split work on the host among all cores, which decode, and then wait for the
        # slowest of them.
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(1)
        torch.cuda.set_device(teacher.device)
        self._copying = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._staging = [_Staging() for _ in range(self.depth)]
        self._turn = 0

    def shrink(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """The pixels unchanged, unless they are too many or timm's own transform is used."""
        preset = self._teacher.preset
        if preset.transform is not None or pixels.shape[0] * pixels.shape[1] > MAX_SENT_PIXELS:
            return prepare(pixels, preset)
        return torch.from_numpy(pixels)

    def submit(self, images: Sequence[torch.Tensor]) -> Promise:
        """Launch copies and kernels, and return before they are done."""
        launched = self._teacher.in_parts(self._launch, images)
        return lambda: _join([wait() for wait in launched])

    @torch.inference_mode()
    def _launch(self, images: Sequence[torch.Tensor]) -> Promise:
        """Raises: OutOfMemoryError where copies, inputs, layers or answers do not fit."""
        staging = self._staging[self._turn]
        self._turn = (self._turn + 1) % self.depth
        compute = torch.cuda.current_stream()
        with torch.cuda.stream(self._copying):
            sent = staging.send(images, self._teacher.device)
        compute.wait_stream(self._copying)
        start, end, arrived = (_event() for _ in range(3))
        start.record(compute)
        sent.pixels.record_stream(compute)
        on_device = self._teacher.answer_at_once(sent.inputs(self._teacher.preset))
        end.record(compute)
        # Into pinned memory, which PyTorch provides for copies that do not block.
        back = tuple(tensor.to("cpu", non_blocking=True) for tensor in on_device)
        arrived.record(compute)

        def wait() -> Done:
            arrived.synchronize()
            return Done(to_answers(back), start.elapsed_time(end) / 1000)

        return wait

    def close(self) -> None:
        """Wait for batches in flight, end the threads, and free the pinned memory."""
        self.pool.shutdown(wait=True, cancel_futures=True)
        torch.cuda.synchronize(self._teacher.device)
        self._staging.clear()
        torch.set_num_threads(self._threads_before)


def _join(parts: Sequence[Done]) -> Done:
    """The answers for a batch from those for its parts."""
    if len(parts) == 1:
        return parts[0]
    answers = [part.answers for part in parts]
    embeddings = [part.embeddings for part in answers if part.embeddings is not None]
    return Done(
        Answers(
            np.concatenate([part.labels for part in answers]),
            np.concatenate([part.probs for part in answers]),
            np.concatenate([part.finite for part in answers]),
            np.concatenate(embeddings) if embeddings else None,
        ),
        sum(part.busy_seconds for part in parts),
    )


def _pinned(count: int) -> torch.Tensor:
    """(count,) uint8 that a GPU can copy from while the CPU goes on."""
    return torch.empty(count, dtype=torch.uint8, pin_memory=True)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class _Sent:
    """The pictures of one batch in a row on the device.

    pixels: uint8, with decoded pictures, and others as the bytes of their inputs. offsets: where
    each begins. shapes, dtypes: of each.
    """

    pixels: torch.Tensor
    offsets: Sequence[int]
    shapes: Sequence[torch.Size]
    dtypes: Sequence[torch.dtype]

    def inputs(self, preset: Preset) -> torch.Tensor:
        """(n, 3, size, size) float32: all resized at once, but for those that came as inputs."""
        decoded = [i for i, dtype in enumerate(self.dtypes) if dtype == torch.uint8]
        shapes = [(self.shapes[i][0], self.shapes[i][1]) for i in decoded]
        offsets = [self.offsets[i] for i in decoded]
        if len(decoded) == len(self.shapes):
            return prepare_in_a_row(self.pixels, offsets, shapes, preset)
        inputs = torch.empty(
            len(self.shapes), 3, preset.size, preset.size, device=self.pixels.device
        )
        if decoded:
            inputs[decoded] = prepare_in_a_row(self.pixels, offsets, shapes, preset)
        for i in set(range(len(self.shapes))) - set(decoded):
            length = self.shapes[i].numel() * self.dtypes[i].itemsize
            data = self.pixels[self.offsets[i] : self.offsets[i] + length]
            inputs[i] = data.view(self.dtypes[i]).view(self.shapes[i])
        return inputs


class _Staging:
    """Pinned memory that holds the pictures of one batch in a row, so that one copy is enough."""

    def __init__(self) -> None:
        self._buffer: Any = torch.empty(0, dtype=torch.uint8)
        self._copied: Any = None

    def send(self, images: Sequence[torch.Tensor], device: torch.device) -> _Sent:
        """The images on the device; the copy runs on the current stream and is not awaited."""
        # 16 bytes apart, so that float32 images can be viewed in place.
        sizes = [-(-image.numel() * image.element_size() // 16) * 16 for image in images]
        offsets = [0, *accumulate(sizes)]
        total = offsets.pop()
        if self._copied is not None:
            self._copied.synchronize()  # an earlier batch may still be read from here
        if self._buffer.numel() < total:
            self._buffer = _pinned(total * 5 // 4)
        pinned = self._buffer.numpy()
        for image, offset in zip(images, offsets, strict=True):
            data = image.contiguous().view(-1).view(torch.uint8).numpy()
            pinned[offset : offset + len(data)] = data
        sent = self._buffer[:total].to(device, non_blocking=True)
        self._copied = _event()
        self._copied.record()
        shapes, dtypes = [image.shape for image in images], [image.dtype for image in images]
        return _Sent(sent, offsets, shapes, dtypes)


def to_answers(tensors: tuple[torch.Tensor, ...]) -> Answers:
    """The result of `Teacher.answer` as arrays."""
    arrays = [tensor.numpy() for tensor in tensors]
    return Answers(arrays[0], arrays[1], arrays[2], arrays[3] if len(arrays) > 3 else None)
