"""What training a learner costs, in time per epoch and memory. It needs NumPy, SciPy and PyTorch.

    python -m benchmarks.learn --train-only                    # on this machine's cores
    python -m benchmarks.learn --train-only --device cuda      # on a GPU, in under 90 seconds

Run it from the repository's root. Nothing else has to be installed: no Spark, Java nor Arrow.

Half a million images of 1,280 features are in memory. On a GPU a whole epoch is run; on cores some
steps, from which an epoch's time is extrapolated. Each number of classes has a process of its own,
so that its peak memory is its own. At last, a small problem is fitted on the device twice and on
the CPU: the first two must be equal bit by bit, the third nearly.
"""

import argparse
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch
from scipy.sparse import csr_matrix

from coyo_labeler.learn.minibatch import Schedule, fit_minibatches
from coyo_labeler.learn.softmax import F32, R, Softmax, T, blocks_of, fit_softmax, one_thread_blas
from coyo_labeler.machine import cores_of_machine

#: Labels of a posterior.
_LABELS = 5
_MINIBATCH = 512
#: Minibatches that are timed on cores: fewer with more classes, some seconds each.
_FEWEST_STEPS, _MOST_STEPS, _PRODUCTS = 12, 200, 100_000_000
#: Weights up to which few classes are fitted by L-BFGS, as learn.train has it.
_FULL_BATCH_WEIGHTS = 2_000_000


def random_features(images: int, features: int) -> F32:
    """Rows of unit length, (images, features)."""
    rng = np.random.default_rng(0)
    vectors = np.empty((images, features), np.float32)
    for rows in blocks_of(0, images):
        vectors[rows] = rng.standard_normal((rows.stop - rows.start, features), np.float32)
        vectors[rows] /= np.sqrt(np.einsum("nd,nd->n", vectors[rows], vectors[rows]))[:, None]
    return vectors


def random_posteriors(images: int, classes: int) -> csr_matrix:
    """Posteriors of a few classes each, (images, classes)."""
    few = min(_LABELS, classes)
    top = np.random.default_rng(1).integers(0, classes, images)
    label = ((top[:, None] + np.arange(few)) % classes).astype(np.int32)
    label.sort(axis=1)
    share = np.tile(np.full(few, 0.05, np.float32), (images, 1))
    share[label == top[:, None]] = 1 - 0.05 * (few - 1)
    offsets = np.arange(images + 1, dtype=np.int32) * few
    return csr_matrix((share.ravel(), label.ravel(), offsets), shape=(images, classes))


def measure(images: int, features: int, classes: int, steps: int | None, device: str) -> str:
    """One line: seconds of an epoch, and peak memory. steps: of minibatches; None: an epoch."""
    vectors, targets = random_features(images, features), random_posteriors(images, classes)
    weights = np.ones(images, np.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    fitted = images if steps is None else min(images, steps * _MINIBATCH)
    schedule = Schedule(1, _MINIBATCH, 0.3 / images, 0)
    few = (features + 1) * classes <= _FULL_BATCH_WEIGHTS
    lines = []
    if device == "cpu" and few:
        seconds = pass_of_lbfgs(vectors, targets, blocks_of(0, fitted))
        lines.append(f"L-BFGS {seconds * images / fitted:.1f} s per pass over all images")
    # Once on few images: kernels and modules are loaded.
    fit_minibatches(vectors[:64], targets[:64], weights, [slice(0, 64)], schedule, device)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    fit_minibatches(vectors, targets, weights, [slice(0, fitted)], schedule, device)
    seconds = (time.perf_counter() - started) * images / fitted
    lines.append(f"minibatches {seconds:.1f} s per epoch")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines.append(f"peak memory {peak:.1f} GiB (before training {before:.1f})")
    if device != "cpu":
        lines.append(f"of the GPU {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    return f"{classes:>6,} classes: " + ", ".join(lines)


def pass_of_lbfgs(vectors: F32, targets: csr_matrix, blocks: Sequence[slice]) -> float:
    """Seconds of one value and gradient of the loss, by all cores."""
    passes = 0
    weights = np.ones(len(vectors), np.float32)
    with one_thread_blas(), ThreadPoolExecutor(cores_of_machine()) as threads:

        def counted(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
            nonlocal passes
            passes += 1
            return threads.map(work, items)

        started = time.perf_counter()
        fit_softmax(vectors, targets, weights, 1e-6, None, 2, 0.0, counted, blocks)
        return (time.perf_counter() - started) / passes


def check(device: str) -> str:
    """The same fit on the device twice and on the CPU: one line. A difference of bits is an error.

    Raises: SystemExit where two fits on the device differ.
    """
    images, d, classes = 4000, 64, 300
    vectors, targets = random_features(images, d), random_posteriors(images, classes)
    weights, schedule = np.ones(images, np.float32), Schedule(5, 256, 1e-4, 0)

    def fit(where: str) -> Softmax:
        return fit_minibatches(vectors, targets, weights, [slice(0, images)], schedule, where)

    first, second, cpu = fit(device), fit(device), fit("cpu")
    if first.coefficients.tobytes() != second.coefficients.tobytes():
        raise SystemExit(f"two fits on {device} differ")
    gap = np.abs(first.logits(vectors) - cpu.logits(vectors)).max()
    size = cpu.logits(vectors).std()
    return (
        f"two fits on {device} are equal; logits are within {gap:.1e} of the CPU's (σ {size:.1f})"
    )


def measure_all(arguments: argparse.Namespace) -> None:
    """Print a line for each number of classes."""
    device = arguments.device
    if device == "cuda":
        print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    for classes in arguments.classes:
        steps: int | None = arguments.steps
        if steps is None and device == "cpu":
            steps = max(
                _FEWEST_STEPS, min(_MOST_STEPS, _PRODUCTS // (arguments.features * classes))
            )
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            case = (arguments.images, arguments.features, classes, steps, device)
            print(process.submit(measure, *case).result(), flush=True)
    print(check(device))
