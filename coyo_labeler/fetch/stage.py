"""The Spark side of `fetch`: the missing shards, one task for some of them, the outcome."""

import asyncio
import gc
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from coyo_labeler import receipts as shard_receipts
from coyo_labeler import spark_versions, storage
from coyo_labeler.config.fetch import FetchSettings
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.fetch import generation as generations
from coyo_labeler.fetch.client import Client, Limits, Manners
from coyo_labeler.fetch.connections import fit_connections
from coyo_labeler.fetch.guard import Guard
from coyo_labeler.fetch.shard import CatalogRow, Rules, ShardFetcher
from coyo_labeler.formats import schemas
from coyo_labeler.formats.spark_tables import read_table, spark_schema
from coyo_labeler.machine import keep_freed_memory
from coyo_labeler.manifest import Counts, Outcome, Run
from coyo_labeler.receipts import Receipt, Receipts
from coyo_labeler.written import refuse_strangers

FINISHED = pa.schema([pa.field("shard", pa.int32()), pa.field("rows", pa.int64())])

#: Shards that a task fetches at once, so that it does not wait for the slow end of one.
SHARDS_AT_ONCE = 2
#: Tasks for each one that can run at once: few, because a task keeps its connections, names and
#: robots.txt files from shard to shard; more than one, so that all end at about the same time.
WAVES = 4

#: The files of a shard, and where its receipt holds their sizes.
_SIZES = ((generations.tar_name, "tar_bytes"), (generations.rows_name, "parquet_bytes"))


def fetch(spark: SparkSession, settings: FetchSettings, run: Run) -> Outcome | None:
    """Download the catalog's images into one tar, Parquet file and receipt per shard.

    Reads `settings.catalog` (schemas.CATALOG, `fallback_urls` where present); writes
    `{shard:05d}.tar`, `.parquet` (schemas.IMAGES) and `_stats.json`. With `settings.retry`, shards
    with transient failures get a new generation. Returns None where a finished output has none.

    Raises: InputError where the catalog lacks a column.
    """
    receipts = generations.receipts_of(settings.output, run.fingerprint)
    token = uuid.uuid4().hex
    generations.recover(receipts, token)
    catalog = read_catalog(spark, settings)
    sizes = shard_sizes(catalog)
    known: generations.Known = {}
    finished = generations.valid(receipts, known)
    work = plan(sizes, finished, settings.retry)
    if run.done is not None:
        if not work:
            return None
        run.reopen()
    shown = partial(facts, since=run.started)
    look = partial(generations.valid, receipts, known)  # it bundles what is whole
    with receipts.watch("fetch", len(sizes), shown, known=finished, redo=work.keys(), bundle=look):
        if work:
            fetch_shards(spark, catalog, work, settings, receipts, run.check_owner, token)
    generations.recover(receipts, token)
    names = (generations.tar_name, generations.rows_name)
    files = [name(shard) for shard in sizes for name in names]
    refuse_strangers("fetch", settings.output, [""], files)
    whole = generations.valid(receipts, known)
    for shard in sizes.keys() - whole.keys():  # a listing may be late, so they are asked by name
        receipt = generations.current(receipts, shard)
        if receipt is not None:
            whole[shard] = receipt
    return outcome(sizes, whole)


def read_catalog(spark: SparkSession, settings: FetchSettings) -> DataFrame:
    """id, url, imagehash, shard and fallback_urls (null where the catalog has none)."""
    url = storage.locate(settings.catalog, "catalog")
    frame = read_table(spark, "fetch: catalog", url, schemas.CATALOG, schemas.CATALOG_OPTIONAL)
    if "fallback_urls" not in frame.columns:
        frame = frame.withColumn("fallback_urls", F.lit(None).cast("array<string>"))
    return frame.select("shard", "id", "url", "imagehash", "fallback_urls")


