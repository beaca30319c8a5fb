"""Softmax regression of many classes: Adam on minibatches, with sparse targets.

The loss is that of `softmax`. The classes are cut into blocks, each with its own weights and its
own thread; a step needs the greatest logit and the sum of exponentials of all blocks, and adds them
up in their order. So the result does not depend on the number of cores. On a GPU there is one
block. Kingma & Ba, ICLR 2015; the step size falls by a cosine to zero.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

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
_DECAY, _SQUARE_DECAY, _TINY = 0.9, 0.99, 1e-8


@dataclass(frozen=True)
class Schedule:
    """How long to train. ridge: λ of the mean loss. seed: of the order of rows."""

    epochs: int
    minibatch: int
    ridge: float
    seed: int


@dataclass
class _Block:
    """The weights of some classes, intercept last, and the moments of their gradients."""

    first: int
    weights: torch.Tensor
    mean: torch.Tensor
    square: torch.Tensor


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
    d = features.shape[1]
    scale = math.sqrt(d)  # features of unit variance, for which Adam's step size is meant
    share = weights / weights[index].mean(dtype=np.float64)
    blocks = _start(d, targets.shape[1], device)
    steps = schedule.epochs * math.ceil(len(index) / schedule.minibatch)
    rng = np.random.default_rng(schedule.seed)
    ridge = schedule.ridge * d  # of weights of scaled features
    step = 0
    with _one_thread(device), _threads(len(blocks)) as run:
        for _epoch in range(schedule.epochs):
            order = rng.permutation(index)
            for first in range(0, len(order), schedule.minibatch):
                step += 1
                chosen = np.sort(order[first : first + schedule.minibatch])
                batch = torch.from_numpy(features[chosen] * np.float32(scale)).to(device)
                batch = torch.cat([batch, torch.ones(len(batch), 1, device=device)], dim=1)
                rate = _STEP_SIZE * 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))
                part = targets[chosen]
                shares = torch.from_numpy(share[chosen].astype(np.float32)).to(device)
                _step(blocks, batch, part, shares, rate, step, ridge, run)
                progress(len(chosen))
    stacked = torch.cat([block.weights for block in blocks], dim=1).cpu().numpy()
    return Softmax(
        np.ascontiguousarray(stacked[:-1] * np.float32(scale)), np.ascontiguousarray(stacked[-1])
    )


def _start(d: int, classes: int, device: str) -> list[_Block]:
    width = _BLOCK if device == "cpu" else classes
    return [
        _Block(
            first,
            *(torch.zeros(d + 1, min(width, classes - first), device=device) for _ in range(3)),
        )
        for first in range(0, classes, width)
    ]


def _step(
    blocks: list[_Block],
    batch: torch.Tensor,
    targets: csr_matrix,
    shares: torch.Tensor,
    rate: float,
    step: int,
    ridge: float,
    run: Map,
) -> None:
    """One step of Adam. batch: (n, d + 1). targets: (n, C). shares: (n,)."""
    scores = list(run(lambda block: batch @ block.weights, blocks))
    peak = torch.stack([part.amax(dim=1) for part in scores]).amax(dim=0)

    def raise_e(part: torch.Tensor) -> torch.Tensor:
        return part.sub_(peak[:, None]).exp_().sum(dim=1)

    total = torch.stack(list(run(raise_e, scores))).sum(dim=0)
    scale = shares / total
    rows = np.repeat(np.arange(targets.shape[0]), np.diff(targets.indptr))
    value = torch.from_numpy(targets.data).to(batch.device)

    def update(number: int) -> None:
        block, rest = blocks[number], scores[number]
        rest.mul_(scale[:, None])
        last = block.first + rest.shape[1]
        own = np.flatnonzero((targets.indices >= block.first) & (targets.indices < last))
        row = torch.from_numpy(rows[own]).to(batch.device)
        column = torch.from_numpy(targets.indices[own].astype(np.int64) - block.first)
        column = column.to(batch.device)
        taken = value[torch.from_numpy(own).to(batch.device)] * shares[row]
        rest[row, column] -= taken  # no cell of the targets occurs twice
        gradient = batch.T @ rest
        gradient /= len(batch)
        gradient[:-1] += ridge * block.weights[:-1]
        block.mean.lerp_(gradient, 1 - _DECAY)
        block.square.mul_(_SQUARE_DECAY).addcmul_(gradient, gradient, value=1 - _SQUARE_DECAY)
        root = (block.square / (1 - _SQUARE_DECAY**step)).sqrt_().add_(_TINY)
        block.weights.addcdiv_(block.mean, root, value=-rate / (1 - _DECAY**step))

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
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(before)


def resolve_device(device: str) -> str:
    """cpu or cuda. auto: a GPU if torch sees one."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device
