"""Ingest against Spark's plain read-and-write of the same Parquet; near twins against brute force.

    python -m benchmarks.ingest                 # 10 M rows; near twins of 0.5, 1 and 2 M hashes
    python -m benchmarks.ingest --rows 1000000  # smaller

Rows are made up in COYO-700M's layout, 128 snappy files, with twins that are known. Plain is
`spark.read.parquet(source).write.parquet(…)` of all columns, in the same session and in turns. The
driver's memory is measured on a cluster whose executors are processes of their own.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyspark
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from coyo_labeler.config.base import SparkSettings
from coyo_labeler.config.ingest import IngestSettings
from coyo_labeler.config.read import read_settings
from coyo_labeler.ingest.components import find_pairs
from coyo_labeler.manifest import Manifest
from coyo_labeler.progress import every
from coyo_labeler.session import open_session
from coyo_labeler.stages import STAGES, run_stage

WORDS = ("photo", "of", "a", "red", "old", "house", "lamp", "boot", "river", "with", "two", "dogs")
THRESHOLD = "thresholds.watermark_score.max=0.5"
#: Rejected rows per thousand, by reason. Twins of rejected rows do not count as twins.
EXPECTED = {
    "too_small": 10,
    "aspect_ratio": 10,
    "bad_url": 10,
    "watermark_score": 10,
    "duplicate_hash": 200,
}


def generate(spark: SparkSession, rows: int, folder: Path) -> None:
    """COYO-700M's layout with `rows` (a multiple of 1,000) rows in 128 snappy files.

    Rows ending in 8 are twins of far rows ending in 0, rows ending in 9 of rows ending in 1. In
    every hundred one row each is too small, too long, without a proper URL, and watermarked.
    """
    last = F.col("id") % 10
    image = (
        F.when(last == 8, F.lit(rows - 10) - (F.col("id") - 8))
        .when(last == 9, F.col("id") - 8)
        .otherwise(F.col("id"))
    )
    words = [word(F.pmod(F.xxhash64("id", F.lit(n)), F.lit(len(WORDS)))) for n in range(9)]
    hashed = F.xxhash64(image, F.lit(7)).bitwiseOR(-(2**63))
    frame = spark.range(0, rows, 1, 128).select(
        "id",
        F.concat(
            F.when(of_hundred(23), "ftp").otherwise("https"),
            F.lit("://cdn"),
            F.pmod(F.xxhash64("id"), F.lit(50_000)).cast("string"),
            F.lit(".example.com/wp-content/uploads/"),
            F.sha2(F.col("id").cast("string"), 224),
            F.lit(".jpg"),
        ).alias("url"),
        F.concat_ws(" ", *words).alias("text"),
        F.when(of_hundred(3), 150).otherwise(400 + F.col("id") % 400).cast("int").alias("width"),
        F.when(of_hundred(13), 4000).otherwise(300 + F.col("id") % 500).cast("int").alias("height"),
        F.lower(F.lpad(F.hex(hashed), 16, "0")).alias("image_phash"),
        F.lit(50).alias("text_length"),
        F.lit(9).alias("word_count"),
        (F.col("id") % 17).cast("int").alias("num_tokens_bert"),
        (F.col("id") % 19).cast("int").alias("num_tokens_gpt"),
        F.lit(0).alias("num_faces"),
        score(11).alias("clip_similarity_vitb32"),
        score(12).alias("clip_similarity_vitl14"),
        score(13).alias("nsfw_score_opennsfw2"),
        score(14).alias("nsfw_score_gantman"),
        F.when(of_hundred(33), F.lit(0.9).cast("float"))
        .otherwise((score(15) / 2.5).cast("float"))
        .alias("watermark_score"),
        score(16).alias("aesthetic_score_laion_v2"),
    )
    frame.write.mode("overwrite").option("compression", "snappy").parquet(str(folder))


def of_hundred(index: int) -> Column:
    """Whether a row has this index in its hundred."""
    return F.col("id") % 100 == index


def word(index: Column) -> Column:
    """A word by its index."""
    return F.element_at(F.array(*map(F.lit, WORDS)), (index + 1).cast("int"))


def score(salt: int) -> Column:
    """A number from 0 to 1 that looks random."""
    return (F.abs(F.xxhash64("id", F.lit(salt)) % 1_000_000) / 1_000_000).cast("float")


def ingest(spark: SparkSession, source: Path, output: Path, *words: str) -> Manifest:
    """A whole run of the stage, its checks and its manifest included."""
    shutil.rmtree(output, ignore_errors=True)
    given = [f"source={source}", f"output={output}", THRESHOLD, *words]
    settings = read_settings(IngestSettings, "ingest", None, given)
    return run_stage(STAGES["ingest"], settings, spark)[0]


def plain(spark: SparkSession, source: Path, output: Path) -> None:
    """Read all and write all with Spark alone."""
    shutil.rmtree(output, ignore_errors=True)
    spark.read.parquet(str(source)).write.parquet(str(output))


def seconds_of(work: Callable[[], object]) -> float:
    """Wall time."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(spark: SparkSession, rows: int, folder: Path, repeats: int) -> dict[str, float]:
    """Seconds of plain read-and-write and of ingest, in turns, after one of each to warm up."""
    source = folder / "source"
    small = folder / "small"
    generate(spark, 100_000, small)
    plain(spark, small, folder / "plain")
    ingest(spark, small, folder / "catalog")
    progress(f"making {rows:,} rows")
    generate(spark, rows, source)
    times: dict[str, list[float]] = {"plain": [], "ingest": []}
    for number in range(repeats):
        progress(f"round {number + 1} of {repeats}")
        times["plain"].append(seconds_of(lambda: plain(spark, source, folder / "plain")))
        start = time.perf_counter()
        manifest = ingest(spark, source, folder / "catalog")
        times["ingest"].append(time.perf_counter() - start)
        rejected = {reason: 1000 * n / rows for reason, n in manifest.rows.rejected.items()}
        if rejected != EXPECTED:
            raise SystemExit(f"rejected per thousand: {rejected}, expected: {EXPECTED}")
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    print(f"\n{rows:,} rows, {size_of(source) / 1e9:.2f} GB, seconds (median of {repeats})")
    print(f"{'plain read and write':<24}{medians['plain']:>8.1f}")
    print(f"{'ingest, exact':<24}{medians['ingest']:>8.1f}")
    print(f"{'ratio (bound: 3)':<24}{medians['ingest'] / medians['plain']:>8.2f}", flush=True)
    return medians


