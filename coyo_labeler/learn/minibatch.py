"""Softmax regression of many classes: PyTorch's Adam on minibatches, with sparse targets.

The loss is that of `softmax`. On a CPU the classes are cut into blocks, each with its own weights,
its own optimizer and its own thread. A step needs the greatest logit and the sum of exponentials of
all blocks, and adds them up in their order, so that the result does not depend on the number of
cores. On a GPU there is one block, and the features lie on the device if they fit.

The gradient by logits, softmax − targets, is written out: automatic differentiation would keep two
more arrays of images × classes, and turn the sparse targets into a dense one.

Kingma & Ba, ICLR 2015 (Adam); Loshchilov & Hutter, ICLR 2017 (the step size falls by a cosine).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from coyo_labeler.learn.softmax import F32, Map, Softmax
from coyo_labeler.machine import cores_of_machine

I64 = NDArray[np.int64]

#: Classes of a block on a CPU. It is part of the result: another size rounds sums another way.
_BLOCK = 2048
_STEP_SIZE = 0.01
_BETAS = (0.9, 0.99)
#: Arrays of the size of the weights, and of a minibatch's logits, that a step holds at its peak.
_WEIGHT_ARRAYS, _LOGIT_ARRAYS = 5, 2


@dataclass(frozen=True)
class Schedule:
    """How long to train. ridge: λ of the mean loss. seed: of the order of rows."""

    epochs: int
    minibatch: int
    ridge: float
    seed: int


@dataclass(frozen=True)
class _Block:
    """The weights of some classes. weights: (d, c). intercept: (c,). first: the first class."""

    first: int
    weights: torch.Tensor
    intercept: torch.Tensor
    optimizer: torch.optim.Optimizer
    step_size: torch.optim.lr_scheduler.LRScheduler

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        """(n, c) of features (n, d)."""
        return torch.addmm(self.intercept, batch, self.weights)

    def update(self, batch: torch.Tensor, slope: torch.Tensor) -> None:
        """One step of Adam. slope: (n, c) gradient of the loss by logits."""
        self.weights.grad = batch.T @ slope
        self.intercept.grad = slope.sum(dim=0)
        self.optimizer.step()
        self.step_size.step()


def fit_minibatches(
    features: F32,
    targets: csr_matrix,
    weights: F32,
    rows: Sequence[slice],
    schedule: Schedule,
    device: str,
    progress: Callable[[int], None] = lambda _: None,
) -> Softmax:
    """Fit to some rows.

    features: (n, d), rows of about unit length. targets: (n, C), each row sums to one. weights:
    (n,). rows: those to fit. progress: called with the rows done of an epoch.
    """
    index = np.concatenate([np.arange(part.start, part.stop) for part in rows])
    d, classes = features.shape[1], targets.shape[1]
    scale = math.sqrt(d)  # features of unit variance, for which Adam's step size is meant
    share = (weights / weights[index].mean(dtype=np.float64)).astype(np.float32)
    steps = schedule.epochs * math.ceil(len(index) / schedule.minibatch)
    # Of the weights of scaled features.
    blocks = _start(d, classes, schedule.ridge * d, steps, device)
    lookup = _features_on(device, features, classes, schedule.minibatch)
    rng = np.random.default_rng(schedule.seed)
    with _one_thread(device), _threads(len(blocks)) as run:
        for _epoch in range(schedule.epochs):
            order = rng.permutation(index)
            for first in range(0, len(order), schedule.minibatch):
                chosen = np.sort(order[first : first + schedule.minibatch])
                batch = lookup(chosen) * scale
                shares = torch.from_numpy(share[chosen]).to(device)
                _step(blocks, batch, targets[chosen], shares, run)
                progress(len(chosen))
    coefficients = torch.cat([block.weights for block in blocks], dim=1).mul_(scale)
    intercept = torch.cat([block.intercept for block in blocks])
    return Softmax(coefficients.cpu().numpy(), intercept.cpu().numpy())


def _start(d: int, classes: int, ridge: float, steps: int, device: str) -> list[_Block]:
    """Weights of zero. steps: those until the step size is zero."""
    width = _BLOCK if device == "cpu" else classes
    blocks = []
    for first in range(0, classes, width):
        count = min(width, classes - first)
        weights = torch.zeros(d, count, device=device)
        intercept = torch.zeros(count, device=device)
        groups: list[dict[str, Any]] = [
            {"params": [weights], "weight_decay": ridge},
            {"params": [intercept]},
        ]
        optimizer = torch.optim.Adam(groups, lr=_STEP_SIZE, betas=_BETAS, fused=True)
        step_size = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        blocks.append(_Block(first, weights, intercept, optimizer, step_size))
    return blocks


def _features_on(
    device: str, features: F32, classes: int, minibatch: int
) -> Callable[[I64], torch.Tensor]:
    """What gives the features of some rows, on the device.

    A GPU holds all features where they fit beside the weights; else rows are sent as they are used.
    """
    everything = torch.from_numpy(features)
    if device != "cpu":
        numbers = _WEIGHT_ARRAYS * classes * features.shape[1] + _LOGIT_ARRAYS * classes * minibatch
        if features.nbytes + 4 * numbers < torch.cuda.mem_get_info(device)[0]:
            everything = everything.to(device)

    def lookup(rows: I64) -> torch.Tensor:
        chosen = torch.from_numpy(rows).to(everything.device)
        return everything.index_select(0, chosen).to(device)

    return lookup


def _step(
    blocks: Sequence[_Block],
    batch: torch.Tensor,
    targets: csr_matrix,
    shares: torch.Tensor,
    run: Map,
) -> None:
    """One step of Adam. batch: (n, d). targets: (n, C). shares: (n,)."""
    scores = list(run(lambda block: block.logits(batch), blocks))
    peak = torch.stack([part.amax(dim=1) for part in scores]).amax(dim=0)

    def raise_e(part: torch.Tensor) -> torch.Tensor:
        return part.sub_(peak[:, None]).exp_().sum(dim=1)

    total = torch.stack(list(run(raise_e, scores))).sum(dim=0)
    shares = shares / len(batch)
    scale = (shares / total)[:, None]
    rows = np.repeat(np.arange(targets.shape[0]), np.diff(targets.indptr))

    def update(number: int) -> None:
        block, slope = blocks[number], scores[number].mul_(scale)
        last = block.first + slope.shape[1]
        own = np.flatnonzero((targets.indices >= block.first) & (targets.indices < last))
        row = torch.from_numpy(rows[own]).to(batch.device)
        column = torch.from_numpy(targets.indices[own].astype(np.int64) - block.first)
        wanted = torch.from_numpy(targets.data[own]).to(batch.device)
        slope[row, column.to(batch.device)] -= wanted * shares[row]  # no cell occurs twice
        block.update(batch, slope)

    for _ in run(update, range(len(blocks))):
        pass


@contextmanager
def _threads(blocks: int) -> Iterator[Map]:
    """What works on blocks at once; each thread keeps its products to itself."""
    if blocks == 1:
        yield map
        return
    cores = min(cores_of_machine(), blocks)
    with ThreadPoolExecutor(cores, "classes", torch.set_num_threads, (1,)) as threads:
        yield threads.map


@contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """One thread per product on a CPU: the blocks are worked on at once."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def resolve_device(device: str) -> str:
    """cpu or cuda. auto: a GPU if torch sees one."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device
