"""Shards dealt out over Spark: one task a Parquet file; for images, the labels joined to each tar.

Pictures are read from and written to storage by the task that holds their labels. They never travel
through Spark, and nothing but one small row a shard comes to the driver.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.export.choose import Reason
from coyo_labeler.export.job import REJECTS, Job, export_images, export_rows
from coyo_labeler.export.plan import Shard
from coyo_labeler.export.tars import INDEX, Tar, read_index
from coyo_labeler.formats import schemas
from coyo_labeler.formats.spark_tables import read_table, spark_schema, write_table

_DONE = pa.schema([pa.field("shard", pa.int32())])

#: Tasks for each one that can run at once: a task takes tar after tar, so that few wait at the end.
_WAVES = 4


def deal_rows(spark: SparkSession, job: Job, shards: Sequence[Shard]) -> None:
    """Write the Parquet files of these shards."""
    if not shards:
        return
    context = spark.sparkContext
    context.parallelize(list(shards), len(shards)).foreach(lambda shard: export_rows(job, shard))


def index_tars(spark: SparkSession, tars: Sequence[Tar]) -> DataFrame:
    """Which image lies in which tar (INDEX), over all tars; kept by Spark until unpersisted.

    Raises: InputError where two images have one id.
    """
    tasks = min(len(tars), _WAVES * spark.sparkContext.defaultParallelism)
    plan = spark.createDataFrame(
        spark.sparkContext.parallelize([(tar.number, tar.url) for tar in tars], tasks),
        "number int, url string",
    )

    def look(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for row in batch.to_pylist():
                yield from read_index(Tar(row["number"], row["url"])).to_batches()

    index = plan.mapInArrow(look, spark_schema(INDEX)).persist()
    twice = index.groupBy("id").agg(F.count("*").alias("n"), F.min("tar"), F.max("tar"))
    first = twice.where("n > 1").orderBy("id").first()
    if first is not None:
        places = " and ".join(sorted({tars[first[2]].url, tars[first[3]].url}))
        raise InputError(
            f"export: images: id {first['id']} is {first['n']} images ({places}); each image needs "
            "an id of its own"
        )
    return index


def deal_images(
    spark: SparkSession,
    job: Job,
    labels: DataFrame,
    index: DataFrame,
    missing: Sequence[Tar],
) -> int:
    """Write the tars or TFRecord files of the missing tars; returns how many labels have no image.

    Those become rejects of their own file.
    """
    strays = labels.join(index, "id", "left_anti").select(
        "id", F.lit(str(Reason.NO_IMAGE)).alias("reason"), F.lit(None).alias("detail")
    )
    url = storage.join(job.output, REJECTS, str(Reason.NO_IMAGE))
    write_table(strays, url, schemas.EXPORT_REJECTS)
    rejected = read_table(spark, "export: output", url, schemas.EXPORT_REJECTS).count()
    if missing:
        _deal_tars(spark, job, labels.join(index, "id"), missing)
    return rejected


def _deal_tars(spark: SparkSession, job: Job, rows: DataFrame, missing: Sequence[Tar]) -> None:
    tasks = min(len(missing), _WAVES * spark.sparkContext.defaultParallelism)
    # Tars are dealt out to tasks one by one: hashing them would leave some tasks without any.
    dealt = spark.createDataFrame(
        [(tar.number, place % tasks) for place, tar in enumerate(missing)], "tar int, task int"
    )
    # A row without key for every tar, so that one without labels is written too, empty.
    everyone = rows.join(F.broadcast(dealt), "tar").unionByName(dealt, allowMissingColumns=True)
    columns = ["tar", "key", *job.schema.names]
    by_number = {tar.number: tar for tar in missing}

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number, table in _tables_by_tar(batches):
            labelled = table.filter(table["key"].is_valid()).drop_columns(["tar"])
            fields = [pa.field("key", pa.string()), *job.schema]
            export_images(job, by_number[number], labelled.cast(pa.schema(fields)))
            yield pa.RecordBatch.from_pydict({"shard": [number]}, schema=_DONE)

    (
        everyone.repartitionById(tasks, "task")
        .select(*columns)
        .sortWithinPartitions("tar", "key")
        .mapInArrow(work, spark_schema(_DONE))
        .collect()  # one row a tar
    )


def _tables_by_tar(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.Table]]:
    """Tar after tar with all its rows, from batches sorted by tar."""

    def runs() -> Iterator[tuple[int, pa.RecordBatch]]:
        for batch in batches:
            numbers = batch.column("tar").to_pylist()
            start = 0
            for number, same in groupby(numbers):
                length = sum(1 for _ in same)
                yield number, batch.slice(start, length)
                start += length

    for number, parts in groupby(runs(), key=lambda run: run[0]):
        yield number, pa.Table.from_batches([part for _, part in parts])