def hashes(n: int) -> npt.NDArray[np.int64]:
    """Distinct hashes as natural images have them: the first bit and 31 others are set.

    Every tenth is 2 bits from the one before it, every hundredth 4 bits.
    """
    random = np.random.default_rng(n)
    bits = np.zeros(n, np.uint64)
    for begin in range(0, n, 100_000):
        some = min(100_000, n - begin)
        order = np.argsort(random.random((some, 63), np.float32), axis=1)[:, :31].astype(np.uint64)
        bits[begin : begin + some] = np.bitwise_or.reduce(np.uint64(1) << order, axis=1)
    bits |= np.uint64(1 << 63)
    for step, moves in ((10, 1), (100, 2)):
        for twin in range(step - 1, n, step):
            bits[twin] = moved(int(bits[twin - 1]), moves)
    return np.unique(bits.view(np.int64))


def moved(bits: int, moves: int) -> int:
    """The hash with that many set bits cleared and as many clear ones set: the lowest of each."""
    for _ in range(moves):
        lowest = bits & -bits
        clear = ~bits & (bits + 1)
        bits = (bits & ~lowest) | clear
    return bits


def near(spark: SparkSession, sizes: list[int], distance: int, sample: int) -> None:
    """Pairs within `distance` bits: time, comparisons, and completeness against brute force."""
    print(
        f"\nnear twins, d ≤ {distance}; a sample of {sample:,} hashes against all, by brute force"
    )
    heads = (
        "hashes",
        "seconds",
        "pairs",
        "comparisons",
        "of all pairs",
        "sample's pairs",
        "missed",
    )
    print("".join(f"{head:>15}" for head in heads), flush=True)
    for size in sizes:
        bits = hashes(size)
        n = len(bits)
        table = pa.table({"id": np.arange(n), "bits": bits})
        images = spark.createDataFrame(table).repartition(8).persist()
        images.count()
        start = time.perf_counter()
        pairs = find_pairs(images, n, distance).persist()
        total = pairs.agg(F.count("low"), F.sum("compared")).first()
        seconds = time.perf_counter() - start
        assert total is not None
        chosen = np.random.default_rng(0).choice(n, sample, replace=False)
        expected = by_brute_force(bits, chosen, distance)
        missed = expected - pairs_with(pairs, chosen)
        row = (
            f"{n:,}",
            f"{seconds:.1f}",
            f"{total[0]:,}",
            f"{total[1]:,}",
            f"{total[1] / (n * (n - 1) / 2):.1e}",
            f"{len(expected):,}",
            f"{len(missed)}",
        )
        print("".join(f"{cell:>15}" for cell in row), flush=True)
        images.unpersist()
        pairs.unpersist()
        if missed:
            raise SystemExit(f"missed: {sorted(missed)[:5]}")


