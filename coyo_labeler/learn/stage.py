"""Features and posteriors to a learner, and to its beliefs of every image: the wiring."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from coyo_labeler import storage
from coyo_labeler.config.learn import LearnSettings
from coyo_labeler.formats.embeddings import Embeddings, find_embeddings
from coyo_labeler.formats.label_spaces import LabelSpace, load_label_space
from coyo_labeler.learn.evidence import read_accuracies, read_evidence
from coyo_labeler.learn.judge import HeldOut, judge
from coyo_labeler.learn.model import Learner, load_learner, save_learner
from coyo_labeler.learn.score import Job, Scorer, score_file
from coyo_labeler.learn.softmax import one_thread_blas
from coyo_labeler.learn.teacher import RowGroups, index_beliefs
from coyo_labeler.learn.train import learner_log_probability, sharpness_of, train
from coyo_labeler.learn.training_set import Targets, TrainingSet, gather, read_targets
from coyo_labeler.machine import cores_of_machine
from coyo_labeler.manifest import Outcome, Run
from coyo_labeler.receipts import Receipt, Receipts, files_of, total
from coyo_labeler.written import check_written

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

#: Classes without a training image that a message names.
_NAMED = 5


def learn(spark: "SparkSession | None", settings: LearnSettings, run: Run) -> Outcome:
    """Train a learner on posteriors, and write what it believes of every image with features.

    Reads `settings.embeddings`, `settings.labels` (schemas.POSTERIOR), `settings.beliefs`
    (schemas.BELIEFS) and `settings.votes`; writes {file:05d}.parquet (schemas.BELIEFS),
    weights.safetensors and metrics.json.
    Raises: InputError naming the key at fault; WorkError where a file is missing in the end.
    """
    embeddings = find_embeddings("embeddings", settings.embeddings)
    beliefs = None if settings.beliefs is None else index_beliefs(settings.beliefs)
    space = load_label_space(settings.label_space)
    learner = load_learner(settings.output, run.fingerprint) if run.resumed else None
    if learner is None:
        learner = _train(settings, embeddings, beliefs, space, run)
        run.check_owner()
        save_learner(settings.output, learner)
    storage.write_json(storage.join(settings.output, "metrics.json"), learner.metrics)
    job = Job(settings.output, run.fingerprint, embeddings.features, settings.top_k, beliefs)
    done = _score(spark, job, learner, embeddings, run)
    counts = {
        name: sum(receipt.details[name] for receipt in done)
        for name in ("out_of_fold", "without_belief")
    }
    return Outcome(total(done), details={**learner.metrics, **counts, "files": len(done)})


def _train(
    settings: LearnSettings,
    embeddings: Embeddings,
    beliefs: RowGroups | None,
    space: LabelSpace,
    run: Run,
) -> Learner:
    with one_thread_blas(), ThreadPoolExecutor(cores_of_machine(), "learn") as threads:
        targets = read_targets(settings, space.size, threads.map)
        data = gather(targets, embeddings, settings, threads.map)
        _say_what_is_missing(targets, data, space)
        logger.info(
            "learn: training on %s images, %s features, %s classes",
            f"{len(data.image):,}",
            f"{embeddings.features:,}",
            f"{len(data.classes):,}",
        )
        data, fitted = train(data, settings, threads.map)
        sharpness = sharpness_of(fitted, data.targets)
        held_out = HeldOut(
            data.image[fitted.judged],
            data.targets[fitted.judged].toarray(),
            learner_log_probability(fitted, sharpness),
            data.classes,
        )
        evidence = None
        if settings.votes is not None:
            accuracies = read_accuracies(settings.labels)
            evidence = read_evidence(
                settings.votes, accuracies, held_out.image, data.classes, space, threads.map
            )
        pool, metrics = judge(held_out, beliefs, evidence, space)
    order = np.argsort(data.image)
    return Learner(
        classes=data.classes,
        of_classes=space.size,
        image=data.image[order],
        centre=fitted.centre,
        whole=fitted.whole,
        by_fold=fitted.by_fold,
        folds=settings.folds,
        sharpness=sharpness,
        pool=pool,
        metrics={
            "training_images": len(data.image),
            "posteriors_that_pass": targets.passed,
            "posteriors_without_features": len(targets.image) - data.found,
            "classes": len(data.classes),
            "classes_without_image": space.size - len(data.classes),
            "unseen_mass": unseen_mass(data, space.size),
            "solver": fitted.solver,
            "sharpness": round(sharpness, 6),
            **metrics,
            "training_seconds": round(fitted.seconds, 3),
        },
        fingerprint=run.fingerprint,
    )


def unseen_mass(data: TrainingSet, of_classes: int) -> float:
    """The probability that an image is of a class that no training image has.

    The share of training images that are the only one of their class (Good, Biometrika 40, 1953).
    """
    if len(data.classes) == of_classes:
        return 0.0
    counts = np.asarray(data.targets.sum(axis=0)).ravel()
    return float(np.clip((counts < 1.5).sum() / max(len(data.image), 1), 1e-4, 0.5))


def _say_what_is_missing(targets: Targets, data: TrainingSet, space: LabelSpace) -> None:
    """One line on each thing that was left out."""
    left_out = len(targets.image) - len(data.image)
    if left_out:
        logger.warning(
            "learn: %s of %s images to learn from have no features and are left out",
            f"{left_out:,}",
            f"{len(targets.image):,}",
        )
    missing = np.setdiff1d(np.arange(space.size), data.classes)
    if len(missing):
        names = ", ".join(space.display_name(int(label)) for label in missing[:_NAMED])
        more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
        logger.warning(
            "learn: %s of %s classes have no training image (%s%s): the learner has no opinion "
            "of them",
            f"{len(missing):,}",
            f"{space.size:,}",
            names,
            more,
        )


def _score(
    spark: "SparkSession | None", job: Job, learner: Learner, embeddings: Embeddings, run: Run
) -> Sequence[Receipt]:
    """Score the files that have no receipt yet."""
    receipts = Receipts(job.output, job.fingerprint)
    finished = receipts.read() if run.resumed else {}
    finished, changed = receipts.split_intact(finished)
    for number in changed:
        receipts.remove(number)
    missing = [item for item in enumerate(embeddings.files) if item[0] not in finished]
    with receipts.watch("learn", len(embeddings.files), _speed, known=finished) as seen:
        if missing and spark is not None:
            from coyo_labeler.learn.on_spark import score_on_spark  # noqa: PLC0415

            score_on_spark(spark, job, missing)
        elif missing:
            _score_locally(job, learner, missing)
    done = receipts.require("learn", range(len(embeddings.files)), seen)
    check_written("learn", job.output, files_of(done))
    return done


def _score_locally(job: Job, learner: Learner, files: Sequence[tuple[int, Any]]) -> None:
    """Score some files at once: reading one takes longer than to score it with few classes."""
    cores = cores_of_machine()
    at_once = min(cores, len(files))
    threads = max(1, cores // at_once)
    scorer = Scorer(learner, job)

    def score(item: tuple[int, Any]) -> None:
        with ThreadPoolExecutor(threads, "score") as own:
            score_file(scorer, *item, own, threads)

    with one_thread_blas(), ThreadPoolExecutor(at_once, "file") as readers:
        for _ in readers.map(score, files):
            pass


def _speed(receipts: Sequence[Receipt]) -> dict[str, str]:
    return {"images": f"{sum(receipt.rows.rows_in for receipt in receipts):,}"}
