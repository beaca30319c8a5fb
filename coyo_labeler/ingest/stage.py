"""Source rows to the catalog of images to fetch."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark import StorageLevel, TaskContext
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from coyo_labeler import spark_versions, storage
from coyo_labeler.config.ingest import IngestSettings
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.parquet_splits import read_footers
from coyo_labeler.ingest import filters, shards
from coyo_labeler.ingest.columns import inside
from coyo_labeler.ingest.images import first_of_each, one_hash_each
from coyo_labeler.ingest.part import PartDetails, write_part
from coyo_labeler.ingest.phash import FLAT
from coyo_labeler.ingest.read import (
    Source,
    corrupt_message,
    file_at_fault,
    inspect,
    read_source,
    refuse_mismatch,
    unnamed_at_fault,
    without_damaged,
)
from coyo_labeler.ingest.reasons import Reason
from coyo_labeler.ingest.statistics import sum_up
from coyo_labeler.manifest import Counts, Outcome, Run
from coyo_labeler.progress import watch_spark
from coyo_labeler.receipts import Receipts, files_of, sizes_of, total
from coyo_labeler.redact import redact
from coyo_labeler.session import sql_conf
from coyo_labeler.written import check_written, refuse_strangers

if TYPE_CHECKING:
    from coyo_labeler.ingest.components import NearTwins

logger = logging.getLogger(__name__)

#: A row is a URL and some numbers, so a batch of 10,000 is small whatever its bytes.
_SQL = {
    # With any lower bound Spark adds up the bytes of a batch after every row, which takes longer
    # than filling it; this one means no bound.
    "spark.sql.execution.arrow.maxBytesPerBatch": str(2**31 - 1),
    # A source may have a column `url` beside `URL`.
    "spark.sql.caseSensitive": "true",
    # Spark has no type for pandas' nanoseconds: it reads numbers, which become microseconds.
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    # Hashes do not compress, and trying takes time when they are persisted.
    "spark.sql.inMemoryColumnarStorage.compressed": "false",
}

#: Folders of the output.
_TABLES = ("catalog", "rejects", "duplicates")


def ingest(spark: SparkSession, settings: IngestSettings, run: Run) -> Outcome:
    """Check, filter, deduplicate, sample and shard the rows of `settings.source`.

    Writes catalog/ (schemas.CATALOG, then fallback_urls list<string> and the kept columns),
    rejects/ (schemas.CATALOG_REJECTS), duplicates/ (schemas.DUPLICATES) and statistics.json below
    the output.

    Raises: InputError naming the source's file or column at fault.
    """
    source = without_known(inspect(settings), settings)
    logger.info("ingest: %s rows in %d files", f"{source.rows:,}", len(source.files))
    with sql_conf(spark, _SQL):
        while True:
            try:
                near, cut = make_catalog(spark, source, settings, run)
                break
            except (PySparkException, Py4JError) as error:
                source = set_aside(spark, source, error, settings)
    return conclude(source, near, cut, settings, run)


def make_catalog(
    spark: SparkSession, source: Source, settings: IngestSettings, run: Run
) -> tuple["NearTwins | None", shards.Plan]:
    """Write the catalog of the files that are not set aside; returns its near twins and cuts."""
    with watch_spark(spark, "ingest: find images"):
        tasks = shards.tasks_for(spark, source.rows)
        scan = find_images(read_source(spark, source), tasks, settings)
    persisted = [scan.images, scan.repeated]
    try:
        near, kept = None, scan.images
        if settings.near_distance:
            with watch_spark(spark, "ingest: near twins"):
                near = near_twins(scan, settings)
            persisted.append(near.mapping)
            kept = shards.by_bucket(kept.join(near.mapping, "id", "left_anti"), tasks)
        with watch_spark(spark, "ingest: shards"):
            sampled = kept.filter(shards.is_sampled(settings.sample))
            cut = shards.plan(sampled, settings.rows_per_shard)
        with watch_spark(spark, "ingest: catalog"):
            write_catalog(spark, scan, near, cut, settings, run)
    finally:
        for frame in persisted:
            if frame is not None:
                frame.unpersist()
    return near, cut


def without_known(source: Source, settings: IngestSettings) -> Source:
    """The source without the files that this run had set aside before it was interrupted."""
    if settings.on_corrupt == "stop":
        return source
    url = _corrupt_files(settings)
    if storage.exists(url):
        with storage.open_parquet("output", url) as file:
            known = file.read(["url", "detail"]).to_pylist()
        detail_of = {row["url"]: row["detail"] for row in known}
        source = source.without(
            {file: detail_of[redact(file)] for file in source.files if redact(file) in detail_of}
        )
    write_corrupt_files(source, settings)
    return source


def set_aside(
    spark: SparkSession, source: Source, error: Exception, settings: IngestSettings
) -> Source:
    """The source without its damaged files, after Spark failed on one; clears the output.

    Raises: the error itself where no file is damaged; InputError naming a damaged one unless
    `on_corrupt` is skip.
    """
    refuse_mismatch(error)
    at_fault = file_at_fault(source, error) or unnamed_at_fault(spark, source, error)
    if at_fault is None:
        raise error
    if settings.on_corrupt == "stop":
        raise InputError(corrupt_message(*at_fault)) from None
    # Starting over costs as much as this test, and one damaged file seldom comes alone.
    source = without_damaged(spark, source.without(dict([at_fault])))
    if not source.files:
        raise InputError(f"source: no file at {settings.source} is readable")
    logger.warning("ingest: %d damaged files set aside; beginning anew", len(source.corrupt))
    # An interrupted run cut its shards with the rows of those files.
    for folder in ("_receipts", *_TABLES):
        storage.clear(storage.join(settings.output, folder))
    write_corrupt_files(source, settings)
    return source


@dataclass(frozen=True)
class Scan:
    """The result of the first pass over the source.

    rows: all source rows. repeated: id and the bits that are kept, for ids with more than one
    hash; None where there are none; persisted. images: id, bits and position of the first row of
    each hash; persisted. n_images: their number.
    """

    rows: DataFrame
    repeated: DataFrame | None
    images: DataFrame
    n_images: int


def find_images(rows: DataFrame, tasks: int, settings: IngestSettings) -> Scan:
    """Find the row that represents each image, from the few columns that decide it."""
    good = rows.filter(filters.passes(settings))
    good = good.withColumn("bits", filters.to_signed(F.col("imagehash"))).drop("imagehash")
    good = good.withColumn("position", shards.position(F.col("bits"), F.col("id")))
    # Carried columns are not needed here, but a file in which they cannot be read fails now, before
    # anything is written.
    kept = [F.col(inside(name)) for name in settings.keep_columns]
    touch = [F.xxhash64(*kept).alias("touch")] if kept else []
    by_id = good.select("id", "bits", *touch).repartition(tasks, "id")
    observation = Observation()
    ids = by_id.mapInArrow(_one_hash_each, "id bigint, bits bigint, repeated boolean").observe(
        observation, F.max("repeated").alias("repeated")
    )
    position = shards.position(F.col("bits"), F.col("id"))
    images = (
        shards.by_bucket(ids.select("id", "bits", position.alias("position")), tasks)
        .mapInArrow(_first_of_each, "id bigint, bits bigint, position bigint")
        .persist(StorageLevel.DISK_ONLY)
    )
    n_images = images.count()
    repeated = None
    if observation.get["repeated"]:
        repeated = ids.filter("repeated").select("id", F.col("bits").alias("kept_bits"))
        repeated.persist(StorageLevel.DISK_ONLY)  # few, but finding them takes a whole pass
    return Scan(rows, repeated, images, n_images)


def _one_hash_each(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for table in _table_of(batches):
        ids, bits, several = one_hash_each(table["id"].to_numpy(), table["bits"].to_numpy())
        yield from _batches(id=ids, bits=bits, repeated=np.isin(ids, several))


def _first_of_each(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for table in _table_of(batches):
        positions, ids = table["position"].to_numpy(), table["id"].to_numpy()
        first = first_of_each(positions, ids)
        bits = table["bits"].to_numpy()
        yield from _batches(id=ids[first], bits=bits[first], position=positions[first])


def _table_of(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows of a partition as one table, or nothing where it has none."""
    partition = list(batches)
    if partition:
        yield pa.Table.from_batches(partition)