def by_brute_force(
    bits: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64], distance: int
) -> set[tuple[int, int, int]]:
    """Every pair with a chosen hash in it."""
    pairs = set()
    for index in chosen.tolist():
        apart = np.bitwise_count(bits ^ bits[index])
        for other in np.flatnonzero(apart <= distance).tolist():
            if other != index:
                pairs.add((min(index, other), max(index, other), int(apart[other])))
    return pairs


def pairs_with(pairs: DataFrame, chosen: npt.NDArray[np.int64]) -> set[tuple[int, int, int]]:
    """The pairs with a chosen hash in them. Raises: SystemExit where a pair comes twice."""
    mine = pairs.filter("low IS NOT NULL").filter(
        F.col("low").isin(chosen.tolist()) | F.col("high").isin(chosen.tolist())
    )
    rows = [(row["low"], row["high"], row["distance"]) for row in mine.collect()]
    if len(rows) != len(set(rows)):
        raise SystemExit("a pair was found twice")
    return set(rows)


def memory(folder: Path, sizes: list[int]) -> None:
    """Peak memory of a driver whose executors are processes of their own, by rows."""
    print("\nmemory of the driver at its peak, MB (its executors are other processes)")
    print("".join(f"{head:>15}" for head in ("rows", "Python", "JVM, live")), flush=True)
    for rows in sizes:
        command = [sys.executable, "-m", "benchmarks.ingest", "--driver", str(rows)]
        done = subprocess.run(
            [*command, "--output", str(folder.parent)],
            env={**os.environ, "MASTER": "local-cluster[2,2,1536]"},
            stdout=subprocess.PIPE,
            check=True,
        )
        peak = json.loads(done.stdout.splitlines()[-1])
        cells = (f"{rows:,}", f"{peak['python']:.0f}", f"{peak['live']:.0f}")
        print("".join(f"{cell:>15}" for cell in cells), flush=True)


def measure_driver(rows: int, folder: Path) -> None:
    """Run ingest, and print the peak memory of this process and of its JVM.

    The JVM counts with what a full collection leaves, every two seconds, because a heap fills with
    garbage as far as it is allowed to.
    """
    spark = open_session(SparkSettings(conf={"spark.driver.memory": "1g"}), "benchmark")
    source = folder / f"source-{rows}"
    generate(spark, rows, source)
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    heap = jvm.java.lang.management.ManagementFactory.getMemoryMXBean()
    live: list[float] = []

    def look() -> None:
        jvm.System.gc()
        live.append(heap.getHeapMemoryUsage().getUsed() / 1e6)

    with every(2.0, look):
        ingest(spark, source, folder / "driver", "near_distance=4")
    look()
    python = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    spark.stop()
    shutil.rmtree(source)
    print(json.dumps({"python": python, "live": max(live)}))


def size_of(folder: Path) -> int:
    """Bytes of a folder's Parquet files."""
    return sum(path.stat().st_size for path in folder.glob("*.parquet"))


def progress(message: str) -> None:
    """Print progress to standard error."""
    print(f"… {message}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000, help="a multiple of 1,000")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--near", type=int, nargs="*", default=[500_000, 1_000_000, 2_000_000])
    parser.add_argument("--distance", type=int, default=4, choices=(2, 4))
    parser.add_argument("--sample", type=int, default=2000)
    parser.add_argument("--memory", type=int, nargs="*", default=[300_000, 3_000_000])
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--driver", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.output.absolute() / "ingest"
    if arguments.driver:
        measure_driver(arguments.driver, folder)
        return
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores; Spark {pyspark.__version__}", flush=True)
    try:
        spark = open_session(SparkSettings(), "benchmark")
        if arguments.rows:
            compare(spark, arguments.rows, folder, arguments.repeats)
        if arguments.near:
            near(spark, arguments.near, arguments.distance, arguments.sample)
        spark.stop()
        if arguments.memory:
            memory(folder, arguments.memory)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
