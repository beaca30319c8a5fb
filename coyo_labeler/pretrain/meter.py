"""The sums that a log line reports, over the steps since the previous line."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor


class Totals(NamedTuple):
    """Sum of losses, micro-batches, images, seconds, and seconds of waiting for the reader."""

    loss: float = 0.0
    parts: int = 0
    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0


class Meter:
    """Sums since its creation, on top of `totals`. norm: of the gradient of the latest step."""

    def __init__(self, device: torch.device, totals: Totals = Totals()) -> None:  # noqa: B008
        self.norm: Tensor | float = 0.0
        self._before = totals
        self._loss = torch.tensor(totals.loss, device=device)
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

    def totals(self) -> Totals:
        """All sums so far; a resumed training starts its meter from them."""
        loss, before = float(self._loss), self._before  # waits for the device
        return Totals(
            loss,
            before.parts + self._parts,
            before.images + self._images,
            before.seconds + time.perf_counter() - self._start,
            before.waited + self._waited,
        )