def _batches(**columns: npt.NDArray[Any]) -> Iterator[pa.RecordBatch]:
    yield from pa.table(columns).to_batches(max_chunksize=100_000)


def near_twins(scan: Scan, settings: IngestSettings) -> "NearTwins":
    """The images that are dropped for another one within `near_distance` bits."""
    # Imported here: every Python worker loads this module, and Numba behind that one is large.
    from coyo_labeler.ingest.components import find_near_twins  # noqa: PLC0415

    return find_near_twins(
        scan.images.filter(~F.col("bits").isin(*FLAT)),
        scan.n_images,
        settings.near_distance,
        settings.max_group,
    )


def judge(scan: Scan, near: "NearTwins | None", settings: IngestSettings) -> DataFrame:
    """All source rows with position, reason and detail.

    reason and detail are null where a row passes by itself and by its id. Where near twins were
    searched for, near_of and near_distance name the image for which a row's own is dropped.
    """
    reason = filters.reason(settings)
    bits = F.when(filters.is_hash(F.col("imagehash")), filters.to_signed(F.col("imagehash")))
    rows = scan.rows.withColumn("reason", reason).withColumn("bits", bits)
    rows = rows.withColumn("detail", F.when(F.col("reason").isNotNull(), filters.detail(settings)))
    if scan.repeated is not None:
        rows = rows.join(scan.repeated, "id", "left")
        again = F.col("reason").isNull() & (F.col("bits") != F.col("kept_bits"))
        text = F.lpad(F.lower(F.hex("bits")), 16, "0")
        rows = rows.withColumn("detail", F.when(again, text).otherwise(F.col("detail")))
        duplicate = F.lit(str(Reason.DUPLICATE_ID))
        rows = rows.withColumn("reason", F.when(again, duplicate).otherwise(F.col("reason")))
    if near is not None:
        rows = rows.join(near.mapping, "id", "left")
    by_hash = F.when(F.col("reason").isNull(), shards.position(F.col("bits"), F.col("id")))
    return rows.withColumn("position", F.coalesce(by_hash, F.xxhash64("id", "url")))


