"""What Spark reads for the audit: the votes, and the labels of the images that they are about.

Only images that were asked about come to the driver, at most some `MAX_IMAGES` of them, chosen by a
hash of their id. Of all other images it gets one count and one sum per labels folder and slice.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from coyo_labeler import spark_versions, storage
from coyo_labeler.audit.tables import TOP_LABELS
from coyo_labeler.formats import schemas
from coyo_labeler.formats.collected import COLUMNS, CsvFile, plan_collected, read_collected
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.parquet_splits import Split
from coyo_labeler.formats.spark_tables import read_parts, read_table

#: Images whose answers come to the driver, at most about so many, and so many answers.
MAX_IMAGES, MAX_ANSWERS = 200_000, 1_000_000
_ROWS_PER_SPLIT = 500_000
_BUCKETS = 1 << 20


@dataclass(frozen=True)
class Asked:
    """The votes. rows: as COLUMNS. images, answers: in all. share: of the images that are chosen.

    chosen: COLUMNS of the votes on chosen images. is_chosen: a Spark condition on `image_id`.
    """

    rows: DataFrame
    images: int
    answers: int
    share: float
    chosen: pa.Table


@dataclass(frozen=True)
class Labelled:
    """A labels table beside the votes.

    chosen: `id, labels, label_probs` of chosen images. asked: images of the table that were asked
    about. images: in the table. confidence: mean probability of the first label of images that
    nobody was asked about; None if there are none.
    """

    chosen: pa.Table
    asked: int
    images: int
    confidence: float | None


def read_votes(spark: SparkSession, url: str, space: LabelSpace) -> DataFrame:
    """Votes with what is known of their questions (COLUMNS).

    Raises: InputError naming a missing column; Spark's error, of an InputError that names a value
    of the wrong type, when the rows are asked for.
    """
    parts = plan_collected("report: votes", url, _ROWS_PER_SPLIT)

    def read(part: Split | CsvFile) -> Iterator[pa.Table]:
        return read_collected(part, space)

    return read_parts(spark, parts, read, COLUMNS)


def gather_votes(rows: DataFrame) -> Asked:
    """Count the votes, and collect those on chosen images."""
    counts = rows.agg(F.count("*"), F.count_distinct("image_id")).first()
    answers, images = (counts[0], counts[1]) if counts is not None else (0, 0)
    share = min(1.0, MAX_IMAGES / max(images, 1), MAX_ANSWERS / max(answers, 1))
    chosen = rows if share == 1 else rows.where(is_chosen("image_id", share))
    return Asked(rows, images, answers, share, spark_versions.to_arrow(chosen))


def is_chosen(column: str, share: float) -> Column:
    """Whether an image is among the chosen share, by a hash of its id."""
    bucket = F.pmod(F.xxhash64(F.col(column)), F.lit(_BUCKETS))
    return bucket < F.lit(round(share * _BUCKETS))


def look_up_asked(labels: DataFrame, asked: Asked) -> Labelled:
    """The labels of the images that were asked about, and what is known of the others."""
    ids = asked.rows.select(F.col("image_id").alias("asked_id")).distinct()
    first = F.coalesce(F.get("label_probs", F.lit(0)), F.lit(0.0))
    joined = labels.select("id", "labels", "label_probs").join(
        ids, F.col("id") == F.col("asked_id"), "left"
    )
    is_asked = F.col("asked_id").isNotNull()
    sums = joined.agg(
        F.count("*"),
        F.count(F.when(is_asked, 1)),
        F.sum(F.when(~is_asked, first.cast("double"))),
    ).first()
    images, of_asked, total = (sums[0], sums[1], sums[2]) if sums is not None else (0, 0, None)
    rows = joined.where(is_asked)
    if asked.share < 1:
        rows = rows.where(is_chosen("id", asked.share))
    chosen = rows.select(
        "id",
        F.slice("labels", 1, TOP_LABELS).alias("labels"),
        F.slice("label_probs", 1, TOP_LABELS).alias("label_probs"),
    )
    confidence = None if images == of_asked else (total or 0.0) / (images - of_asked)
    return Labelled(spark_versions.to_arrow(chosen), of_asked, images, confidence)


def by_slice(
    labels: DataFrame, asked: Asked, slices: DataFrame
) -> dict[str, tuple[int, int, float | None]]:
    """Of each slice: images, images that were asked about, and the mean probability of the first
    label of the others, None where there are none.
    """
    ids = asked.rows.select(F.col("image_id").alias("asked_id")).distinct()
    groups = slices.dropDuplicates(["image_id", "slice"])
    first = F.coalesce(F.get("label_probs", F.lit(0)), F.lit(0.0)).cast("double")
    joined = (
        labels.select("id", first.alias("first"))
        .join(groups, F.col("id") == F.col("image_id"))
        .join(ids, F.col("id") == F.col("asked_id"), "left")
    )
    is_asked = F.col("asked_id").isNotNull()
    sums = joined.groupBy("slice").agg(
        F.count("*"), F.count(F.when(is_asked, 1)), F.sum(F.when(~is_asked, F.col("first")))
    )
    return {
        row[0]: (row[1], row[2], None if row[1] == row[2] else row[3] / (row[1] - row[2]))
        for row in sums.collect()
    }


def read_skipped(spark: SparkSession, votes: str) -> DataFrame | None:
    """The answers that collect set aside because the worker skipped the question.

    None where the rejects of collect do not lie beside the votes: then nothing is known of them.

    Raises: InputError where the rejects are not as collect writes them.
    """
    folder, _, last = votes.rstrip("/").rpartition("/")
    url = storage.join(folder if last == "votes" else votes, "rejects")
    if not storage.exists(url) or not storage.files_of(url):
        return None
    rows = read_table(spark, "report: votes", url, schemas.COLLECT_REJECTS)
    return rows.where(F.col("reason") == "skipped")


def count_skipped(skipped: DataFrame, labels: DataFrame) -> tuple[dict[str, int], dict[int, int]]:
    """Skipped questions by worker, and by first label of their image."""
    workers = skipped.groupBy("worker_id").count().collect()
    classes = (
        skipped.join(
            labels.select("id", F.get("labels", F.lit(0)).alias("first")),
            F.col("image_id") == F.col("id"),
        )
        .groupBy("first")
        .count()
        .collect()
    )
    return (
        {row[0]: row[1] for row in workers if row[0] is not None},
        {row[0]: row[1] for row in classes if row[0] is not None},
    )
