"""The numbers of the dataset card, computed with Spark from the exported files."""

from dataclasses import dataclass
from math import isfinite
from typing import Any

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from coyo_labeler.formats.published import THRESHOLDS
from coyo_labeler.formats.spark_tables import read_table

#: Quantiles of the highest probability in the card; Spark approximates them.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

#: Classes named in the card.
TOP = 20


@dataclass(frozen=True)
class Statistics:
    """Statistics of an exported copy.

    most_labels: of one image. used: classes that are listed. thresholds: (threshold, labels per
    image, classes, share of images kept) as in COYO's table. first: quantiles of the highest
    probability. classes: (class, images that list it, images where it is first), by images
    descending. voted: images with votes, and votes.
    """

    rows: int
    labels: int
    most_labels: int
    used: int
    thresholds: tuple[tuple[float, float, int, float], ...]
    first: tuple[float, ...]
    classes: tuple[tuple[int, int, int], ...]
    median_side: tuple[int, int]
    voted: tuple[int, int] | None


def read_statistics(spark: SparkSession, url: str, schema: pa.Schema, lowest: float) -> Statistics:
    """Statistics of the Parquet files at `url`. lowest: the threshold of the export."""
    rows = read_table(spark, "export: output", url, schema)
    thresholds = [t for t in THRESHOLDS if t == 0.0 or t >= lowest]
    totals = _of_rows(rows, thresholds, "n_votes" in schema.names)
    by_class = _of_classes(rows, thresholds)
    table = []
    for index, threshold in enumerate(thresholds):
        images = totals[f"images{index}"] or 0
        counts = [row[f"n{index}"] for row in by_class]
        per_image = sum(counts) / images if images else 0.0
        used = sum(n > 0 for n in counts)
        share = images / totals["rows"] if totals["rows"] else 0.0
        table.append((threshold, per_image, used, share))
    listed = sorted(by_class, key=lambda row: (-row["n0"], row["label"]))
    quantiles = totals["quantiles"] or ()
    return Statistics(
        rows=totals["rows"],
        labels=totals["labels"] or 0,
        most_labels=totals["most"] or 0,
        used=len(by_class),
        thresholds=tuple(table),
        first=tuple(float(q) for q in quantiles if isfinite(q)),
        classes=tuple((row["label"], row["n0"], row["first"]) for row in listed[:TOP]),
        median_side=(totals["width"] or 0, totals["height"] or 0),
        voted=(totals["voted"] or 0, totals["votes"] or 0) if "n_votes" in schema.names else None,
    )


def _of_rows(rows: DataFrame, thresholds: list[float], votes: bool) -> dict[str, Any]:
    first = F.get("label_probs", F.lit(0))
    sums: list[Column] = [
        F.count("*").alias("rows"),
        F.sum(F.size("labels")).alias("labels"),
        F.max(F.size("labels")).alias("most"),
        F.percentile_approx(first, list(QUANTILES)).alias("quantiles"),
        F.percentile_approx("width", 0.5).alias("width"),
        F.percentile_approx("height", 0.5).alias("height"),
        *(F.count_if(first >= t).alias(f"images{i}") for i, t in enumerate(thresholds)),
    ]
    if votes:
        sums += [F.count_if(F.col("n_votes") > 0).alias("voted"), F.sum("n_votes").alias("votes")]
    totals = rows.agg(*sums).first()
    assert totals is not None
    return totals.asDict()


def _of_classes(rows: DataFrame, thresholds: list[float]) -> list[Any]:
    """One row per listed class: how often it is listed at each threshold, and how often first."""
    pairs = rows.select(F.posexplode(F.arrays_zip("labels", "label_probs")).alias("rank", "pair"))
    prob = F.col("pair.label_probs")
    counted = pairs.groupBy(F.col("pair.labels").alias("label")).agg(
        *(F.count_if(prob >= t).alias(f"n{i}") for i, t in enumerate(thresholds)),
        F.count_if(F.col("rank") == 0).alias("first"),
    )
    return counted.collect()  # at most the label space
