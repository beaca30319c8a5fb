"""Spark wiring of `fetch`: which shards are missing, a task for some of them, what came of it."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from coyo_labeler import receipts as shard_receipts
from coyo_labeler import schemas, storage
from coyo_labeler.config.fetch import FetchSettings
from coyo_labeler.errors import InputError
from coyo_labeler.fetch.client import Client, Limits
from coyo_labeler.fetch.guard import Guard
from coyo_labeler.fetch.shard import RECEIPT_NAME, CatalogRow, Rules, ShardFetcher
from coyo_labeler.fetch.status import Status
from coyo_labeler.manifest import Counts, Outcome, Run
from coyo_labeler.receipts import Receipt, Receipts
from coyo_labeler.tables import read_table, spark_schema

FALLBACK = pa.schema([pa.field("fallback_urls", pa.list_(pa.string()))])
FINISHED = pa.schema([pa.field("shard", pa.int32()), pa.field("rows", pa.int64())])

#: Shards that a task fetches at once, so that the slow end of one is not waited for.
SHARDS_AT_ONCE = 2


def fetch(spark: SparkSession, settings: FetchSettings, run: Run) -> Outcome:
    """Download the catalog's images into one tar, Parquet file and receipt per shard.

    Reads `settings.catalog` (schemas.CATALOG, `fallback_urls` where present); writes
    `{shard:05d}.tar`, `.parquet` (schemas.IMAGES) and `_stats.json`.

    Raises: InputError where the catalog lacks a column or the user agent is missing.
    """
    if settings.user_agent is None and not settings.allow_private:
        raise InputError(
            "fetch: user_agent: missing; hosts must be able to tell who asks: give "
            "user_agent='example-bot/1.0 (+https://example.org/bot)' with a contact of yours"
        )
    catalog = read_catalog(spark, settings)
    sizes = shard_sizes(catalog)
    receipts = Receipts(settings.output, run.fingerprint, RECEIPT_NAME)
    missing = sorted(sizes.keys() - receipts.read().keys())
    with receipts.watch("fetch", len(sizes), facts):
        if missing:
            fetch_shards(spark, catalog, missing, settings, receipts)
    return outcome(sizes, receipts.read())


def read_catalog(spark: SparkSession, settings: FetchSettings) -> DataFrame:
    """id, url, imagehash, shard and fallback_urls (null where the catalog has none)."""
    url = storage.locate(settings.catalog, "catalog")
    frame = read_table(spark, "fetch: catalog", url, schemas.CATALOG, FALLBACK)
    if "fallback_urls" not in frame.columns:
        frame = frame.withColumn("fallback_urls", F.lit(None).cast("array<string>"))
    return frame.select("shard", "id", "url", "imagehash", "fallback_urls")


def shard_sizes(catalog: DataFrame) -> dict[int, int]:
    """Rows of each shard.

    Raises: InputError where a shard's number is missing or below zero.
    """
    counted = catalog.groupBy("shard").count().collect()
    if any(row["shard"] is None or row["shard"] < 0 for row in counted):
        raise InputError("fetch: catalog: column 'shard' must hold numbers from 0 in every row")
    return {row["shard"]: row["count"] for row in counted}


def fetch_shards(
    spark: SparkSession,
    catalog: DataFrame,
    missing: Sequence[int],
    settings: FetchSettings,
    receipts: Receipts,
) -> None:
    """Fetch the missing shards, some per task; a task gets all rows of its shards."""
    tasks = min(len(missing), 8 * spark.sparkContext.defaultParallelism)

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        finished = asyncio.run(fetch_partition(shards_of(batches), settings, receipts))
        rows = [{"shard": one.shard, "rows": one.rows.rows_in} for one in finished]
        yield pa.RecordBatch.from_pylist(rows, schema=FINISHED)

    (
        catalog.where(F.col("shard").isin([int(shard) for shard in missing]))
        .repartitionByRange(tasks, "shard")
        .sortWithinPartitions("shard", "id")
        .mapInArrow(work, spark_schema(FINISHED))
        .collect()  # one row per shard
    )


def shards_of(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, list[CatalogRow]]]:
    """Shard after shard with all its rows, from batches sorted by shard."""
    shard: int | None = None
    rows: list[CatalogRow] = []
    for batch in batches:
        for record in batch.to_pylist():
            if shard is not None and record["shard"] != shard:
                yield shard, rows
                rows = []
            shard = record["shard"]
            fallbacks = tuple(record["fallback_urls"] or ())
            rows.append(CatalogRow(record["id"], record["url"], record["imagehash"], fallbacks))
    if shard is not None:
        yield shard, rows


async def fetch_partition(
    shards: Iterator[tuple[int, list[CatalogRow]]], settings: FetchSettings, receipts: Receipts
) -> list[Receipt]:
    """Fetch shards, two at a time, over one client."""
    limits = Limits(
        settings.timeout_seconds,
        settings.connect_seconds,
        settings.retries,
        settings.backoff_seconds,
        settings.max_bytes,
        settings.connections,
    )
    rules = Rules(
        settings.timeout_seconds, settings.max_pixels, settings.max_distance, settings.keep_changed
    )
    guard = Guard(settings.allow_private, loopback_only=settings.user_agent is None)
    finished: list[Receipt] = []
    with ThreadPoolExecutor(settings.verify_threads, "verify") as threads:
        async with Client(limits, guard, settings.user_agent or "coyo-labeler") as client:
            fetcher = ShardFetcher(client, threads, rules, receipts)

            async def work() -> None:
                for shard, rows in shards:  # one iterator, shared by both
                    finished.append(await fetcher.fetch(shard, rows))

            async with asyncio.TaskGroup() as group:
                for _ in range(SHARDS_AT_ONCE):
                    group.create_task(work())
    return finished


def outcome(sizes: dict[int, int], finished: dict[int, Receipt]) -> Outcome:
    """The counts of all shards, against the catalog's."""
    counts = shard_receipts.total(list(finished.values()))
    return Outcome(
        Counts(sum(sizes.values()), counts.rows_out, counts.rejected),
        details={
            "shards": len(finished),
            "bytes": sum(receipt.details["bytes"] for receipt in finished.values()),
        },
    )


def facts(finished: Sequence[Receipt]) -> dict[str, Any]:
    """What progress shows of the shards that are done."""
    counts = shard_receipts.total(finished)
    if not counts.rows_in:
        return {}
    shown = {"images": f"{counts.rows_out:,}", "success": f"{counts.rows_out / counts.rows_in:.1%}"}
    begun = min(receipt.details["finished"] - receipt.seconds for receipt in finished)
    seconds = max(receipt.details["finished"] for receipt in finished) - begun
    if seconds > 0:
        received = sum(receipt.details["bytes"] for receipt in finished)
        shown["img/s"] = f"{counts.rows_in / seconds:.0f}"
        shown["MB/s"] = f"{received / seconds / 1e6:.1f}"
    worst = Counter(dict(counts.rejected)).most_common(2)
    if worst:
        shown["failures"] = " ".join(f"{Status(status)} {n:,}" for status, n in worst)
    return shown
