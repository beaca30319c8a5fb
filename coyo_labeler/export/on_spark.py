"""Export on Spark: one task per Parquet file; for images, the labels are joined to their tars.

The task that holds the labels of a tar reads its pictures from storage and writes them back there.
Pictures never travel through Spark, and the driver receives only one small row per shard.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from coyo_labeler import spark_versions, storage
from coyo_labeler.errors import InputError
from coyo_labeler.export.choose import Reason
from coyo_labeler.export.job import REJECTS, ExportJob, export_images, export_rows
from coyo_labeler.export.plan import Shard
from coyo_labeler.export.tars import Tar, index_tar
from coyo_labeler.formats import schemas
from coyo_labeler.formats.spark_tables import read_table, spark_schema, write_table
from coyo_labeler.formats.tars import DamagedTarError

_DONE = pa.schema([pa.field("shard", pa.int32()), pa.field("damage", pa.string())])

#: Tasks per slot: each takes one tar after another, and several waves leave few slots idle at last.
_WAVES = 4


def write_rows(spark: SparkSession, job: ExportJob, shards: Sequence[Shard]) -> None:
    """Write the Parquet files of these shards."""
    if not shards:
        return
    context = spark.sparkContext
    context.parallelize(list(shards), len(shards)).foreach(lambda shard: export_rows(job, shard))


def index_tars(spark: SparkSession, tars: Sequence[Tar]) -> DataFrame:
    """The tar and key of every image (schemas.IMAGE_INDEX).

    Spark persists it until the caller unpersists it.

    Raises: InputError where two images have the same id.
    """
    tasks = min(len(tars), _WAVES * spark.sparkContext.defaultParallelism)
    plan = spark.createDataFrame(
        spark.sparkContext.parallelize([(tar.number, tar.url) for tar in tars], tasks),
        "number int, url string",
    )

    rule = tars[0].ids

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for row in batch.to_pylist():
                with suppress(DamagedTarError):  # the task that writes the tar again reports it
                    yield from index_tar(Tar(row["number"], row["url"], rule)).to_batches()

    index = plan.mapInArrow(read, spark_schema(schemas.IMAGE_INDEX)).persist()
    twice = index.groupBy("id").agg(F.count("*").alias("n"), F.min("tar"), F.max("tar"))
    first = twice.where("n > 1").orderBy("id").first()
    if first is not None:
        urls = " and ".join(sorted({tars[first[2]].url, tars[first[3]].url}))
        raise InputError(
            f"export: images: id {first['id']} belongs to {first['n']} images ({urls}); give each "
            "image an id of its own"
        )
    return index


def write_images(
    spark: SparkSession,
    job: ExportJob,
    labels: DataFrame,
    index: DataFrame,
    missing: Sequence[Tar],
) -> int:
    """Write the tars or TFRecord files of the missing tars; returns how many rows have no image.

    Those rows become rejects, in a file of their own.
    """
    without_image = labels.join(index, "id", "left_anti").select(
        "id", F.lit(str(Reason.NO_IMAGE)).alias("reason"), F.lit(None).alias("detail")
    )
    url = storage.join(job.output, REJECTS, str(Reason.NO_IMAGE))
    write_table(without_image, url, schemas.EXPORT_REJECTS)
    rejected = read_table(spark, "export: output", url, schemas.EXPORT_REJECTS).count()
    if missing:
        _write_tars(spark, job, labels.join(index, "id"), missing)
    return rejected


def _write_tars(
    spark: SparkSession, job: ExportJob, rows: DataFrame, missing: Sequence[Tar]
) -> None:
    tasks = min(len(missing), _WAVES * spark.sparkContext.defaultParallelism)
    # Tars go to tasks in turn: hashing their numbers would leave some tasks without any.
    task_of_tar = spark.createDataFrame(
        [(tar.number, index % tasks) for index, tar in enumerate(missing)], "tar int, task int"
    )
    # Every tar gets one row without a key, so that a tar without labels is written too, empty.
    labelled_rows = rows.join(F.broadcast(task_of_tar), "tar")
    with_empty_tars = labelled_rows.unionByName(task_of_tar, allowMissingColumns=True)
    columns = ["tar", "key", *job.schema.names]
    by_number = {tar.number: tar for tar in missing}

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number, table in _tables_by_tar(batches):
            labelled = table.filter(table["key"].is_valid()).drop_columns(["tar"])
            fields = [pa.field("key", pa.string()), *job.schema]
            damage = None
            try:
                export_images(job, by_number[number], labelled.cast(pa.schema(fields)))
            except DamagedTarError as error:  # the other tars go on
                damage = error.why
            row = {"shard": [number], "damage": [damage]}
            yield pa.RecordBatch.from_pydict(row, schema=_DONE)

    done = (
        spark_versions.repartition_by_id(with_empty_tars, tasks, "task")
        .select(*columns)
        .sortWithinPartitions("tar", "key")
        .mapInArrow(work, spark_schema(_DONE))
        .collect()  # one row per tar
    )
    damaged = [row for row in done if row["damage"] is not None]
    if damaged:
        first = min(damaged, key=lambda row: int(row["shard"]))
        others = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
        raise InputError(
            f"export: images: {by_number[first['shard']].url} is no whole tar "
            f"({first['damage']}){others}; all others are done and kept. Fetch it again"
        )


def _tables_by_tar(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.Table]]:
    """The number of each tar with all its rows, from batches sorted by tar."""

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
