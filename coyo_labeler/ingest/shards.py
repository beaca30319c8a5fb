"""Which rows are sampled and which shard each belongs to: by hashes of the id alone.

Hashing spreads neighbours, and so the rows of one web host, over all shards.
"""

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

#: So that the sample and the place in a shard do not hang on each other.
_SAMPLE_SALT = 1

_BUCKET_BITS = 12


def is_sampled(share: float) -> Column:
    """Whether an id is in the sample; a smaller share's sample is part of a larger one's."""
    if share == 1:
        return F.lit(True)
    limit = int(share * 2**64) - 2**63
    return F.xxhash64(F.lit(_SAMPLE_SALT), "id") < limit


def place() -> Column:
    """Where an id stands in the order of shards: a bijection of 64-bit integers."""
    return F.xxhash64("id")


def number_shards(rows: DataFrame, rows_per_shard: int) -> DataFrame:
    """Add `shard` int, from 0 on without gaps, `rows_per_shard` rows each but the last.

    rows: id bigint, without repeats. Shards cut the order of `place` into runs of equal length. The
    cuts are found from the ids alone; the driver sees one number per bucket, never a row.
    """
    bucket = F.shiftright(place(), 64 - _BUCKET_BITS)
    placed = rows.select(place().alias("place"), bucket.alias("bucket"))
    sizes = {row["bucket"]: row["count"] for row in placed.groupBy("bucket").count().collect()}
    starts, seen = [], 0
    for key in sorted(sizes):
        starts.append((int(key), seen))
        seen += sizes[key]
    spark = rows.sparkSession
    offsets = spark.createDataFrame(starts, "bucket long, start long")
    order = Window.partitionBy("bucket").orderBy("place")
    ranked = placed.withColumn("rank", F.row_number().over(order) - 1)
    ranked = ranked.join(F.broadcast(offsets), "bucket")
    position = F.col("start") + F.col("rank")
    cuts = (
        ranked.filter(position % rows_per_shard == 0)
        .groupBy("bucket")
        .agg(F.array_sort(F.collect_list("place")).alias("cuts"))
    )
    first = F.ceil(F.col("start") / rows_per_shard) - 1
    table = offsets.join(cuts, "bucket", "left").select(
        "bucket",
        first.alias("before"),
        F.coalesce("cuts", F.array().cast("array<bigint>")).alias("cuts"),
    )
    passed = F.size(F.filter("cuts", lambda cut: cut <= place()))
    return (
        rows.withColumn("bucket", bucket)
        .join(F.broadcast(table), "bucket")
        .withColumn("shard", (F.col("before") + passed).cast("int"))
        .drop("bucket", "before", "cuts")
    )
