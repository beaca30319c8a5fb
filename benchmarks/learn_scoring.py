"""How fast a learner scores, against a bare matrix product, and against files that are read.

Pairs of timings in turn: the product of a batch's features with the weights alone, then all that
`learn` does with the batch (lengths, product, out-of-fold rows, softmax, most probable classes, the
table). Both go over the same features, the same batches, on the same cores; the median of the
ratios counts. Features lie in memory, in more than a cache holds; the ratio for one batch again and
again, whose features stay in a cache, is told too. Then, once, a file of features is scored and
written, and only read.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coyo_labeler.formats.embeddings import find_embeddings, read_embeddings
from coyo_labeler.learn.model import Learner
from coyo_labeler.learn.pool import Pool
from coyo_labeler.learn.score import Job, Scorer, batch_rows, score_file
from coyo_labeler.learn.softmax import F32, Softmax, one_thread_blas
from coyo_labeler.machine import cores_of_machine

_FOLDS = 5
#: Bytes of features: more than a cache holds.
_MEMORY = 300e6


def random_learner(features: int, classes: int) -> Learner:
    """A learner of random weights; none of the images that are scored was trained on."""
    weights = np.random.default_rng(0).standard_normal((features, classes), np.float32)
    model = Softmax(weights, np.zeros(classes, np.float32))
    return Learner(
        classes=np.arange(classes),
        of_classes=classes,
        image=np.arange(20_000),
        centre=np.zeros(features, np.float32),
        whole=model,
        by_fold=dict.fromkeys(range(_FOLDS), model),
        folds=_FOLDS,
        sharpness=0.9,
        pool=Pool(0.0, 1.0),
        metrics={"unseen_mass": 0.0},
        fingerprint="",
    )


def ratio_to_product(
    learner: Learner, rounds: int, distinct_batches: int
) -> tuple[float, float, float]:
    """Images per second of scoring, of the bare product, and the median ratio of pairs."""
    weights = learner.whole.coefficients
    d, classes = weights.shape
    rows = batch_rows(classes)
    features = np.random.default_rng(1).standard_normal((rows * distinct_batches, d), np.float32)
    ids = np.arange(rows) + 10**9
    scorer = Scorer(learner, Job("", "", d, 50, None))
    cores = cores_of_machine()
    # Long enough that the start of threads does not count.
    batches = cores * max(8, int(4e10 / (2 * rows * d * classes)))

    def batch(number: int) -> F32:
        first = number % distinct_batches * rows
        return features[first : first + rows]

    def ours(number: int) -> None:
        scorer.score(ids, batch(number), None)

    def bare(number: int) -> None:
        batch(number) @ weights

    speeds = []
    with one_thread_blas(), ThreadPoolExecutor(cores) as threads:

        def speed_of(work: Callable[[int], None]) -> float:
            started = time.perf_counter()
            list(threads.map(work, range(batches)))
            return rows * batches / (time.perf_counter() - started)

        for _ in range(rounds):
            speeds.append((speed_of(ours), speed_of(bare)))
    own, product = np.array(speeds).T
    return float(np.median(own)), float(np.median(product)), float(np.median(own / product))


def speed_of_files(learner: Learner, images: int) -> tuple[float, float]:
    """Images per second: a file of float16 features to a file of beliefs, and only read."""
    d = len(learner.centre)
    with tempfile.TemporaryDirectory(prefix="learn-") as folder:
        values = np.random.default_rng(2).standard_normal(images * d, np.float32)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float16)), d)
        source = Path(folder) / "features.parquet"
        pq.write_table(pa.table({"id": np.arange(images) + 10**9, "embedding": vectors}), source)
        (file,) = find_embeddings("embeddings", str(source)).files
        scorer = Scorer(learner, Job(f"{folder}/out", "", d, 50, None))
        cores = cores_of_machine()
        with one_thread_blas(), ThreadPoolExecutor(cores) as threads:
            started = time.perf_counter()
            score_file(scorer, 0, file, threads, cores)
            scored = images / (time.perf_counter() - started)
        started = time.perf_counter()
        for _ in read_embeddings(file, d, batch_rows(len(learner.classes))):
            pass
        return scored, images / (time.perf_counter() - started)


def measure_all(arguments: argparse.Namespace) -> None:
    """Print a line for each number of classes."""
    for classes in arguments.classes:
        learner = random_learner(arguments.features, classes)
        rows = batch_rows(classes)
        many = max(1, int(_MEMORY / (4 * arguments.features * rows)))
        own, bare, ratio = ratio_to_product(learner, arguments.rounds, many)
        cached = ratio_to_product(learner, arguments.rounds, 1)[2]
        file, read = speed_of_files(learner, 8192)
        print(
            f"{classes:>6,} classes: scoring {own:,.0f} images/s, bare product {bare:,.0f}, ratio "
            f"{ratio:.2f} (in a cache {cached:.2f}); a file to a file {file:,.0f}, only read "
            f"{read:,.0f}",
            flush=True,
        )
