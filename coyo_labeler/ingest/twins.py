"""Rows that stand for the same image: one is kept, the others point at it."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from coyo_labeler.ingest import phash


def mark_duplicate_ids(rows: DataFrame) -> DataFrame:
    """Add `repeated` boolean: true on all rows of an id but one, which does not hang on chance.

    Rows of an id that occurs once are left where they are; only the others are shuffled whole.
    """
    repeated = rows.groupBy("id").count().filter("count > 1").select("id")
    if repeated.isEmpty():
        return rows.withColumn("repeated", F.lit(False))
    order = Window.partitionBy("id").orderBy("bits", "url", F.xxhash64(*rows.columns))
    some = rows.join(repeated, "id", "left_semi").withColumn(
        "repeated", F.row_number().over(order) > 1
    )
    others = rows.join(repeated, "id", "left_anti").withColumn("repeated", F.lit(False))
    return others.unionByName(some)


def mark_exact_twins(rows: DataFrame, max_fallback_urls: int) -> DataFrame:
    """Add `kept_id`, the lowest id with the same hash, and `fallback_urls` for the kept row.

    rows: id bigint without repeats, url string, bits bigint. One shuffle by hash. Flat-colour
    hashes have no twins. fallback_urls: of the twins with the next ids, none twice, not the row's
    own; empty for rows that are not kept.
    """
    alone = F.when(phash.is_flat(F.col("bits")), F.col("id"))
    group = Window.partitionBy("bits", alone).orderBy("id")
    kept_id = F.first("id").over(group.rowsBetween(Window.unboundedPreceding, 0))
    following = F.collect_list("url").over(group.rowsBetween(1, max(1, max_fallback_urls)))
    nothing = F.array().cast("array<string>")
    fallbacks = F.array_except(following, F.array("url")) if max_fallback_urls else nothing
    return (
        rows.withColumn("kept_id", kept_id)
        .withColumn("fallback_urls", fallbacks)
        .withColumn(
            "fallback_urls", F.when(F.col("kept_id") == F.col("id"), F.col("fallback_urls"))
        )
    )
