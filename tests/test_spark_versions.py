"""What differs between versions of Spark gives the same on each of them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from coyo_labeler import spark_versions
from coyo_labeler.config.base import SparkSettings
from coyo_labeler.config.ingest import IngestSettings
from coyo_labeler.errors import InputError
from coyo_labeler.session import open_session
from coyo_labeler.stages import STAGES, run_stage


@pytest.mark.parametrize("move", ["repartition_by_id", "by_hashed_keys"])
@pytest.mark.parametrize("partitions", [1, 7])
def test_a_row_goes_to_the_partition_of_its_number(
    spark: SparkSession, move: str, partitions: int
) -> None:
    """Not to any other, and all others are there too, empty."""
    rows = spark.range(100).withColumn("part", (F.col("id") % min(partitions, 5)).cast("int"))
    moved = getattr(spark_versions, move)(rows, partitions, "part")
    assert moved.columns == ["id", "part"]
    assert moved.rdd.getNumPartitions() == partitions
    found = moved.withColumn("at", F.spark_partition_id()).collect()
    assert sorted(row["id"] for row in found) == list(range(100))
    assert all(row["at"] == row["part"] for row in found)


def test_small_tables_come_and_go(spark: SparkSession) -> None:
    table = pa.table(
        {
            "n": pa.array([1, None, 3], pa.int32()),
            "x": pa.array([0.5, 1.5, None]),
            "text": ["a", None, "ü"],
        }
    )
    frame = spark_versions.from_arrow(spark, table)
    again = spark_versions.to_arrow(frame)
    assert again.cast(table.schema).sort_by("x").equals(table.sort_by("x"))
    assert spark_versions.to_arrow(frame.limit(0)).schema.equals(again.schema)
    instant = spark.range(1).select(F.timestamp_seconds("id").alias("at"))
    assert spark_versions.arrow_schema(instant).field("at").type == pa.timestamp("us", "UTC")


@pytest.mark.parametrize("version", ["3.4.1", "2.4.8", "3.4.1.dev0"])
def test_a_version_that_is_too_old_is_one_line(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr("pyspark.__version__", version)
    with pytest.raises(InputError, match=r"PySpark [\w.]+ is too old: Spark 3\.5 or newer"):
        open_session(SparkSettings(), "ingest")


class ConnectSession:
    """A session without a context, as those of Spark Connect are."""


def test_a_session_without_rdds_is_one_line_that_says_what_runs_without_spark(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    says = r"^ingest: .*Spark Connect.*no RDDs.*label engine=local, merge engine=local"
    pq.write_table(pa.table({"id": [1]}), tmp_path / "source.parquet")
    settings = IngestSettings(source=str(tmp_path), output=str(tmp_path / "out"))
    with pytest.raises(InputError, match=says):
        run_stage(STAGES["ingest"], settings, ConnectSession())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=says):
        open_session(SparkSettings(master="sc://localhost:15002"), "ingest")
    monkeypatch.setenv("SPARK_REMOTE", "sc://localhost:15002")
    with pytest.raises(InputError, match=says):
        open_session(SparkSettings(), "ingest")