def write_catalog(
    spark: SparkSession,
    scan: Scan,
    near: "NearTwins | None",
    cut: shards.Plan,
    settings: IngestSettings,
    run: Run,
) -> None:
    """Write the parts of the catalog that an earlier try has not finished, one task per part."""
    rows = judge(scan, near, settings)
    rows = shards.with_part(spark, rows, cut).select(
        "part",
        *("position", "bits", "id", "url", "width", "height"),
        *(() if settings.sample == 1 else (shards.is_sampled(settings.sample).alias("sampled"),)),
        *(() if near is None else ("near_of", "near_distance")),
        *("reason", "detail"),
        *(F.col(inside(name)) for name in settings.keep_columns),
    )
    receipts = Receipts(settings.output, run.fingerprint, details=PartDetails)
    done, changed = receipts.split_intact(receipts.read())
    for part in changed:
        receipts.remove(part)
    missing = rows.filter(~F.col("part").isin(*done) if done else F.lit(True))
    ordered = spark_versions.repartition_by_id(missing, cut.parts, "part").drop("part")
    # By all columns: which of the rows of one id, hash and URL is kept must not depend on their
    # order in the source. Few rows are compared by more than the first column.
    ordered = ordered.sortWithinPartitions(*ordered.columns)
    schema = spark_versions.arrow_schema(ordered)

    def write(batches: Iterable[pa.RecordBatch], part: int) -> None:
        receipts.write(
            write_part(
                batches,
                part,
                cut.cuts,
                schema,
                settings.output,
                run.fingerprint,
                settings.max_fallback_urls,
            )
        )

    def task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        first = next(batches, None)
        if first is not None:
            context = TaskContext.get()
            assert context is not None
            write((batch for rest in ([first], batches) for batch in rest), context.partitionId())
        yield from ()

    ordered.mapInArrow(task, "part int").collect()
    written = receipts.read()
    for part in range(cut.parts):
        if part not in written and receipts.get(part) is None:  # no rows, so no task saw it
            write([], part)


def write_corrupt_files(source: Source, settings: IngestSettings) -> None:
    """Write a reject for each source file that cannot be read."""
    files = [
        {"url": redact(file), "reason": str(Reason.CORRUPT_FILE), "detail": redact(fault)}
        for file, fault in source.corrupt.items()
    ]
    if files:
        rejects = pa.Table.from_pylist(files, schemas.CATALOG_REJECTS)
        storage.write_parquet(_corrupt_files(settings), rejects)


def _corrupt_files(settings: IngestSettings) -> str:
    return storage.join(settings.output, "rejects", "corrupt-files.parquet")


def conclude(
    source: Source,
    near: "NearTwins | None",
    cut: shards.Plan,
    settings: IngestSettings,
    run: Run,
) -> Outcome:
    """The counts: rows read, by the source's footers; rows written, by the tables' own."""
    parts = Receipts(settings.output, run.fingerprint, details=PartDetails).require(
        "ingest", range(cut.parts)
    )
    files = files_of(parts)
    check_written("ingest", settings.output, files)
    corrupt = ["rejects/corrupt-files.parquet"] if source.corrupt else []
    refuse_strangers("ingest", settings.output, _TABLES, [*files, *corrupt])
    rejected = dict(total(parts).rejected)
    if source.corrupt:
        rejected[str(Reason.CORRUPT_FILE)] = len(source.corrupt)
    catalog = [storage.join(settings.output, name) for name in files if name.startswith("catalog/")]
    rows = Counts(
        source.rows + len(source.corrupt),
        sum(footer.num_rows for footer in read_footers("output", catalog)),
        rejected,
    )
    statistics = sum_up(part.details["statistics"] for part in parts)
    storage.write_json(
        storage.join(settings.output, "statistics.json"), {"rows": rows.to_json(), **statistics}
    )
    details: dict[str, Any] = {
        "files": len(source.files),
        "corrupt_files": dict(source.corrupt),
        "shards": len(cut.cuts),
        "statistics": statistics,
    }
    if near is not None:
        details["near"] = {
            "pairs": near.pairs,
            "comparisons": near.comparisons,
            "groups_left": near.groups_left,
            "rows_left": near.rows_left,
        }
    return Outcome(rows, details=details, files=sizes_of(parts))
