"""Columns of every type: read, or refused with the column's name before any work."""

import datetime
import decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from coyo_labeler.config.ingest import IngestSettings
from coyo_labeler.errors import InputError
from coyo_labeler.ingest.read import inspect
from coyo_labeler.stages import STAGES, run_stage

NOON = datetime.datetime(2024, 1, 2, 12, 0, 0, 678)
BEFORE_1970 = datetime.datetime(1969, 12, 31, 23, 59, 59, 999_999)


def source(folder: Path, name: str = "0", **columns: pa.Array) -> str:
    """Three good rows; columns: replaced or in addition."""
    good = {
        "id": pa.array([1, 2, 3], pa.int64()),
        "url": pa.array([f"http://a.example/{n}" for n in range(3)]),
        "imagehash": pa.array([f"800000000000000{n}" for n in (1, 2, 3)]),
        "width": pa.array([300] * 3, pa.int32()),
        "height": pa.array([300] * 3, pa.int32()),
    }
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({**good, **columns}), folder / f"{name}.parquet")
    return str(folder)


def ingest(spark: SparkSession, tmp_path: Path, **values: Any) -> pa.Table:
    settings = IngestSettings(
        source=str(tmp_path / "source"), output=str(tmp_path / "output"), **values
    )
    run_stage(STAGES["ingest"], settings, spark)
    return pq.read_table(tmp_path / "output" / "catalog").sort_by("id")


@pytest.mark.parametrize("wide", [pa.uint32(), pa.uint64()], ids=str)
def test_ids_and_sides_may_be_unsigned(
    spark: SparkSession, tmp_path: Path, wide: pa.DataType
) -> None:
    source(
        tmp_path / "source",
        id=pa.array([1, 2, 3], wide),
        width=pa.array([300, 301, 2**wide.bit_width - 1], wide),
        height=pa.array([250] * 3, pa.uint8()),
    )
    catalog = ingest(spark, tmp_path)
    assert catalog["id"].to_pylist() == [1, 2]
    assert catalog["width"].to_pylist() == [300, 301]
    [reject] = pq.read_table(tmp_path / "output" / "rejects").to_pylist()
    assert (reject["id"], reject["reason"]) == (3, "bad_size")


def test_files_of_many_widths_are_read_together(spark: SparkSession, tmp_path: Path) -> None:
    kinds = (pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64())
    for number, kind in enumerate(kinds):
        source(
            tmp_path / "source",
            str(number),
            id=pa.array([3 * number + n for n in range(3)], kind),
            imagehash=pa.array([f"8000000000000{number}{n}1" for n in range(3)]),
            width=pa.array([300] * 3, kind),
        )
    assert ingest(spark, tmp_path)["id"].to_pylist() == list(range(15))


#: By name: the source's column, and the value in the catalog.
KEPT = {
    "uint8": (pa.array([200] * 3, pa.uint8()), 200),
    "uint16": (pa.array([2**16 - 1] * 3, pa.uint16()), 2**16 - 1),
    "uint32": (pa.array([2**32 - 1] * 3, pa.uint32()), 2**32 - 1),
    "uint64": (pa.array([2**64 - 1] * 3, pa.uint64()), decimal.Decimal(2**64 - 1)),
    "nanoseconds": (pa.array([NOON] * 3, pa.timestamp("ns")), NOON),
    "early nanoseconds": (pa.array([BEFORE_1970] * 3, pa.timestamp("ns")), BEFORE_1970),
    "zoned nanoseconds": (
        pa.array([NOON] * 3, pa.timestamp("ns", "Europe/Berlin")),
        NOON.replace(tzinfo=datetime.UTC),
    ),
    "microseconds": (pa.array([NOON] * 3, pa.timestamp("us")), NOON),
    "categories": (pa.array(["a"] * 3).dictionary_encode(), "a"),
    "large_string": (pa.array(["a"] * 3, pa.large_string()), "a"),
    "date64": (pa.array([NOON.date()] * 3, pa.date64()), NOON.date()),
    "digest": (pa.array([b"x" * 16] * 3, pa.binary(16)), b"x" * 16),
    "list": (pa.array([[1, 255]] * 3, pa.list_(pa.uint8())), [1, 255]),
    "struct": (pa.array([{"a": 7}] * 3, pa.struct([("a", pa.uint32())])), {"a": 7}),
    "URL": (pa.array(["x"] * 3), "x"),
    "Id": (pa.array(["x"] * 3), "x"),
}


def test_columns_of_many_types_are_kept(spark: SparkSession, tmp_path: Path) -> None:
    source(tmp_path / "source", **{name: column for name, (column, _) in KEPT.items()})
    catalog = ingest(spark, tmp_path, keep_columns=tuple(KEPT))
    values = {name: catalog[name].to_pylist() for name in KEPT}
    assert values == {name: [value] * 3 for name, (_, value) in KEPT.items()}


def test_a_threshold_may_be_of_an_unsigned_column(spark: SparkSession, tmp_path: Path) -> None:
    source(
        tmp_path / "source",
        small=pa.array([1, 200, 255], pa.uint8()),
        large=pa.array([2**64 - 1, 2**64 - 1, 5], pa.uint64()),
    )
    thresholds = {"small": {"min": 100}, "large": {"min": 10}}
    assert ingest(spark, tmp_path, thresholds=thresholds)["id"].to_pylist() == [2]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.5] * 3, pa.float32()).cast(pa.float16()),
        pa.array([1] * 3, pa.time32("ms")),
        pa.array([1] * 3, pa.time64("us")),
        pa.array([1] * 3, pa.time64("ns")),
        pa.array([1] * 3, pa.duration("us")),
        pa.nulls(3),
        pa.array([[NOON]] * 3, pa.list_(pa.timestamp("ns"))),
        pa.array([decimal.Decimal(1)] * 3, pa.decimal256(50, 2)),
    ],
    ids=lambda column: str(column.type),
)
def test_a_column_that_cannot_be_read_is_refused_by_name(tmp_path: Path, column: pa.Array) -> None:
    folder = source(tmp_path / "source", crawled=column)
    kept = IngestSettings(source=folder, output="unused", keep_columns=("crawled",))
    with pytest.raises(InputError, match=r"0\.parquet: column 'crawled' is .+ convert it, or"):
        inspect(kept)
    inspect(IngestSettings(source=folder, output="unused"))  # nobody asks for it


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = source(tmp_path / "source")
    table = pq.read_table(tmp_path / "source" / "0.parquet")
    pq.write_table(table.append_column("url", table["url"]), tmp_path / "source" / "0.parquet")
    with pytest.raises(InputError, match=r"column 'url' is there 2 times; rename all but one"):
        inspect(IngestSettings(source=folder, output="unused"))


def test_an_id_beyond_int64_is_refused_with_its_value(tmp_path: Path) -> None:
    folder = source(tmp_path / "source", id=pa.array([1, 2, 2**63], pa.uint64()))
    with pytest.raises(InputError, match=r"column 'id' holds 9223372036854775808, but ids end"):
        inspect(IngestSettings(source=folder, output="unused"))


def test_columns_that_cannot_be_read_together_are_refused_by_name(
    spark: SparkSession, tmp_path: Path
) -> None:
    source(tmp_path / "source", "a", score=pa.array([2**40] * 3, pa.int64()))
    source(tmp_path / "source", "b", score=pa.array([1.5] * 3, pa.float64()))
    with pytest.raises(InputError, match=r"column 'score'") as refused:
        ingest(spark, tmp_path, keep_columns=("score",))
    assert "\n" not in str(refused.value)
