"""Finds near twins with Spark: pairs in buckets, groups of pairs, representatives of groups."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from coyo_labeler.ingest.near import block_masks, lowest_of_component, near_pairs, representatives

logger = logging.getLogger(__name__)

#: Rows in the buckets of one task, roughly: some 100 MB of arrays.
_ROWS_PER_TASK = 2_000_000

#: Pairs that one task can hold: some 300 MB, and far less time than rounds of shuffles.
_PAIRS_FOR_ONE_TASK = 5_000_000


@dataclass(frozen=True)
class NearTwins:
    """The near twins of a source.

    mapping: id, near_of and near_distance of each row that is dropped for another; persisted.
    pairs: number of near pairs. comparisons: number of pairs compared. groups_left, rows_left:
    number of groups above the limit, whose rows are all kept, and number of these rows.
    """

    mapping: DataFrame
    pairs: int
    comparisons: int
    groups_left: int
    rows_left: int


def find_near_twins(images: DataFrame, n_images: int, distance: int, max_group: int) -> NearTwins:
    """Find the rows that are dropped for another row within `distance` bits.

    images: id and bits bigint, with distinct bits and without flat colours. Pairs are grouped by
    connected components. A group of more than `max_group` images is a chain of lookalikes, which is
    no evidence, so all of its rows are kept. Within a group a row is dropped only for a kept row
    within `distance` of itself.
    """
    pairs = find_pairs(images, n_images, distance).persist(StorageLevel.DISK_ONLY)
    total = pairs.agg(F.count("low").alias("pairs"), F.sum("compared").alias("compared")).first()
    assert total is not None
    edges = pairs.filter("low IS NOT NULL").drop("compared")
    connected = components_in_one_task if total["pairs"] <= _PAIRS_FOR_ONE_TASK else components
    roots = connected(edges.select("low", "high"))
    sizes = roots.groupBy("root").count().filter(F.col("count") >= max_group)
    oversized = sizes.persist(StorageLevel.DISK_ONLY)  # the root itself is one more image
    left = oversized.agg(F.count("root"), F.coalesce(F.sum(F.col("count") + 1), F.lit(0))).first()
    assert left is not None
    if left[0]:
        logger.warning(
            "ingest: %d groups of near twins, with %d images, have more than max_group=%d images; "
            "they stay in the catalog",
            *left,
            max_group,
        )
    # A pair's higher id is never its group's lowest, so it has a root.
    grouped = edges.join(roots.withColumnRenamed("node", "high"), "high").join(
        oversized.select("root"), "root", "left_anti"
    )
    mapping = (
        grouped.repartition("root")
        .select("low", "high", "distance")
        .mapInArrow(_represent, "id bigint, near_of bigint, near_distance int")
        .persist(StorageLevel.DISK_ONLY)
    )
    mapping.count()
    for frame in (pairs, roots, oversized):
        frame.unpersist()
    return NearTwins(mapping, total["pairs"], total["compared"] or 0, left[0], left[1])


def find_pairs(images: DataFrame, n_images: int, distance: int) -> DataFrame:
    """All pairs of ids within `distance` bits, each once: low, high, distance int, compared.

    A row without ids gives the number of comparisons of a task.
    """
    masks = block_masks(distance).view(np.int64).tolist()
    tables = F.array(
        *(
            F.struct(F.lit(table).alias("table"), _and(F.col("bits"), mask).alias("key"))
            for table, mask in enumerate(masks)
        )
    )
    tasks = max(
        images.sparkSession.sparkContext.defaultParallelism,
        -(-n_images * len(masks) // _ROWS_PER_TASK),
    )
    buckets = (
        images.select("id", "bits", F.explode(tables).alias("bucket"))
        .select("id", "bits", "bucket.*")
        .repartition(tasks, "table", "key")
        .select("id", "bits", "table")
    )

    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        partition = list(batches)
        if not partition:
            return
        rows = pa.Table.from_batches(partition)
        table = rows["table"].to_numpy()
        for number in range(len(masks)):
            of_table = table == number
            ids, bits = rows["id"].to_numpy()[of_table], rows["bits"].to_numpy()[of_table]
            first, second, apart, compared = near_pairs(bits, number, distance)
            a, b = ids[first], ids[second]
            pairs = {
                "low": pa.array(np.minimum(a, b)),
                "high": pa.array(np.maximum(a, b)),
                "distance": pa.array(apart.astype(np.int32)),
                "compared": pa.array(np.zeros(len(a), np.int64)),
            }
            yield from pa.table(pairs).to_batches(max_chunksize=100_000)
            count = {"low": [None], "high": [None], "distance": [None], "compared": [compared]}
            yield pa.RecordBatch.from_pydict(count, _PAIRS)

    return buckets.mapInArrow(search, "low bigint, high bigint, distance int, compared bigint")


_PAIRS = pa.schema(
    [
        ("low", pa.int64()),
        ("high", pa.int64()),
        ("distance", pa.int32()),
        ("compared", pa.int64()),
    ]
)


def components_in_one_task(edges: DataFrame) -> DataFrame:
    """The result of `components`, for edges that one task can hold."""

    def connect(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        partition = list(batches)
        if partition:
            pairs = pa.Table.from_batches(partition)
            nodes, roots = lowest_of_component(pairs["low"].to_numpy(), pairs["high"].to_numpy())
            yield from pa.table({"node": nodes, "root": roots}).to_batches(max_chunksize=100_000)

    roots = edges.coalesce(1).mapInArrow(connect, "node bigint, root bigint")
    return roots.persist(StorageLevel.DISK_ONLY)


def components(edges: DataFrame) -> DataFrame:
    """The lowest id (root) in the component of each node; a lowest id itself has no row.

    edges: low, high bigint, low < high. Alternating large-star and small-star steps until nothing
    changes: Kiveris et al. 2014, Connected components in MapReduce and beyond, algorithm 3.
    """
    edges = edges.distinct().localCheckpoint()
    before = None
    while True:
        edges = _small_star(_large_star(edges)).localCheckpoint()
        state = edges.agg(F.count("low"), F.sum(F.xxhash64("low", "high").cast("decimal(38,0)")))
        now = state.first()
        if now == before:
            return edges.select(F.col("high").alias("node"), F.col("low").alias("root"))
        before = now


def _large_star(edges: DataFrame) -> DataFrame:
    """Link the higher neighbours of each node to the lowest of its neighbours and itself."""
    both = edges.unionByName(
        edges.select(F.col("high").alias("low"), F.col("low").alias("high"))
    ).select(F.col("low").alias("node"), F.col("high").alias("neighbour"))
    lowest = F.least("node", F.min("neighbour").over(Window.partitionBy("node")))
    return (
        both.withColumn("low", lowest)
        .filter("neighbour > node")
        .select("low", F.col("neighbour").alias("high"))
        .distinct()
    )


def _small_star(edges: DataFrame) -> DataFrame:
    """Link each node and its lower neighbours to the lowest of them."""
    lowest = F.min("low").over(Window.partitionBy("high"))
    linked = edges.withColumn("lowest", lowest)
    lower = linked.filter("low <> lowest").select(
        F.col("lowest").alias("low"), F.col("low").alias("high")
    )
    return lower.unionByName(linked.select(F.col("lowest").alias("low"), "high")).distinct()


def _represent(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    partition = list(batches)
    if not partition:
        return
    pairs = pa.Table.from_batches(partition)
    ids, near_of, apart = representatives(
        *(pairs[name].to_numpy() for name in ("low", "high", "distance"))
    )
    columns = {"id": ids, "near_of": near_of, "near_distance": apart.astype(np.int32)}
    yield from pa.table(columns).to_batches(max_chunksize=100_000)


def _and(bits: Column, mask: int) -> Column:
    return bits.bitwiseAND(F.lit(mask))
