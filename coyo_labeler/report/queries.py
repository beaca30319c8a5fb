"""The report's work on Spark: reading and joining the rows, and one pass over them."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from coyo_labeler import spark_versions, storage
from coyo_labeler.errors import InputError
from coyo_labeler.formats import pairs, schemas
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.pairs import plan_pairs
from coyo_labeler.formats.parquet_splits import Split
from coyo_labeler.formats.spark_tables import read_parts, read_table, spark_schema
from coyo_labeler.report.aggregate import add_batches, extremes, tally_batches, unpack
from coyo_labeler.report.sums import PACKED, Aggregates
from coyo_labeler.report.tally import EXAMPLES, TOP_K
from coyo_labeler.report.tree_tally import TreeTally

#: Rows of gold or slices that one task reads.
_ROWS_PER_SPLIT = 500_000

_REQUIRED = pa.schema([f for f in schemas.BELIEFS if f.name not in schemas.CARRIED])
_OPTIONAL = pa.schema([f for f in schemas.POSTERIOR if f.name not in _REQUIRED.names])


def read_labels(spark: SparkSession, key: str, url: str) -> DataFrame:
    """Rows of beliefs, or of a posterior, which adds `n_votes, risk, entropy`."""
    folder = storage.locate(url, "posterior")
    rows = read_table(spark, key, folder, _REQUIRED, _OPTIONAL)
    missing = [field for field in spark_schema(schemas.BELIEFS) if field.name not in rows.columns]
    nulls = {field.name: F.lit(None).cast(field.dataType) for field in missing}
    return rows.withColumns(nulls) if nulls else rows


def read_pairs(
    spark: SparkSession, key: str, url: str, schema: pa.Schema, space: LabelSpace
) -> DataFrame:
    """A table of two columns, `image_id` and another, from Parquet or CSV with a header.

    A column `label` may have numbers or names of classes of the label space.

    Raises: InputError naming a missing column; Spark's error, of an InputError that names a value
    of the wrong type, when the rows are asked for.
    """
    source = f"report: {key}"
    parts = plan_pairs(source, url, schema, _ROWS_PER_SPLIT)

    def read(part: Split | str) -> Iterator[pa.Table]:
        for table in pairs.read_pairs(source, part, schema, space):
            if isinstance(part, str):
                _refuse_nulls(table, f"{source}: {part}")
            yield table

    return read_parts(spark, parts, read, schema)


def _refuse_nulls(table: pa.Table, source: str) -> None:
    for name in table.column_names:
        if table[name].null_count:
            raise InputError(f"{source} has a row without {name}; fix or drop that row")


def join_truth(rows: DataFrame, gold: DataFrame | None, slices: DataFrame | None) -> DataFrame:
    """Add `gold` (list of true classes) and `slices` (list of names); null where unknown."""
    for frame, column, name in ((gold, "label", "gold"), (slices, "slice", "slices")):
        if frame is not None:
            lists = frame.groupBy("image_id").agg(F.sort_array(F.collect_set(column)).alias(name))
            rows = rows.join(lists, rows.id == lists.image_id, "left").drop("image_id")
    return rows


def join_other(rows: DataFrame, other: DataFrame | None, gold: DataFrame | None) -> DataFrame:
    """Add `other_labels` and `other_probs` of the second folder; null if it lacks the image.

    Images whose truth is known keep all candidates; the others only the first `TOP_K`, so that
    little is shuffled.
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


def aggregate(
    rows: DataFrame, classes: int, examples: int, top: int, tree: TreeTally | None = None
) -> Aggregates:
    """Everything that the report needs to know of the rows, in one pass over them (`tally.Tally`).

    classes: size of the label space. examples: images of each kind, top: pairs of classes, that the
    report shows. Only these reach the driver (`aggregate.add_batches`). tree: see `Tally`.
    """

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return tally_batches(batches, classes, examples, tree)

    def add(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return add_batches(batches, classes, examples, top)

    packed = rows.drop("url", "imagehash").mapInArrow(count, spark_schema(PACKED))
    group = ["measure", "name", "bucket"]
    added = packed.repartition(*group).sortWithinPartitions(*group)
    return unpack(spark_versions.to_arrow(added.mapInArrow(add, spark_schema(PACKED))))


def look_up(rows: DataFrame, sums: Aggregates) -> dict[str, list[dict[str, Any]]]:
    """The rows of the images worth a look, by kind, the most extreme first."""
    kinds = {kind: extremes(sums.of_measure(kind)).key.tolist() for kind in EXAMPLES}
    ids = sorted({image_id for extreme in kinds.values() for image_id in extreme})
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
    selected = rows.where(F.col("id").isin(ids)).select(*columns).collect()
    by_id = {row["id"]: row.asDict() for row in selected}
    return {kind: [by_id[image_id] for image_id in ids] for kind, ids in kinds.items() if ids}
