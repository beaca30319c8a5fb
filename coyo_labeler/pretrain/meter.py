"""What a log line sums over the steps since the one before."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Meter:
    """Loss, images and seconds since it was made. norm: the gradient's of the latest step."""

    def __init__(self, device: torch.device, norm: Tensor | float = 0.0) -> None:
        self.norm = norm
        self._loss = torch.zeros((), device=device)
        self._parts = self._images = 0
        self._waited = 0.0
        self._start = time.perf_counter()

    def add(self, loss: Tensor, images: int) -> None:
        """Count a micro-batch; the loss stays on the device."""
        self._loss += loss
        self._parts += 1
        self._images += images

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as spent waiting for the reader."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def totals(self) -> tuple[float, int, int, float, float]:
        """Loss summed, micro-batches, images, seconds, seconds of waiting for the reader."""
        loss = float(self._loss)  # waits for the device
        seconds = time.perf_counter() - self._start
        return loss, self._parts, self._images, seconds, self._waited
