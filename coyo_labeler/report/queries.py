"""What the report asks of Spark: joined rows, one pass over them, and the heads of its sums."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.spark_tables import read_table, spark_schema
from coyo_labeler.report.boil import add_batches, extremes, sums_of, tally_batches
from coyo_labeler.report.sums import PACKED, Sums
from coyo_labeler.report.tally import EXAMPLES, TOP_K
from coyo_labeler.session import spark_path

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
    storage.check_columns(f"report: {key}", url, frame.columns, schema.names)
    for field in types:
        strays = frame.where(F.col(field.name).try_cast(field.dataType).isNull())
        stray = strays.select(field.name).first()
        if stray is not None:
            raise InputError(
                f"report: {key}: {url}: {field.name} {stray[0]!r} is not a "
                f"{field.dataType.simpleString()}; fix or drop that row"
            )
    return frame.select(*(F.col(field.name).cast(field.dataType) for field in types))


def join_truth(rows: DataFrame, gold: DataFrame | None, slices: DataFrame | None) -> DataFrame:
    """Add `gold` (list of true classes) and `slices` (list of names) where known, else null."""
    for frame, column, name in ((gold, "label", "gold"), (slices, "slice", "slices")):
        if frame is not None:
            lists = frame.groupBy("image_id").agg(F.sort_array(F.collect_set(column)).alias(name))
            rows = rows.join(lists, rows.id == lists.image_id, "left").drop("image_id")
    return rows


def join_other(rows: DataFrame, other: DataFrame | None, gold: DataFrame | None) -> DataFrame:
    """Add `other_labels` and `other_probs` of the second folder, null where it lacks the image.

    Only the first few travel, but all for images whose truth is known.
    """
    if other is None:
        return rows
    whole = other.select(F.col("id").alias("other_id"), "labels", "label_probs")
    judged = F.lit(False)
    if gold is not None:
        known = gold.select(F.col("image_id").alias("known_id")).distinct()
        whole = whole.join(known, F.col("other_id") == F.col("known_id"), "left")
        judged = F.col("known_id").isNotNull()
    lists = {"labels": "other_labels", "label_probs": "other_probs"}
    short = whole.select(
        "other_id",
        *(
            F.when(judged, F.col(column)).otherwise(F.slice(column, 1, TOP_K)).alias(name)
            for column, name in lists.items()
        ),
    )
    return rows.join(short, rows.id == short.other_id, "left").drop("other_id")


def gather(rows: DataFrame, classes: int, examples: int, top: int) -> Sums:
    """Everything that the report needs of the rows, in one pass over them (`tally.Tally`).

    Of pairs, scores and examples only what is shown comes to the driver (`boil.add_batches`).
    """

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return tally_batches(batches, classes, examples)

    def add(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return add_batches(batches, classes, examples, top)

    packed = rows.drop("url", "imagehash").mapInArrow(count, spark_schema(PACKED))
    group = ["measure", "name", "bucket"]
    added = packed.repartition(*group).sortWithinPartitions(*group)
    return sums_of(added.mapInArrow(add, spark_schema(PACKED)).toArrow())


def look_up(rows: DataFrame, sums: Sums) -> dict[str, list[dict[str, Any]]]:
    """What is known of the images worth a look, by kind, the most extreme first."""
    kinds = {kind: extremes(sums.of_measure(kind)).key.tolist() for kind in EXAMPLES}
    ids = sorted({image_id for found in kinds.values() for image_id in found})
    if not ids:
        return {}
    first = F.get("labels", F.lit(0))
    columns = [F.col("id"), first.alias("label"), F.get("label_probs", F.lit(0)).alias("prob")]
    columns += [F.col(name) for name in ("n_votes", "gold") if name in rows.columns]
    if "other_labels" in rows.columns:
        columns += [
            F.get("other_labels", F.lit(0)).alias("other_label"),
            F.get("other_probs", F.lit(0)).alias("other_prob"),
        ]
    found = rows.where(F.col("id").isin(ids)).select(*columns).collect()
    known = {row["id"]: row.asDict() for row in found}
    return {kind: [known[image_id] for image_id in of] for kind, of in kinds.items() if of}


def find_tars(spark: SparkSession, images: str, ids: list[int]) -> dict[int, tuple[str, str]]:
    """Where the images of a few ids lie: {id: (URL of the tar, key)}."""
    schema = pa.schema([schemas.IMAGES.field("id"), schemas.IMAGES.field("key")])
    table = read_table(spark, "images", images, schema).where(F.col("id").isin(ids))
    return {
        row["id"]: (storage.join(images, f"{row['key'][:-4]}.tar"), row["key"])
        for row in table.collect()
    }
