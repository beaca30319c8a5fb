"""Sample, shard and part of the catalog of each row, by hashes of its own content.

All rows of one pHash have one position, a hash of the pHash, so that one shuffle brings twins
together and puts them into their shard. A hash spreads neighbours, and so the rows of one web host,
over all shards.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from coyo_labeler import spark_versions
from coyo_labeler.ingest import phash

I64 = npt.NDArray[np.int64]

#: So that the sample and the order of ids do not depend on each other.
_SAMPLE_SALT = 1

#: The first bits of a position are its bucket: few enough for the driver, more than parts.
_BUCKET_BITS = 16
_BUCKETS = 1 << _BUCKET_BITS

#: Rows in a part of the catalog, roughly: a part holds whole shards.
ROWS_PER_PART = 250_000

#: Rows whose ids and hashes one task sorts at once: some 100 MB at most. Fewer than the least are
#: not worth the start of a Python worker.
_MOST_ROWS_PER_TASK = 2_000_000
_LEAST_ROWS_PER_TASK = 100_000


def position(bits: Column, identity: Column) -> Column:
    """A row's position in the order of shards: signed 64 bits, equal for all rows of a hash.

    Rows with a flat colour's hash are different images, so their ids decide.
    """
    return F.when(bits.isin(*phash.FLAT), F.xxhash64(identity)).otherwise(F.xxhash64(bits))


def is_sampled(share: float) -> Column:
    """Whether an id is in the sample; a smaller share's sample is part of a larger one's."""
    if share == 1:
        return F.lit(True)
    return F.xxhash64(F.lit(_SAMPLE_SALT), "id") < int(share * 2**64) - 2**63


def tasks_for(spark: SparkSession, rows: int) -> int:
    """Number of tasks for so many rows: whole rounds of all cores, where one round is filled."""
    cores = spark.sparkContext.defaultParallelism
    if rows < cores * _LEAST_ROWS_PER_TASK:
        return max(1, -(-rows // _LEAST_ROWS_PER_TASK))
    return cores * -(-rows // (cores * _MOST_ROWS_PER_TASK))


@dataclass(frozen=True)
class Plan:
    """How the kept rows are cut into shards and parts.

    cuts: (shards,) ascending, the position at which each shard begins. part_cuts: (parts − 1,) the
    cuts at which a further part begins, at most one per bucket.
    """

    cuts: I64
    part_cuts: I64

    @property
    def parts(self) -> int:
        """Number of parts; at least one, for the rows that are dropped."""
        return len(self.part_cuts) + 1


def by_bucket(rows: DataFrame, tasks: int) -> DataFrame:
    """Bring the rows of each bucket of `position`, and so those of each hash, into one task."""
    return rows.repartition(tasks, _bucket(F.col("position")))


def plan(positions: DataFrame, rows_per_shard: int, rows_per_part: int = ROWS_PER_PART) -> Plan:
    """Cut positions (column `position` bigint) into runs of `rows_per_shard`, the last one shorter.

    positions: partitioned by `by_bucket`. The driver sees one number per bucket and one per shard,
    never a row.
    """
    counted = positions.groupBy(_bucket(F.col("position")).alias("bucket")).count().collect()
    sizes = np.zeros(_BUCKETS, np.int64)
    for row in counted:
        sizes[row["bucket"] + _BUCKETS // 2] = row["count"]
    starts = np.cumsum(sizes) - sizes

    def pick(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        columns = [batch["position"].to_numpy() for batch in batches]
        if columns:
            cuts = shard_cuts(np.concatenate(columns), starts, rows_per_shard)
            yield pa.RecordBatch.from_arrays([pa.array(cuts)], ["position"])

    picked = positions.select("position").mapInArrow(pick, "position bigint")
    cuts = np.sort(spark_versions.to_arrow(picked)["position"].to_numpy())
    return Plan(cuts, part_cuts(cuts, max(1, rows_per_part // rows_per_shard)))


def shard_cuts(positions: I64, starts: I64, rows_per_shard: int) -> I64:
    """The positions at which a shard begins, among those of whole buckets.

    positions: (n,) in any order. starts: (buckets,) the number of positions before each bucket, of
    all tasks.
    """
    positions = np.sort(positions)
    bucket = (positions >> (64 - _BUCKET_BITS)) + _BUCKETS // 2
    first = np.searchsorted(bucket, bucket)  # index of the first in the same bucket
    rank = starts[bucket] + np.arange(len(positions)) - first
    begins: I64 = positions[rank % rows_per_shard == 0]
    return begins


def part_cuts(cuts: I64, shards_per_part: int) -> I64:
    """The shard cuts at which a part begins: every so many shards, at most one per bucket."""
    chosen = cuts[shards_per_part::shards_per_part]
    bucket = chosen >> (64 - _BUCKET_BITS)
    begins: I64 = chosen[np.diff(bucket, prepend=bucket[:1] - 1) > 0]
    return begins


def with_part(spark: SparkSession, rows: DataFrame, cut: Plan) -> DataFrame:
    """Add `part` int, which follows from the row's `position`."""
    if cut.parts == 1:
        return rows.withColumn("part", F.lit(0))
    buckets = np.arange(-_BUCKETS // 2, _BUCKETS // 2)
    bucket_of_cut = cut.part_cuts >> (64 - _BUCKET_BITS)
    before = np.searchsorted(bucket_of_cut, buckets)
    next_cut = np.minimum(before, len(bucket_of_cut) - 1)
    has_cut = bucket_of_cut[next_cut] == buckets
    table = pa.table(
        {
            "bucket": pa.array(buckets),
            "before": pa.array(before.astype(np.int32)),
            "cut": pa.array(cut.part_cuts[next_cut], mask=~has_cut),
        }
    )
    later = F.coalesce((F.col("position") >= F.col("cut")).cast("int"), F.lit(0))
    return (
        rows.withColumn("bucket", _bucket(F.col("position")))
        .join(F.broadcast(spark_versions.from_arrow(spark, table)), "bucket")
        .withColumn("part", F.col("before") + later)
        .drop("bucket", "before", "cut")
    )


def _bucket(position_of_row: Column) -> Column:
    """The first bits, as a signed number: buckets are in the order of positions."""
    return F.shiftright(position_of_row, 64 - _BUCKET_BITS)
