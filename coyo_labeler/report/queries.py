"""What the report asks of Spark: joined rows, one pass over them, and the heads of its sums."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from coyo_labeler import schemas, storage
from coyo_labeler.errors import InputError
from coyo_labeler.report.ranking import average_precisions
from coyo_labeler.report.sums import SCHEMA, Sums
from coyo_labeler.report.tally import EXAMPLES, MATRIX_CLASSES, PAIRS, SCORES, TOP_K, Tally
from coyo_labeler.session import spark_path
from coyo_labeler.tables import read_table, spark_schema

#: Groups that images can be put into; an image may be in several.
SLICES = pa.schema([pa.field("image_id", pa.int64()), pa.field("slice", pa.string())])

_POSTERIOR_ONLY = pa.schema([f for f in schemas.POSTERIOR if f.name not in schemas.BELIEFS.names])

_PRECISIONS = pa.schema(
    [
        pa.field("measure", pa.string()),
        pa.field("label", pa.int64()),
        pa.field("precision", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Gathered:
    """What one pass over the rows left.

    sums: all that is small. pairs: (a, b, count) of the most frequent pairs of different classes,
    by measure. precisions: average precision by class, by measure. extremes: ids of images worth
    a look, by kind, the most extreme first.
    """

    sums: Sums
    pairs: dict[str, list[tuple[int, int, int]]]
    precisions: dict[str, dict[int, float]]
    extremes: dict[str, list[int]]


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
    """Add `other_labels` and `other_probs` of the second folder, null where it lacks the image.

    Only the first few travel, but all for images whose truth is known.
    """
    if other is None:
        return rows
    other = other.select(F.col("id").alias("other_id"), "labels", "label_probs")
    if "gold" not in rows.columns:
        return _named_other(rows, other, TOP_K)
    return _named_other(rows, other, None)


def _named_other(rows: DataFrame, other: DataFrame, first: int | None) -> DataFrame:
    lists = {"labels": "other_labels", "label_probs": "other_probs"}
    for column, name in lists.items():
        whole = F.col(column)
        other = other.withColumn(name, whole if first is None else F.slice(whole, 1, first))
    other = other.drop(*lists)
    return rows.join(other, rows.id == other.other_id, "left").drop("other_id")


def gather(rows: DataFrame, classes: int, examples: int, top: int) -> Gathered:
    """Everything that the report needs of the rows, in one pass over them (`tally.Tally`)."""

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        tally = Tally(classes, examples)
        for batch in batches:
            tally.add(batch)
        yield from tally.table().to_batches()

    parts = rows.drop("url", "imagehash").mapInArrow(count, spark_schema(SCHEMA))
    keys = ["measure", "name", "a", "b"]
    added = parts.groupBy(*keys).agg(F.sum("count").alias("count"), F.sum("total").alias("total"))
    added = added.persist()
    try:
        # A small label space has few pairs: they make a whole matrix.
        many = [*SCORES, *EXAMPLES, *(() if classes <= MATRIX_CLASSES else PAIRS)]
        sums = Sums.of(added.where(~F.col("measure").isin(many)).toArrow())
        pairs, extremes = _heads(added, examples, top)
        return Gathered(sums, pairs, _precisions(added, sums, classes), extremes)
    finally:
        added.unpersist()


def _heads(
    added: DataFrame, examples: int, top: int
) -> tuple[dict[str, list[tuple[int, int, int]]], dict[str, list[int]]]:
    """The most frequent pairs and the most extreme images: a few dozen rows of each measure."""
    is_pair = F.col("measure").isin(*PAIRS) & (F.col("a") != F.col("b"))
    is_example = F.col("measure").isin(*EXAMPLES)
    order = Window.partitionBy("measure").orderBy(F.desc("count"), F.desc("total"), "a", "b")
    ranked = added.where(is_pair | is_example).withColumn("rank", F.row_number().over(order))
    wanted = F.when(is_example, F.lit(examples)).otherwise(F.lit(top))
    pairs: dict[str, list[tuple[int, int, int]]] = {}
    extremes: dict[str, list[int]] = {}
    for row in ranked.where(F.col("rank") <= wanted).orderBy("measure", "rank").toLocalIterator():
        if row["measure"] in EXAMPLES:
            extremes.setdefault(row["measure"], []).append(row["a"])
        else:
            pairs.setdefault(row["measure"], []).append((row["a"], row["b"], row["count"]))
    return pairs, extremes


def _precisions(added: DataFrame, sums: Sums, classes: int) -> dict[str, dict[int, float]]:
    """Average precision by class, worked out where the scores lie; one row per class comes here."""
    of_whom = {
        measure: (sums.dense(f"{whose}true", classes), sums.count(f"{whose}known"))
        for measure, whose in zip(SCORES, ("", "other_"), strict=True)
        if sums.count(f"{whose}known")
    }
    if not of_whom:
        return {}

    def rank(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held = list(batches)
        cells = Sums.of(pa.Table.from_batches(held)).cells if held else {}
        for (measure, _), scores in cells.items():
            labels, precisions = average_precisions(scores, *of_whom[measure])
            measures = pa.array([measure] * len(labels), pa.string())
            columns = [measures, pa.array(labels), pa.array(precisions)]
            yield pa.RecordBatch.from_arrays(columns, schema=_PRECISIONS)

    scores = added.where(F.col("measure").isin(*of_whom)).repartition("a")
    found: dict[str, dict[int, float]] = {measure: {} for measure in of_whom}
    columns = scores.mapInArrow(rank, spark_schema(_PRECISIONS)).toArrow().to_pydict()
    for measure, label, precision in zip(*columns.values(), strict=True):
        found[measure][label] = precision
    return found


def look_up(rows: DataFrame, extremes: dict[str, list[int]]) -> dict[str, list[dict[str, Any]]]:
    """What is known of a few images, by kind, in the order given."""
    ids = sorted({image_id for kind in extremes.values() for image_id in kind})
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
    known = {
        row["id"]: row.asDict()
        for row in rows.where(F.col("id").isin(ids)).select(*columns).collect()
    }
    return {kind: [known[image_id] for image_id in found] for kind, found in extremes.items()}


def find_tars(spark: SparkSession, images: str, ids: list[int]) -> dict[int, tuple[str, str]]:
    """Where the images of a few ids lie: {id: (URL of the tar, key)}."""
    schema = pa.schema([schemas.IMAGES.field("id"), schemas.IMAGES.field("key")])
    table = read_table(spark, "images", images, schema).where(F.col("id").isin(ids))
    return {
        row["id"]: (storage.join(images, f"{row['key'][:-4]}.tar"), row["key"])
        for row in table.collect()
    }
