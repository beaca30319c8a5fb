import argparse
import resource
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from coyo_labeler.config.learn import LearnSettings
from coyo_labeler.learn.features import normalise
from coyo_labeler.learn.model import Learner
from coyo_labeler.learn.out_of_fold import folds_of, lowest_hash_first
from coyo_labeler.learn.pool import Pool
from coyo_labeler.learn.score import Job, Scorer, batch_rows
from coyo_labeler.learn.softmax import one_thread_blas
from coyo_labeler.learn.train import Fitted, train
from coyo_labeler.learn.training_set import TrainingSet
from coyo_labeler.machine import cores_of_machine


def training_set(images: int, classes: int, features: int, folds: int) -> TrainingSet:
    """Random features with posteriors of 5 classes each, as gather() orders them."""
    rng = np.random.default_rng(0)
    ids = np.arange(images, dtype=np.int64)
    fold = folds_of(ids, folds)
    order = np.lexsort((lowest_hash_first(ids), fold))
    few = min(5, classes)
    top = rng.integers(0, classes, images)
    label = (top[:, None] + np.arange(few)) % classes
    share = np.tile(np.array([0.8, *[0.2 / (few - 1)] * (few - 1)], np.float32), images)
    matrix = csr_matrix(
        (share, label.ravel(), np.arange(images + 1) * few), shape=(images, classes)
    )
    vectors = np.empty((images, features), np.float32)
    for first in range(0, images, 65_536):
        rows = slice(first, min(first + 65_536, images))
        vectors[rows] = normalise(
            rng.standard_normal((rows.stop - rows.start, features), dtype=np.float32)
        )
    present = np.flatnonzero(np.asarray(matrix.sum(axis=0)).ravel() > 0)
    return TrainingSet(ids[order], vectors, matrix[order][:, present], present, fold[order], images)


def learner_of(data: TrainingSet, fitted: Fitted, classes: int) -> Learner:
    return Learner(
        data.classes, classes, np.sort(data.image), fitted.centre, fitted.whole, fitted.by_fold,
        5, 1.0, Pool(0.0, 1.0), {"unseen_mass": 0.0}, "",
    )  # fmt: skip


def score(learner: Learner, rounds: int, batches: int) -> tuple[float, float, float]:
    """Images per second of scoring, of the bare product, and the median ratio of pairs."""
    d, classes = learner.whole.coefficients.shape
    rows = batch_rows(classes)
    rng = np.random.default_rng(1)
    features = rng.standard_normal((rows, d), dtype=np.float32)
    ids = np.arange(rows, dtype=np.int64) + 10**9  # none was trained on
    scorer = Scorer(learner, Job("", "", d, 50, None))
    weights = learner.whole.coefficients

    def ours(_: int) -> pa.Table:
        return scorer.score(ids, features, None)

    def bare(_: int) -> None:
        features @ weights

    ratios, speeds = [], []
    with one_thread_blas(), ThreadPoolExecutor(cores_of_machine()) as threads:
        for _ in range(rounds):
            pair = []
            for work in (bare, ours):
                started = time.perf_counter()
                list(threads.map(work, range(batches)))
                pair.append(rows * batches / (time.perf_counter() - started))
            speeds.append(pair)
            ratios.append(pair[1] / pair[0])
    bare_speed, own_speed = np.median(np.array(speeds), axis=0)
    return float(own_speed), float(bare_speed), float(np.median(ratios))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 1000, 21_841])
    parser.add_argument("--images", type=int, default=20_000, help="training images")
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--epochs", type=int, default=1, help="of minibatches")
    parser.add_argument("--rounds", type=int, default=7, help="pairs of timings")
    parser.add_argument("--no-training", action="store_true", help="score random weights")
    arguments = parser.parse_args()
    print(f"{cores_of_machine()} cores; {arguments.images:,} images × {arguments.features:,}")
    for classes in arguments.classes:
        data = training_set(arguments.images, classes, arguments.features, 5)
        settings = LearnSettings(
            embeddings="", labels="", output="", epochs=arguments.epochs, device="cpu"
        )
        if arguments.no_training:
            rng = np.random.default_rng(0)
            shape = (arguments.features, len(data.classes))
            learner = random_learner(data, rng.standard_normal(shape, dtype=np.float32), classes)
            trained = "not trained"
        else:
            with one_thread_blas(), ThreadPoolExecutor(cores_of_machine()) as threads:
                data, fitted = train(data, settings, threads.map)
            learner = learner_of(data, fitted, classes)
            trained = f"{fitted.solver} {fitted.seconds:.1f} s for 6 fits"
        own, bare, ratio = score(learner, arguments.rounds, 2 * cores_of_machine())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{classes:>6,} classes: training {trained}; scoring {own:,.0f} images/s, bare "
            f"product {bare:,.0f}, ratio {ratio:.2f}; peak memory so far {peak:.1f} GiB",
            flush=True,
        )


def random_learner(data: TrainingSet, weights: np.ndarray, classes: int) -> Learner:
    from coyo_labeler.learn.softmax import Softmax  # noqa: PLC0415

    model = Softmax(weights, np.zeros(weights.shape[1], np.float32))
    centre = np.zeros(len(weights), np.float32)
    empty = np.zeros((0, weights.shape[1]), np.float32)
    fitted = Fitted(model, {n: model for n in range(5)}, centre, "", data.image[:0], empty, 0.0)
    return learner_of(data, fitted, classes)


if __name__ == "__main__":
    main()