def shard_sizes(catalog: DataFrame) -> dict[int, int]:
    """Rows of each shard.

    Raises: InputError where a shard's number is missing or below zero, or a row has no id.
    """
    nameless = F.count_if(F.col("id").isNull()).alias("nameless")
    counted = catalog.groupBy("shard").agg(F.count("*").alias("count"), nameless).collect()
    if any(row["shard"] is None or row["shard"] < 0 for row in counted):
        raise InputError("fetch: catalog: column 'shard' must hold numbers from 0 in every row")
    without_id = sum(row["nameless"] for row in counted)
    if without_id:
        raise InputError(
            f"fetch: catalog: column 'id' is null in {without_id:,} rows; give each an id, or drop "
            "them"
        )
    return {row["shard"]: row["count"] for row in counted}


def tasks_at_once(spark: SparkSession) -> int:
    """Number of tasks that the executors registered by now run at once."""
    context = spark.sparkContext
    executors = context._jsc.sc().statusStore().executorList(True)
    cores = sum(int(executors.apply(index).totalCores()) for index in range(executors.size()))
    return max(1, cores // int(context.getConf().get("spark.task.cpus", "1")))


def plan(sizes: Mapping[int, int], finished: Mapping[int, Receipt], retry: bool) -> dict[int, int]:
    """The generation to make, by shard; shards without work are absent."""
    work = dict.fromkeys(sorted(sizes.keys() - finished.keys()), 1)
    if retry:
        for shard, receipt in finished.items():
            if receipt.details["transient"]:
                work[shard] = receipt.details["generation"] + 1
    return work


def fetch_shards(
    spark: SparkSession,
    catalog: DataFrame,
    work: Mapping[int, int],
    settings: FetchSettings,
    receipts: Receipts,
    check_owner: Callable[[], None],
    run: str,
) -> None:
    """Make a generation of each shard; a task gets all rows of some shards.

    check_owner: see `ShardFetcher`. run: the name of what this run has not finished
    (`generation.staging`).
    """
    at_once = min(len(work), tasks_at_once(spark))
    # All tasks share the request rate of a host, so there are only as many as run at once now:
    # executors that register later could only raise the rate.
    paced = settings.host_requests_per_second is not None
    tasks = at_once if paced else min(len(work), WAVES * at_once)

    def fetch_rows(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # Thousands of waiting downloads are no garbage, and collecting among them again and again
        # takes a quarter of the event loop's time.
        gc.freeze()
        gc.set_threshold(100_000, 50, 100)
        keep_freed_memory()
        work = fetch_partition(shards_of(batches), settings, receipts, tasks, run, check_owner)
        finished = asyncio.run(work)
        rows = [{"shard": done.shard, "rows": done.rows.rows_in} for done in finished]
        yield pa.RecordBatch.from_pylist(rows, schema=FINISHED)

    # Shards go to tasks in turns: a hash partitioning would leave some tasks without any.
    wanted = spark.createDataFrame(
        [
            (shard, generation, number % tasks)
            for number, (shard, generation) in enumerate(work.items())
        ],
        "shard int, generation int, task int",
    )
    (
        spark_versions.repartition_by_id(catalog.join(F.broadcast(wanted), "shard"), tasks, "task")
        .sortWithinPartitions("shard", "id")
        .mapInArrow(fetch_rows, spark_schema(FINISHED))
        .collect()  # one row per shard
    )


#: A shard, the generation to make of it, and its rows.
Task = tuple[int, int, list[CatalogRow]]


def shards_of(batches: Iterator[pa.RecordBatch]) -> Iterator[Task]:
    """One shard after another with all its rows, from batches sorted by shard."""
    shard, generation = None, 0
    rows: list[CatalogRow] = []
    for batch in batches:
        for record in batch.to_pylist():
            if shard is not None and record["shard"] != shard:
                yield shard, generation, rows
                rows = []
            shard, generation = record["shard"], record["generation"]
            fallbacks = tuple(url for url in record["fallback_urls"] or () if url is not None)
            rows.append(CatalogRow(record["id"], record["url"], record["imagehash"], fallbacks))
    if shard is not None:
        yield shard, generation, rows


async def fetch_partition(
    shards: Iterator[Task],
    settings: FetchSettings,
    receipts: Receipts,
    tasks: int,
    run: str = "",
    check_owner: Callable[[], None] = lambda: None,
) -> list[Receipt]:
    """Fetch shards with one client, `SHARDS_AT_ONCE` at a time.

    tasks: their number in the job. run, check_owner: see `fetch_shards`.
    """
    manners = Manners(
        settings.user_agent or "coyo-labeler",
        settings.robots_txt,
        frozenset(tag.lower() for tag in settings.refuse_tags),
    )
    rules = Rules(
        settings.timeout_seconds,
        settings.max_pixels,
        settings.check_phash,
        settings.max_distance,
        settings.keep_changed,
        settings.resize_to,
        settings.resize_quality,
    )
    guard = Guard(settings.allow_private, loopback_only=settings.user_agent is None)
    limits = limits_of(settings, tasks)
    limits = replace(limits, connections=fit_connections(limits.connections))
    finished: list[Receipt] = []
    with ThreadPoolExecutor(settings.verify_threads, "verify") as threads:
        async with Client(limits, guard, manners) as client:
            fetcher = ShardFetcher(client, threads, rules, receipts, run, check_owner)

            async def work() -> None:
                for shard, generation, rows in shards:  # one iterator, shared by both
                    finished.append(await fetcher.fetch(shard, rows, generation))

            async with asyncio.TaskGroup() as group:
                for _ in range(SHARDS_AT_ONCE):
                    group.create_task(work())
    return finished


def limits_of(settings: FetchSettings, tasks: int) -> Limits:
    """The limits of one of so many tasks, which share the request rate of a host."""
    rate = settings.host_requests_per_second
    return Limits(
        settings.connect_seconds,
        settings.retries,
        settings.backoff_seconds,
        settings.max_bytes,
        settings.connections,
        settings.host_connections,
        tasks / rate if rate else 0.0,
    )


def outcome(sizes: Mapping[int, int], finished: Mapping[int, Receipt]) -> Outcome:
    """The counts of all shards, checked against the catalog.

    Raises: WorkError where a shard is not whole.
    """
    torn = sizes.keys() - finished.keys()
    if torn:
        raise WorkError(
            f"fetch: {len(torn):,} shards are not whole (the first is {min(torn):05d}); run the "
            "same command again: it fetches these and keeps the others"
        )
    receipts = [finished[shard] for shard in sorted(sizes)]
    counts = shard_receipts.total(receipts)
    return Outcome(
        Counts(sum(sizes.values()), counts.rows_out, counts.rejected),
        details={
            "shards": len(receipts),
            "bytes": sum(receipt.details["bytes"] for receipt in receipts),
            "transient": sum(receipt.details["transient"] for receipt in receipts),
        },
        files={
            name(receipt.shard): receipt.details[size]
            for receipt in receipts
            for name, size in _SIZES
        },
    )


def facts(finished: Sequence[Receipt], since: float = 0.0) -> dict[str, Any]:
    """The figures that progress shows of finished shards.

    since: start of the run; rates count only the shards that it made and the rows it asked for.
    """
    counts = shard_receipts.total(finished)
    if not counts.rows_in:
        return {}
    shown = {"images": f"{counts.rows_out:,}", "success": f"{counts.rows_out / counts.rows_in:.1%}"}
    made = [receipt for receipt in finished if receipt.details["finished"] >= since]
    if made:
        begun = min(receipt.details["finished"] - receipt.seconds for receipt in made)
        seconds = max(max(receipt.details["finished"] for receipt in made) - begun, 1e-3)
        asked = sum(receipt.details["asked"] for receipt in made)
        received = sum(receipt.details["asked_bytes"] for receipt in made)
        shown["img/s"] = f"{asked / seconds:.0f}"
        shown["MB/s"] = f"{received / seconds / 1e6:.1f}"
    worst = Counter(dict(counts.rejected)).most_common(3)
    if worst:
        shown["failures"] = " ".join(f"{status} {n:,}" for status, n in worst)
    return shown
