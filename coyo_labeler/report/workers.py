"""The workers of a merge and the classes that they confuse, read with Spark."""

from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from coyo_labeler import spark_versions, storage
from coyo_labeler.formats import schemas
from coyo_labeler.formats.spark_tables import read_table


def read_workers(spark: SparkSession, labels: str) -> list[dict[str, Any]]:
    """Rows of schemas.WORKERS, by votes descending; [] if the labels were made without votes."""
    url = storage.join(labels, "workers")
    if not storage.exists(url):
        return []
    table = spark_versions.to_arrow(read_table(spark, "labels", url, schemas.WORKERS))
    rows: list[dict[str, Any]] = table.to_pylist()
    return sorted(rows, key=lambda row: (-row["n_votes"], row["worker_id"]))


def read_worker_pairs(spark: SparkSession, labels: str, top: int) -> list[tuple[int, int, float]]:
    """(true class, voted class, expected votes) of the pairs that are confused most often."""
    url = storage.join(labels, "confusions")
    if not storage.exists(url):
        return []
    table = read_table(spark, "labels", url, schemas.CONFUSIONS)
    pairs = (
        table.where("true_label <> voted_label")
        .groupBy("true_label", "voted_label")
        .agg(F.round(F.sum("count"), 6).alias("votes"))
        .orderBy(F.desc("votes"), "true_label", "voted_label")
        .limit(top)
    )
    return [(row[0], row[1], row[2]) for row in pairs.collect()]
