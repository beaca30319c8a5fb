"""What the report asks of Spark: joined rows, their tally, a few dozen example rows."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from coyo_labeler import schemas, storage
from coyo_labeler.errors import InputError
from coyo_labeler.report.metrics import Sums
from coyo_labeler.report.tally import SCHEMA, TOP_K, Tally
from coyo_labeler.session import spark_path
from coyo_labeler.tables import read_table, spark_schema

#: Groups that images can be put into; an image may be in several.
SLICES = pa.schema([pa.field("image_id", pa.int64()), pa.field("slice", pa.string())])

_POSTERIOR_ONLY = pa.schema([f for f in schemas.POSTERIOR if f.name not in schemas.BELIEFS.names])


def read_labels(spark: SparkSession, key: str, url: str) -> DataFrame:
    """Rows of beliefs or, with `n_votes, risk, entropy`, of a posterior."""
    found = storage.locate(url, "posterior")
    return read_table(spark, key, found, schemas.BELIEFS, optional=_POSTERIOR_ONLY)


def read_pairs(spark: SparkSession, key: str, url: str, schema: pa.Schema) -> DataFrame:
    """A table of two columns, `image_id` and another, from Parquet or CSV with a header.

    Raises: InputError naming a missing column or a value that is no number.
    """
    if storage.files_of(url):
        return read_table(spark, key, url, schema)
    if not storage.files_of(url, ".csv"):
        raise InputError(f"report: {key}: no Parquet or CSV files at {url}")
    reader = spark.read.option("header", True).option("pathGlobFilter", "*.csv")
    frame = reader.csv(spark_path(url))
    types = spark_schema(schema)
    for field in types:
        if field.name not in frame.columns:
            raise InputError(
                f"report: {key}: {url} has no column '{field.name}' (its columns: "
                f"{', '.join(frame.columns)})"
            )
        strays = frame.where(F.col(field.name).try_cast(field.dataType).isNull())
        stray = strays.select(field.name).first()
        if stray is not None:
            raise InputError(
                f"report: {key}: {url}: {field.name} {stray[0]!r} is not a "
                f"{field.dataType.simpleString()}; mend or drop that row"
            )
    return frame.select(*(F.col(field.name).cast(field.dataType) for field in types))


def join_truth(rows: DataFrame, gold: DataFrame | None, slices: DataFrame | None) -> DataFrame:
    """Add `gold` (list of true classes) and `slices` (list of names) where known, else null."""
    for frame, column, name in ((gold, "label", "gold"), (slices, "slice", "slices")):
        if frame is not None:
            lists = frame.groupBy("image_id").agg(F.sort_array(F.collect_set(column)).alias(name))
            rows = rows.join(lists, rows.id == lists.image_id, "left").drop("image_id")
    return rows


def join_other(rows: DataFrame, other: DataFrame | None) -> DataFrame:
    """Add the first labels of the second folder, `other_labels` and `other_probs`."""
    if other is None:
        return rows
    first = other.select(
        F.col("id").alias("other_id"),
        F.slice("labels", 1, TOP_K).alias("other_labels"),
        F.slice("label_probs", 1, TOP_K).alias("other_probs"),
    )
    return rows.join(first, rows.id == first.other_id, "left").drop("other_id")


def tally_rows(rows: DataFrame, classes: int) -> Sums:
    """All sums of the rows, in one pass over them (`tally.Tally`)."""

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        tally = Tally(classes)
        for batch in batches:
            tally.add(batch)
        yield from tally.table().to_batches()

    unread = [name for name in ("id", "url", "imagehash") if name in rows.columns]
    parts = rows.drop(*unread).mapInArrow(count, spark_schema(SCHEMA))
    keys = ["measure", "name", "a", "b"]
    sums = parts.groupBy(*keys).agg(F.sum("count").alias("count"), F.sum("total").alias("total"))
    return Sums.of(sums.toArrow())


def example_rows(rows: DataFrame, count: int) -> dict[str, list[dict[str, Any]]]:
    """At most `count` rows of each kind that is worth a look, the most extreme first.

    uncertain: highest risk. changed: another first label than in the second folder, by the
    probability that it gained. wrong: first label not true, by its probability.
    """
    first = F.get("labels", F.lit(0))
    slim = rows.where(F.size("labels") > 0).select(
        "id",
        first.alias("label"),
        F.get("label_probs", F.lit(0)).alias("prob"),
        *(F.col(name) for name in ("n_votes", "gold") if name in rows.columns),
        *(
            [
                F.get("other_labels", F.lit(0)).alias("other_label"),
                F.get("other_probs", F.lit(0)).alias("other_prob"),
                _probability_of(first).alias("before"),
            ]
            if "other_labels" in rows.columns
            else []
        ),
    )
    groups = {"uncertain": slim.orderBy("prob", "id")}
    if "other_label" in slim.columns:
        moved = slim.where(F.col("label") != F.col("other_label"))
        groups["changed"] = moved.orderBy((F.col("prob") - F.col("before")).desc(), "id")
    if "gold" in slim.columns:
        missed = slim.where(F.col("gold").isNotNull() & ~F.array_contains("gold", F.col("label")))
        groups["wrong"] = missed.orderBy(F.col("prob").desc(), "id")
    found = {name: [r.asDict() for r in g.limit(count).collect()] for name, g in groups.items()}
    return {name: group for name, group in found.items() if group}


def _probability_of(label: Any) -> Any:
    """Probability of a label in the second folder, 0 where it is not among its first ones."""
    at = F.array_position("other_labels", label)
    return F.coalesce(F.get("other_probs", (at - 1).cast("int")), F.lit(0.0))


def find_tars(spark: SparkSession, images: str, ids: list[int]) -> dict[int, tuple[str, str]]:
    """Where the images of a few ids lie: {id: (URL of the tar, key)}."""
    schema = pa.schema([schemas.IMAGES.field("id"), schemas.IMAGES.field("key")])
    table = read_table(spark, "images", images, schema).where(F.col("id").isin(ids))
    return {
        row["id"]: (storage.join(images, f"{row['key'][:-4]}.tar"), row["key"])
        for row in table.collect()
    }
