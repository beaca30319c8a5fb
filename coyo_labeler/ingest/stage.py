"""Source rows to the catalog of images to fetch."""

import logging

import pyarrow.parquet as pq
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from coyo_labeler import schemas, storage
from coyo_labeler.config.ingest import IngestSettings
from coyo_labeler.ingest import filters, phash, shards, twins
from coyo_labeler.ingest.read import Source, inspect, read_source
from coyo_labeler.ingest.reasons import Reason
from coyo_labeler.manifest import Counts, Outcome, Run
from coyo_labeler.progress import watch_spark
from coyo_labeler.tables import write_table

logger = logging.getLogger(__name__)

#: Rows of one catalog file, about; a file holds whole shards.
_ROWS_PER_FILE = 1_000_000


def ingest(spark: SparkSession, settings: IngestSettings, run: Run) -> Outcome:
    """Check, filter, deduplicate, sample and shard the rows of `settings.source`.

    Writes catalog/ (schemas.CATALOG, then fallback_urls list<string> and the kept columns),
    rejects/ (schemas.CATALOG_REJECTS) and duplicates/ (schemas.DUPLICATES) below the output.

    Raises: InputError naming the source's file or column at fault.
    """
    source = inspect(settings)
    logger.info("ingest: %s rows in %d files", f"{source.rows:,}", len(source.files))
    rows = read_source(spark, source)
    passed = deduplicate(rows, settings).persist(StorageLevel.DISK_ONLY)
    try:
        with watch_spark(spark, "ingest: deduplicate"):
            kept = passed.filter("reason IS NULL")
            n_kept = kept.count()
        with watch_spark(spark, "ingest: catalog"):
            write_catalog(kept, n_kept, settings)
        with watch_spark(spark, "ingest: rejects"):
            write_rejects(spark, rows, passed, source, settings)
            write_duplicates(passed, settings)
    finally:
        passed.unpersist()
    return count(spark, source, settings)


def deduplicate(rows: DataFrame, settings: IngestSettings) -> DataFrame:
    """The rows that pass on their own, with `reason` where another stands for them.

    Adds bits bigint, kept_id bigint, fallback_urls list<string>, reason string or null.
    """
    good = rows.filter(filters.passes(settings))
    good = good.withColumn("imagehash", phash.normalise(F.col("imagehash")))
    good = good.withColumn("bits", phash.to_signed(F.col("imagehash")))
    good = twins.mark_duplicate_ids(good)
    first = twins.mark_exact_twins(good.filter("NOT repeated"), settings.max_fallback_urls)
    again = good.filter("repeated")
    reason = F.when(F.col("kept_id") != F.col("id"), F.lit(str(Reason.DUPLICATE_HASH))).when(
        ~shards.is_sampled(settings.sample), F.lit(str(Reason.NOT_SAMPLED))
    )
    return first.withColumn("reason", reason).unionByName(
        again.withColumn("reason", F.lit(str(Reason.DUPLICATE_ID))), allowMissingColumns=True
    )


def write_catalog(kept: DataFrame, n_kept: int, settings: IngestSettings) -> None:
    """Write the kept rows, whole shards to a file, in the order of shard and id."""
    sharded = shards.number_shards(kept, settings.rows_per_shard)
    n_shards = -(-n_kept // settings.rows_per_shard)
    n_files = min(n_shards, -(-n_kept // _ROWS_PER_FILE))
    extras = [F.col(f"`{name}`") for name in ("fallback_urls", *settings.keep_columns)]
    columns = [F.col(field.name) for field in schemas.CATALOG]
    ordered = sharded.select(*columns, *extras).repartition(max(1, n_files), "shard")
    write_table(
        ordered.sortWithinPartitions("shard", "id"),
        storage.join(settings.output, "catalog"),
        schemas.CATALOG,
    )


def write_rejects(
    spark: SparkSession,
    rows: DataFrame,
    passed: DataFrame,
    source: Source,
    settings: IngestSettings,
) -> None:
    """Write every row that is not in the catalog, and every file that could not be read."""
    bad = rows.withColumn("reason", filters.reason(settings)).filter("reason IS NOT NULL")
    twin = F.concat(F.lit("of "), F.col("kept_id").cast("string"))
    dropped = passed.filter("reason IS NOT NULL").withColumn(
        "detail", F.when(F.col("reason") == str(Reason.DUPLICATE_HASH), twin)
    )
    corrupt = spark.createDataFrame(
        [(None, file, str(Reason.CORRUPT_FILE), fault) for file, fault in source.corrupt],
        "id bigint, url string, reason string, detail string",
    )
    columns = ["id", "url", "reason", "detail"]
    write_table(
        bad.withColumn("detail", filters.detail(settings))
        .select(columns)
        .unionByName(dropped.select(columns))
        .unionByName(corrupt),
        storage.join(settings.output, "rejects"),
        schemas.CATALOG_REJECTS,
    )


def write_duplicates(passed: DataFrame, settings: IngestSettings) -> None:
    """Write which row stands for each dropped twin."""
    write_table(
        passed.filter(F.col("reason") == str(Reason.DUPLICATE_HASH))
        .withColumn("distance", F.lit(0))
        .select("id", "kept_id", "distance"),
        storage.join(settings.output, "duplicates"),
        schemas.DUPLICATES,
    )


def count(spark: SparkSession, source: Source, settings: IngestSettings) -> Outcome:
    """What was read by the source's footers, and what was written by the tables themselves."""
    rejects = spark.read.parquet(storage.join(settings.output, "rejects"))
    rejected = {row["reason"]: row["count"] for row in rejects.groupBy("reason").count().collect()}
    return Outcome(
        Counts(
            source.rows + len(source.corrupt),
            _rows_of(storage.join(settings.output, "catalog")),
            rejected,
        ),
        details={"files": len(source.files), "corrupt_files": dict(source.corrupt)},
    )


def _rows_of(url: str) -> int:
    rows = 0
    for file in storage.files_of(url):
        fs, path = storage.resolve(file)
        with fs.open(path, "rb") as stream:
            rows += pq.read_metadata(stream).num_rows
    return rows
