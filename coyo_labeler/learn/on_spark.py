"""Scoring on Spark: a task scores one file of features. The weights are read from the output."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from pyspark.sql import SparkSession

from coyo_labeler.errors import WorkError
from coyo_labeler.formats.embeddings import EmbeddingFile
from coyo_labeler.learn.model import WEIGHTS, Learner, load_learner
from coyo_labeler.learn.score import Job, Scorer, score_file
from coyo_labeler.learn.softmax import one_thread_blas


def score_on_spark(
    spark: SparkSession, job: Job, files: Sequence[tuple[int, EmbeddingFile]]
) -> None:
    """Score the files, a task each; rows hold numbers and URLs, never images."""

    def score(item: tuple[int, EmbeddingFile]) -> int:
        _score_one(job, *item)
        return item[0]

    spark.sparkContext.parallelize(files, len(files)).map(score).collect()


def _score_one(job: Job, number: int, file: EmbeddingFile) -> None:
    with one_thread_blas(), ThreadPoolExecutor(1, "score") as threads:
        score_file(_scorer_of(job.output, job), number, file, threads, 1)


@lru_cache(maxsize=1)
def _learner_of(output: str, fingerprint: str) -> Learner:
    learner = load_learner(output, fingerprint)
    if learner is None:
        raise WorkError(
            f"learn: {output}/{WEIGHTS} is not there or of another run; give an output that all "
            "executors see, and run the same command again"
        )
    return learner


def _scorer_of(output: str, job: Job) -> Scorer:
    """The scorer of a Python worker, which keeps the weights from task to task."""
    return Scorer(_learner_of(output, job.fingerprint), job)
